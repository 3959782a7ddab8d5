/* SPDX-License-Identifier: Apache-2.0 */
#include "image/tree.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

int tree_geometry(uint64_t length, struct tree_geometry *g)
{
	struct tree_geometry t = {.length = length};
	uint64_t n;

	if (length == 0 || length > IMAGE_LENGTH_MAX)
		return -ERANGE;
	t.blocks = (length + BLOCK_SIZE - 1) >> BLOCK_SHIFT;
	for (n = t.blocks; n > 1; n = (n + TREE_ARITY - 1) / TREE_ARITY)
		t.level_hashes[t.levels++] = n;
	for (uint32_t l = t.levels; l-- > 0;) {
		t.level_off[l] = t.tree_len;
		t.tree_len += (t.level_hashes[l] + TREE_ARITY - 1) / TREE_ARITY * BLOCK_SIZE;
	}
	*g = t;
	return 0;
}

uint64_t tree_leaf_off(const struct tree_geometry *g, uint64_t block)
{
	return g->level_off[0] + block * SHA256_LEN;
}

void tree_locate(const struct tree_geometry *g, uint64_t tree_block, uint32_t *level,
		 uint64_t *index)
{
	uint64_t off = tree_block << BLOCK_SHIFT;
	uint32_t l = 0;

	while (g->level_off[l] > off)
		l++;
	*level = l;
	*index = (off - g->level_off[l]) >> BLOCK_SHIFT;
}

uint64_t tree_parent_off(const struct tree_geometry *g, uint64_t tree_block)
{
	uint32_t level;
	uint64_t index;

	tree_locate(g, tree_block, &level, &index);
	if (level + 1 >= g->levels)
		return UINT64_MAX;
	return g->level_off[level + 1] + index * SHA256_LEN;
}

static uint8_t zero_hash[TREE_LEVELS_MAX + 1][SHA256_LEN];

static void zero_hash_init(void)
{
	uint8_t block[BLOCK_SIZE] = {0};

	for (uint32_t l = 0; l <= TREE_LEVELS_MAX; l++) {
		sha256(block, sizeof(block), zero_hash[l]);
		for (uint32_t i = 0; i < TREE_ARITY; i++)
			memcpy(block + i * SHA256_LEN, zero_hash[l], SHA256_LEN);
	}
}

const uint8_t *tree_zero_hash(uint32_t level)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, zero_hash_init);
	return zero_hash[level];
}

/* Block @index of @level with every entry zero_hash[level], but @last for the level's last one. */
static void zero_block_fill(const struct tree_geometry *g, uint32_t level, uint64_t index,
			    const uint8_t last[SHA256_LEN], uint8_t *out)
{
	uint64_t n = g->level_hashes[level] - index * TREE_ARITY;

	if (n > TREE_ARITY)
		n = TREE_ARITY;
	for (uint64_t i = 0; i < n; i++)
		memcpy(out + i * SHA256_LEN, tree_zero_hash(level), SHA256_LEN);
	memset(out + n * SHA256_LEN, 0, BLOCK_SIZE - n * SHA256_LEN);
	if (index * TREE_ARITY + n == g->level_hashes[level])
		memcpy(out + (n - 1) * SHA256_LEN, last, SHA256_LEN);
}

void tree_zero_block(const struct tree_geometry *g, uint32_t level, uint64_t index, uint8_t *out)
{
	uint64_t end = (g->level_hashes[level] + TREE_ARITY - 1) / TREE_ARITY;
	uint8_t last[SHA256_LEN];

	/* Only a level's last block may differ from its siblings, because the one below it may be
	 * partly filled: its hash is found by walking up along the right edge. */
	memcpy(last, tree_zero_hash(0), SHA256_LEN);
	for (uint32_t l = 0; l < level && index + 1 == end; l++) {
		uint64_t edge = (g->level_hashes[l] + TREE_ARITY - 1) / TREE_ARITY - 1;

		zero_block_fill(g, l, edge, last, out);
		sha256(out, BLOCK_SIZE, last);
	}
	zero_block_fill(g, level, index, last, out);
}

/* <linux/fsverity.h> and fs/verity/fsverity_private.h */
struct descriptor {
	uint8_t version;	/* 1 */
	uint8_t hash_algorithm; /* 1 = SHA-256 */
	uint8_t log_blocksize;
	uint8_t salt_size;
	uint32_t reserved_0x04;
	uint64_t data_size;
	uint8_t root_hash[64];
	uint8_t salt[32];
	uint8_t reserved[144];
};
_Static_assert(sizeof(struct descriptor) == 256, "fsverity_descriptor is 256 bytes");

void image_digest(uint64_t length, const uint8_t root[SHA256_LEN], uint8_t out[SHA256_LEN])
{
	struct descriptor d = {
		.version = 1,
		.hash_algorithm = 1,
		.log_blocksize = BLOCK_SHIFT,
		.data_size = htole64(length),
	};

	memcpy(d.root_hash, root, SHA256_LEN);
	sha256(&d, sizeof(d), out);
}
