/* SPDX-License-Identifier: Apache-2.0 */
/* The Merkle tree: geometry of any length; the tree of a sparse image against hashes made one by
 * one and walked up to the root; and the check that stands between received bytes and a reader,
 * which must say yes to exactly the bytes whose hash it is.
 *
 * Input: length of the image, a few writes into it, then bytes that "arrive".
 */
#include <stdbool.h>

#include "fill/flight.h"
#include "fuzz.h"
#include "image/digest.h"
#include "image/tree.h"

#define WRITES	   4
#define LENGTH_MAX (1ULL << 42)

static void geometry_holds(const struct tree_geometry *g, uint64_t pick)
{
	uint64_t tree_blocks = g->tree_len / BLOCK_SIZE, at = g->tree_len;
	uint32_t level;
	uint64_t idx;

	must(g->blocks == (g->length + BLOCK_SIZE - 1) / BLOCK_SIZE);
	must(g->levels <= TREE_LEVELS_MAX && (g->levels == 0) == (g->blocks == 1));
	must(g->tree_len % BLOCK_SIZE == 0 && (g->levels == 0) == (g->tree_len == 0));
	for (level = 0; level < g->levels; level++) { /* stored top first */
		uint64_t below = level ? (g->level_hashes[level - 1] + TREE_ARITY - 1) / TREE_ARITY
				       : g->blocks;

		must(g->level_hashes[level] == below);
		at -= (below + TREE_ARITY - 1) / TREE_ARITY * BLOCK_SIZE;
		must(g->level_off[level] == at);
	}
	must(at == 0);
	if (!tree_blocks)
		return;
	pick %= tree_blocks;
	tree_locate(g, pick, &level, &idx);
	must(level < g->levels && g->level_off[level] / BLOCK_SIZE + idx == pick);
	at = tree_parent_off(g, pick);
	must((at == UINT64_MAX) == (level == g->levels - 1));
	must(at == UINT64_MAX || at == g->level_off[level + 1] + idx * SHA256_LEN);
}

/* From @sum of data block @block up to the root, each level from the tree. */
static void block_leads_to_root(const struct image_tree *t, uint64_t block, const uint8_t *sum)
{
	static uint8_t room[BLOCK_SIZE];
	const struct tree_geometry *g = &t->geometry;
	uint8_t have[SHA256_LEN];
	uint64_t at = g->levels ? tree_leaf_off(g, block) : UINT64_MAX;
	struct err err;

	memcpy(have, sum, sizeof(have));
	while (at != UINT64_MAX) {
		must(image_tree_block(t, at / BLOCK_SIZE, room, &err) == 0);
		must(memcmp(room + at % BLOCK_SIZE, have, sizeof(have)) == 0);
		sha256(room, sizeof(room), have);
		at = tree_parent_off(g, at / BLOCK_SIZE);
	}
	must(memcmp(have, t->root, sizeof(have)) == 0);
}

static void tree_is_that_of(int fd, uint64_t length, const uint64_t *written, unsigned n)
{
	static uint8_t room[BLOCK_SIZE];
	struct image_tree *t;
	uint8_t sum[SHA256_LEN];
	struct err err;

	must(image_tree_build(fd, length, 1, NULL, &t, &err) == 0);
	for (unsigned i = 0; i < n; i++) {
		for (uint64_t b = written[i]; b < written[i] + 2 && b < t->geometry.blocks; b++) {
			uint64_t off = b * BLOCK_SIZE;
			size_t len =
				length - off < BLOCK_SIZE ? (size_t)(length - off) : BLOCK_SIZE;

			memset(room, 0, sizeof(room));
			must(pread_all(fd, room, len, off) == 0);
			sha256(room, sizeof(room), sum);
			block_leads_to_root(t, b, sum);
		}
	}
	image_digest(length, t->root, sum);
	must(memcmp(sum, t->digest, sizeof(sum)) == 0);
	image_tree_free(t);
}

/* @kind: whose hash the tree holds: that of what arrives, of zeros, or of something else. */
static void check_says_yes_to_its_bytes_only(struct input *in)
{
	static uint8_t zeros[BLOCK_SIZE];
	struct flight *f = calloc(1, sizeof(*f));
	unsigned kind = (unsigned)take_number(in, 1) % 3, b = (unsigned)take_number(in, 1) % 64;
	size_t at = take_number(in, 2) % BLOCK_SIZE;
	uint8_t *data = calloc(1, BLOCK_SIZE), sum[SHA256_LEN];

	must(f && data);
	memcpy(data + at, in->at, in->left < BLOCK_SIZE - at ? in->left : BLOCK_SIZE - at);
	sha256(data, BLOCK_SIZE, sum);
	if (kind == 0)
		memcpy(f->sums[b], sum, SHA256_LEN);
	else if (kind == 1)
		sha256(zeros, sizeof(zeros), f->sums[b]);
	else
		memcpy(f->sums[b], in->at, in->left < SHA256_LEN ? in->left : SHA256_LEN);
	must(flight_block_matches(f, b, data) == (memcmp(sum, f->sums[b], SHA256_LEN) == 0));
	free(f);
	free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	unsigned shift = (unsigned)take_number(&in, 1) % 8 * 8;
	uint64_t length = take_number(&in, 7) >> shift, written[WRITES];
	unsigned n = (unsigned)take_number(&in, 1) % (WRITES + 1);
	struct tree_geometry g;
	char path[64];
	int fd;

	if (tree_geometry(length, &g)) {
		must(length == 0 || length > IMAGE_LENGTH_MAX);
		return 0;
	}
	must(length && length <= IMAGE_LENGTH_MAX);
	geometry_holds(&g, take_number(&in, 6));
	if (length <= LENGTH_MAX) {
		fd = file_of("", 0, path);
		must(ftruncate(fd, (off_t)length) == 0);
		for (unsigned i = 0; i < n; i++) {
			uint64_t off = take_number(&in, 6) % length;
			uint8_t bytes[256];
			size_t most = length - off < sizeof(bytes) ? length - off : sizeof(bytes);

			memset(bytes, (int)take_number(&in, 1), sizeof(bytes));
			must(pwrite_all(fd, bytes, most, off) == 0);
			written[i] = off / BLOCK_SIZE;
		}
		tree_is_that_of(fd, length, written, n);
		close(fd);
	}
	check_says_yes_to_its_bytes_only(&in);
	return 0;
}
