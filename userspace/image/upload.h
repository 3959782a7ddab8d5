/* SPDX-License-Identifier: Apache-2.0 */
/* One large blob made of runs of a file, sent in blocks by a crew, resumable after a kill.
 *
 * A block's id is 28 bytes of SHA-256 and its place in the blob, in hex: for image data the hash of
 * the tree's hashes of what it holds, else of its bytes. So a block that an earlier push staged is
 * known without reading it, and one with other bytes can't be taken for it.
 */
#ifndef IMAGE_UPLOAD_H
#define IMAGE_UPLOAD_H

#include "image/crew.h"
#include "image/digest.h"
#include "image/manifest.h"

struct upload {
	struct origin *origin;
	const char *name;
	const struct origin_config *config;
	unsigned threads;
	const struct image_progress *progress;
	const char *phase;
	uint64_t done_before, total; /* of this phase, when the blob is one of several; or 0, 0 */
	int fd;
	/* Which bytes of fd: [off, off + len) goes to blob_off. Ordered, from blob_off 0. */
	const struct manifest_part *parts;
	uint32_t nparts;
	/* Not NULL: fd is the image of this tree, and each block is checked against it on its way.
	 * -ESTALE when the image changed. */
	const struct image_tree *tree;
	/* results */
	char etag[ORIGIN_ETAG_MAX];
	uint64_t sent; /* bytes that this call sent; the rest was there */
};

/* Afterwards the blob is there, whole. A blob of that name and length that is there already is read
 * back and checked against the tree, and sent again unless every block is right: equal names and
 * lengths are no proof. */
int upload_blob(struct upload *u, struct origin_client *client, struct err *err);

#endif
