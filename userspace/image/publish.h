/* SPDX-License-Identifier: Apache-2.0 */
/* What push and seal share: the names of an image's blobs, its tree, and the manifest, which comes
 * last and is never overwritten. */
#ifndef IMAGE_PUBLISH_H
#define IMAGE_PUBLISH_H

#include "image/digest.h"
#include "image/manifest.h"
#include "image/open.h"

#define PUBLISH_THREADS 16 /* each with its own connections and 8 MiB */
/* Above these the smallest holes are sent as zeros, so that no manifest has over 65,536 parts. */
#define PUBLISH_DATA_RUNS 16384
#define PUBLISH_TREE_RUNS 8192

/* How push, seal and verify go about it. */
struct publish_options {
	unsigned threads; /* of those that send and receive; 0 = PUBLISH_THREADS */
	const struct image_progress *progress;
	uint64_t part_size; /* most data a blob gets; 0 = one blob, as far as one reaches */
};

struct publish_result {
	uint8_t digest[SHA256_LEN];
	bool was_there; /* the same image was published before */
	uint64_t length, data_len, tree_len, sent;
	uint32_t nblobs;
	char url[ORIGIN_URL_MAX]; /* of the manifest */
};

/* -EINVAL unless @s is writable and its name fit for an image. */
int publish_check_site(const struct image_site *s, struct err *err);

/* What is published at @s already: *out is NULL when nothing is. */
int publish_find(struct image_site *s, struct manifest **out, struct err *err);

/* -EEXIST, naming both digests and the remedy, unless @there has @digest. */
int publish_compare(const struct image_site *s, const struct manifest *there,
		    const uint8_t digest[SHA256_LEN], struct err *err);

/* A manifest for @t without parts; room for @nblobs blobs and @nparts parts. NULL: no memory. */
struct manifest *publish_draft(const struct image_tree *t, uint32_t nblobs, uint32_t nparts);

/* Runs become parts of blobs from @first_blob on, @blob_max bytes at most in each, and what lies
 * between becomes zero parts. @out has room for publish_parts_room(). Returns how many. */
uint32_t publish_lay_parts(const struct runs *runs, uint64_t length, uint64_t blob_max,
			   uint32_t first_blob, struct manifest_part *out);
size_t publish_parts_room(const struct runs *runs, uint64_t blob_max);

/* Name the next blob NAME.<16 hex digits>.@kind. */
int publish_add_blob(struct manifest *m, const char *name, const char *kind, struct err *err);

/* Send the tree's blocks as a blob of their own and add them to @m. @m->blobs has room. */
int publish_tree(struct image_site *s, const struct publish_options *opt, struct image_tree *t,
		 struct manifest *m, struct publish_result *res, struct err *err);

/* The last step: check that every blob is still the one whose ETag @m holds, then put the manifest
 * where none may be. res->was_there when somebody else was faster with the same image. */
int publish_manifest(struct image_site *s, const struct manifest *m, struct publish_result *res,
		     struct err *err);

#endif
