/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/tree.h"

static struct tree_geometry geometry(uint64_t length)
{
	struct tree_geometry g;

	assert_int_equal(tree_geometry(length, &g), 0);
	return g;
}

static void an_image_of_one_block_has_no_tree(void **state)
{
	struct tree_geometry g = geometry(1);

	(void)state;
	assert_int_equal(g.levels, 0);
	assert_int_equal(g.tree_len, 0);
	assert_int_equal(g.blocks, 1);
	assert_int_equal(geometry(BLOCK_SIZE).levels, 0);
}

static void a_second_block_makes_one_tree_block(void **state)
{
	struct tree_geometry g = geometry(BLOCK_SIZE + 1);

	(void)state;
	assert_int_equal(g.blocks, 2);
	assert_int_equal(g.levels, 1);
	assert_int_equal(g.tree_len, BLOCK_SIZE);
	assert_int_equal(tree_leaf_off(&g, 1), SHA256_LEN);
	assert_int_equal(tree_parent_off(&g, 0), UINT64_MAX);
}

static void levels_are_stored_top_first(void **state)
{
	struct tree_geometry g = geometry(128 * MIB + 1);

	(void)state;
	assert_int_equal(g.levels, 2);
	assert_int_equal(g.level_hashes[0], 2049);
	assert_int_equal(g.level_hashes[1], 2);
	assert_int_equal(g.level_off[1], 0);
	assert_int_equal(g.level_off[0], BLOCK_SIZE);
	assert_int_equal(g.tree_len, 3 * BLOCK_SIZE);
	assert_int_equal(geometry(128 * MIB).levels, 1);
}

static void every_tree_block_is_found_again_by_its_offset(void **state)
{
	struct tree_geometry g = geometry(600 * GIB + 12345);
	uint64_t n = g.tree_len / BLOCK_SIZE;
	uint32_t level;
	uint64_t index;

	(void)state;
	assert_int_equal(g.levels, 3);
	for (uint64_t b = 0; b < n; b++) {
		tree_locate(&g, b, &level, &index);
		assert_int_equal(g.level_off[level] + index * BLOCK_SIZE, b * BLOCK_SIZE);
		if (b)
			assert_int_equal(tree_parent_off(&g, b),
					 g.level_off[level + 1] + index * SHA256_LEN);
	}
	assert_int_equal(tree_parent_off(&g, 0), UINT64_MAX);
}

static void lengths_out_of_bounds_are_refused(void **state)
{
	struct tree_geometry g;

	(void)state;
	assert_int_equal(tree_geometry(0, &g), -ERANGE);
	assert_int_equal(tree_geometry(IMAGE_LENGTH_MAX + 1, &g), -ERANGE);
	assert_int_equal(tree_geometry(UINT64_MAX, &g), -ERANGE);
	assert_int_equal(geometry(IMAGE_LENGTH_MAX).levels, 4);
}

/* The plain way: all hashes of all levels, from the bottom, for an image of zeros. */
static void zero_blocks_equal_those_hashed_one_by_one(void **state)
{
	static const uint64_t lengths[] = {65537,     128 * MIB, 128 * MIB + 1,
					   300 * GIB, 256 * GIB, 256 * GIB + 5};
	uint8_t want[BLOCK_SIZE], got[BLOCK_SIZE];

	(void)state;
	for (size_t k = 0; k < sizeof(lengths) / sizeof(lengths[0]); k++) {
		struct tree_geometry g = geometry(lengths[k]);
		uint8_t *hashes = malloc(g.blocks * SHA256_LEN), *above;

		for (uint64_t i = 0; i < g.blocks; i++)
			memcpy(hashes + i * SHA256_LEN, tree_zero_hash(0), SHA256_LEN);
		for (uint32_t l = 0; l < g.levels; l++) {
			uint64_t n = (g.level_hashes[l] + TREE_ARITY - 1) / TREE_ARITY;

			above = malloc(n * SHA256_LEN);
			for (uint64_t i = 0; i < n; i++) {
				uint64_t left = (g.level_hashes[l] - i * TREE_ARITY) * SHA256_LEN;

				memset(want, 0, sizeof(want));
				memcpy(want, hashes + i * BLOCK_SIZE,
				       left < BLOCK_SIZE ? left : BLOCK_SIZE);
				tree_zero_block(&g, l, i, got);
				assert_memory_equal(got, want, BLOCK_SIZE);
				sha256(want, BLOCK_SIZE, above + i * SHA256_LEN);
				if (left > BLOCK_SIZE && i + 1 < n)
					assert_memory_equal(above + i * SHA256_LEN,
							    tree_zero_hash(l + 1), SHA256_LEN);
			}
			free(hashes);
			hashes = above;
		}
		free(hashes);
	}
}

/* `printf a > f; fsverity digest --block-size=65536 f` and the same of 64 KiB + 1 zeros. */
static void digests_are_those_the_fsverity_tool_prints(void **state)
{
	struct tree_geometry g = geometry(BLOCK_SIZE + 1);
	uint8_t block[BLOCK_SIZE] = {'a'}, root[SHA256_LEN], digest[SHA256_LEN];
	char hex[2 * SHA256_LEN + 1];

	(void)state;
	sha256(block, sizeof(block), root);
	image_digest(1, root, digest);
	hex_encode(digest, SHA256_LEN, hex);
	assert_string_equal(hex,
			    "5f9822557f7fd142e2f9091cb15695cdbd1f5ab1116b54fc01a8a39555be9232");

	tree_zero_block(&g, 0, 0, block);
	sha256(block, sizeof(block), root);
	image_digest(g.length, root, digest);
	hex_encode(digest, SHA256_LEN, hex);
	assert_string_equal(hex,
			    "e4afce8091654b18d365c35cd0bdb54eb4bac61ab923dc85a60e0268a1efbe7f");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_image_of_one_block_has_no_tree),
		cmocka_unit_test(a_second_block_makes_one_tree_block),
		cmocka_unit_test(levels_are_stored_top_first),
		cmocka_unit_test(every_tree_block_is_found_again_by_its_offset),
		cmocka_unit_test(lengths_out_of_bounds_are_refused),
		cmocka_unit_test(zero_blocks_equal_those_hashed_one_by_one),
		cmocka_unit_test(digests_are_those_the_fsverity_tool_prints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
