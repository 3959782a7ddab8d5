/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of a whole image, built or fetched: what gives an image its digest.
 *
 * Built in parallel and hole-aware: a hole is neither read nor hashed, and a tree block with only
 * holes under it is never made. The tree blocks that are made live in an unlinked sparse file
 * in $TMPDIR (or /var/tmp), each at its own offset in the tree, so memory stays bounded: the leaf
 * level of a dense 1 TiB is 512 MiB.
 */
#ifndef IMAGE_DIGEST_H
#define IMAGE_DIGEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "image/crew.h"
#include "image/runs.h"
#include "image/tree.h"

struct image_tree {
	struct tree_geometry geometry;
	uint8_t root[SHA256_LEN], digest[SHA256_LEN];
	struct runs data;   /* of the image: what was read; the rest are holes */
	struct runs blocks; /* of the tree: the blocks that @fd holds; the rest stand over holes */
	int fd;
};

/* The tree of bytes [0, length) of @fd. threads: 0 = one a CPU. The caller frees *out with
 * image_tree_free(). -ENODATA when the file ends early. */
int image_tree_build(int fd, uint64_t length, unsigned threads,
		     const struct image_progress *progress, struct image_tree **out,
		     struct err *err);

/* The same of a blob, all of which is read; -ESTALE when it is no longer the one @etag names. */
struct image_blob {
	struct origin *origin;
	const char *name, *etag;
	uint64_t length;
};
int image_tree_build_blob(const struct image_blob *blob, const struct origin_config *config,
			  unsigned threads, const struct image_progress *progress,
			  struct image_tree **out, struct err *err);

/* An empty tree for an image of @length, for those who fill one: no data, no blocks, no root. */
int image_tree_new(uint64_t length, struct image_tree **out, struct err *err);
void image_tree_free(struct image_tree *t);

/* Tree block @tree_block into @out (64 KiB), also when it stands over holes. Thread-safe. */
int image_tree_block(const struct image_tree *t, uint64_t tree_block, uint8_t *out,
		     struct err *err);

/* The hashes of data blocks [first, first + n) into @out. Thread-safe. */
int image_tree_hashes(const struct image_tree *t, uint64_t first, uint32_t n, uint8_t *out,
		      struct err *err);

/* At most @max runs of tree blocks: makes those over the smallest holes. */
int image_tree_limit_runs(struct image_tree *t, uint32_t max, struct err *err);

/* Hash the blocks of a run of an image, the last one zero-padded in place: @buf has room up to the
 * next 64 KiB. @out gets one hash a block. */
void image_hash_blocks(uint8_t *buf, uint64_t len, uint8_t *out);

#endif
