/* SPDX-License-Identifier: Apache-2.0 */
/* The Merkle tree over an image's blocks: geometry and hashes, pure.
 *
 * It is fs-verity's tree (Documentation/filesystems/fsverity.rst) with SHA-256, 64 KiB blocks, no
 * salt: each tree block holds 2,048 hashes of 32 bytes, zero-padded; levels are stored top first,
 * leaf level last, each in whole 64 KiB blocks. An image of one block has no tree: its root hash is
 * the hash of that block. Data and tree blocks are zero-padded to 64 KiB before hashing.
 * Level 0 is the leaf level (hashes of data blocks); level `levels - 1` is one block, whose hash is
 * the root hash.
 */
#ifndef IMAGE_TREE_H
#define IMAGE_TREE_H

#include <stdint.h>

#include "base/bytes.h"

#define BLOCK_SHIFT	 16
#define BLOCK_SIZE	 (1U << BLOCK_SHIFT)
#define EXTENT_SHIFT	 22
#define EXTENT_SIZE	 (1U << EXTENT_SHIFT)
#define EXTENT_BLOCKS	 (EXTENT_SIZE / BLOCK_SIZE)
#define TREE_ARITY	 (BLOCK_SIZE / SHA256_LEN)
#define TREE_LEVELS_MAX	 6
#define IMAGE_LENGTH_MAX (1ULL << 50) /* 1 PiB: what a reader believes */
#define DEVICE_ALIGN	 4096

struct tree_geometry {
	uint64_t length;			/* of the image, bytes, >= 1 */
	uint64_t blocks;			/* data blocks */
	uint32_t levels;			/* 0 when blocks == 1 */
	uint64_t level_hashes[TREE_LEVELS_MAX]; /* hashes stored in the level */
	uint64_t level_off[TREE_LEVELS_MAX];	/* byte offset of the level in the tree */
	uint64_t tree_len;			/* bytes, a multiple of 64 KiB */
};

/* 0 or -ERANGE when length is 0 or over IMAGE_LENGTH_MAX. */
int tree_geometry(uint64_t length, struct tree_geometry *g);

/* Where the hash of data block @block is in the tree (byte offset). levels > 0. */
uint64_t tree_leaf_off(const struct tree_geometry *g, uint64_t block);

/* The tree block at byte offset @tree_block * 64 KiB: its level and index in that level. */
void tree_locate(const struct tree_geometry *g, uint64_t tree_block, uint32_t *level,
		 uint64_t *index);

/* Where the hash of that tree block is in the tree; -1 (UINT64_MAX) when it is the root hash. */
uint64_t tree_parent_off(const struct tree_geometry *g, uint64_t tree_block);

/* The hash of a block of zeros (level 0's entries over holes), and of a full tree block at @level
 * whose subtree is all holes. Computed once; thread-safe. */
const uint8_t *tree_zero_hash(uint32_t level); /* entry value found IN level @level */

/* Fill @out (64 KiB) with tree block (@level, @index) as it stands when everything under it is
 * zeros; exact also for the last, partly filled block of a level. */
void tree_zero_block(const struct tree_geometry *g, uint32_t level, uint64_t index, uint8_t *out);

/* fs-verity's digest: SHA-256 of the fsverity_descriptor with this length and root hash. */
void image_digest(uint64_t length, const uint8_t root[SHA256_LEN], uint8_t out[SHA256_LEN]);

#endif
