/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/digest.h"

static int open_temp(char *path)
{
	int fd;

	strcpy(path, "/var/tmp/cairn-test-XXXXXX");
	fd = mkostemp(path, O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* @len bytes that differ from place to place. */
static void write_data(int fd, uint64_t off, uint64_t len)
{
	uint8_t buf[BLOCK_SIZE];

	for (uint64_t at = 0; at < len; at += sizeof(buf)) {
		uint64_t n = len - at < sizeof(buf) ? len - at : sizeof(buf);

		for (size_t i = 0; i < sizeof(buf); i++)
			buf[i] = (uint8_t)((off + at) / 7 + i * 31 + 1);
		assert_int_equal(pwrite_all(fd, buf, n, off + at), 0);
	}
}

static struct image_tree *build(int fd, uint64_t length, unsigned threads)
{
	struct image_tree *t = NULL;
	struct err err = {0};

	if (image_tree_build(fd, length, threads, NULL, &t, &err))
		fail_msg("%s", err.text);
	return t;
}

/* Every hash of every level in one array, on one thread; of holes only the leaf hash is not made
 * anew each time. */
static void plain_digest(int fd, uint64_t length, uint8_t out[SHA256_LEN])
{
	uint64_t n = (length + BLOCK_SIZE - 1) / BLOCK_SIZE;
	uint8_t *hashes = calloc(n, SHA256_LEN), block[BLOCK_SIZE] = {0}, zero[SHA256_LEN];

	sha256(block, sizeof(block), zero);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t left = length - i * BLOCK_SIZE;
		off_t data = lseek(fd, (off_t)(i * BLOCK_SIZE), SEEK_DATA);

		if (data < 0 || (uint64_t)data >= (i + 1) * BLOCK_SIZE) {
			memcpy(hashes + i * SHA256_LEN, zero, SHA256_LEN);
			continue;
		}
		memset(block, 0, sizeof(block));
		assert_int_equal(
			pread_all(fd, block, left < BLOCK_SIZE ? left : BLOCK_SIZE, i * BLOCK_SIZE),
			0);
		sha256(block, sizeof(block), hashes + i * SHA256_LEN);
	}
	while (n > 1) {
		uint64_t above = (n + TREE_ARITY - 1) / TREE_ARITY;

		for (uint64_t i = 0; i < above; i++) {
			uint64_t left = (n - i * TREE_ARITY) * SHA256_LEN;

			memset(block, 0, sizeof(block));
			memcpy(block, hashes + i * BLOCK_SIZE,
			       left < BLOCK_SIZE ? left : BLOCK_SIZE);
			sha256(block, sizeof(block), hashes + i * SHA256_LEN);
		}
		n = above;
	}
	image_digest(length, hashes, out);
	free(hashes);
}

static void expect_fsverity(const char *path, const struct image_tree *t)
{
	char cmd[256], line[128] = "", want[2 * SHA256_LEN + 1];
	FILE *p;

	snprintf(cmd, sizeof(cmd),
		 "fsverity digest --compact --block-size=65536 --hash-alg=sha256 %s", path);
	p = popen(cmd, "r");
	assert_non_null(p);
	if (!fgets(line, sizeof(line), p))
		line[0] = 0;
	if (pclose(p))
		skip(); /* no fsverity tool here */
	hex_encode(t->digest, SHA256_LEN, want);
	line[2 * SHA256_LEN] = 0;
	assert_string_equal(line, want);
}

static void digests_equal_the_fsverity_tools(void **state)
{
	static const uint64_t lengths[] = {
		1,	4095,	 65535,		65536,	   65537,	  131072,
		131073, 3 * MIB, 128 * MIB - 1, 128 * MIB, 128 * MIB + 1, 257 * MIB};
	char path[64];

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		int fd = open_temp(path);
		struct image_tree *t;

		write_data(fd, 0, lengths[i]);
		t = build(fd, lengths[i], 3);
		expect_fsverity(path, t);
		image_tree_free(t);
		close(fd);
		unlink(path);
	}
}

static void holes_change_nothing(void **state)
{
	static const struct {
		uint64_t length, off, len;
	} files[] = {
		{1, 0, 0},
		{65537, 0, 0},
		{300 * MIB, 0, 0},
		{300 * MIB + 7, 200 * MIB + 1000, 5000},
		{300 * MIB + 7, 300 * MIB, 7},
		{300 * MIB + 7, 100 * MIB, 60 * MIB},
		{300 * MIB, 0, 1},
	};
	char path[64];

	(void)state;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		int fd = open_temp(path);
		struct image_tree *t;

		assert_int_equal(ftruncate(fd, (off_t)files[i].length), 0);
		write_data(fd, files[i].off, files[i].len);
		t = build(fd, files[i].length, 2);
		expect_fsverity(path, t);
		if (!files[i].len)
			assert_int_equal(t->blocks.n, 0);
		image_tree_free(t);
		close(fd);
		unlink(path);
	}
}

static void a_sparse_image_of_three_levels_equals_the_plain_computation(void **state)
{
	uint64_t length = 257 * GIB + 12345;
	uint8_t want[SHA256_LEN];
	struct image_tree *t;
	char path[64];
	int fd = open_temp(path);

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)length), 0);
	write_data(fd, 3 * GIB + 5, 3 * MIB);
	write_data(fd, 256 * GIB - 70000, 140000);
	write_data(fd, length - 3, 3);
	t = build(fd, length, 0);
	assert_int_equal(t->geometry.levels, 3);
	assert_true(runs_total(&t->blocks) < 16 * BLOCK_SIZE);

	plain_digest(fd, length, want);
	assert_memory_equal(t->digest, want, SHA256_LEN);
	image_tree_free(t);
	close(fd);
	unlink(path);
}

static void leaf_hashes_are_those_of_the_blocks(void **state)
{
	uint64_t length = 300 * MIB;
	uint8_t hashes[4 * SHA256_LEN], block[BLOCK_SIZE], hash[SHA256_LEN];
	struct image_tree *t;
	char path[64];
	int fd = open_temp(path);

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)length), 0);
	write_data(fd, 128 * MIB, 2 * BLOCK_SIZE);
	t = build(fd, length, 2);
	assert_int_equal(image_tree_hashes(t, TREE_ARITY - 2, 4, hashes, NULL), 0);
	assert_memory_equal(hashes + SHA256_LEN, tree_zero_hash(0), SHA256_LEN);
	assert_int_equal(pread_all(fd, block, sizeof(block), 128 * MIB + BLOCK_SIZE), 0);
	sha256(block, sizeof(block), hash);
	assert_memory_equal(hashes + 3 * SHA256_LEN, hash, SHA256_LEN);
	image_tree_free(t);
	close(fd);
	unlink(path);
}

static void a_file_that_ends_early_is_an_error(void **state)
{
	struct image_tree *t = NULL;
	struct err err = {0};
	char path[64];
	int fd = open_temp(path);

	(void)state;
	write_data(fd, 0, 100000);
	assert_int_equal(image_tree_build(fd, 100001, 2, NULL, &t, &err), -ENODATA);
	assert_non_null(strstr(err.text, "shorter"));
	assert_int_equal(image_tree_build(fd, 0, 2, NULL, &t, &err), -ERANGE);
	assert_null(t);
	close(fd);
	unlink(path);
}

static void limiting_tree_runs_keeps_every_block(void **state)
{
	uint64_t length = 2 * GIB;
	uint8_t block[BLOCK_SIZE], want[BLOCK_SIZE];
	struct image_tree *t, *again;
	char path[64];
	int fd = open_temp(path);

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)length), 0);
	for (int i = 1; i < 16; i += 3)
		write_data(fd, (uint64_t)i * 128 * MIB, 10);
	t = build(fd, length, 2);
	again = build(fd, length, 2);
	assert_int_equal(t->blocks.n, 6);
	assert_int_equal(image_tree_limit_runs(t, 2, NULL), 0);
	assert_int_equal(t->blocks.n, 2);
	for (uint64_t b = 0; b < t->geometry.tree_len / BLOCK_SIZE; b++) {
		assert_int_equal(image_tree_block(t, b, block, NULL), 0);
		assert_int_equal(image_tree_block(again, b, want, NULL), 0);
		assert_memory_equal(block, want, BLOCK_SIZE);
	}
	image_tree_free(t);
	image_tree_free(again);
	close(fd);
	unlink(path);
}

static void the_largest_holes_are_kept(void **state)
{
	struct runs r = {0};

	(void)state;
	/* Holes of 1, 5, 2, 5, 3 between runs of 1. */
	runs_add(&r, 0, 1);
	runs_add(&r, 2, 1);
	runs_add(&r, 8, 1);
	runs_add(&r, 11, 1);
	runs_add(&r, 17, 1);
	runs_add(&r, 21, 1);
	assert_int_equal(runs_limit(&r, 6), 0);
	assert_int_equal(r.n, 6);
	assert_int_equal(runs_limit(&r, 3), 0);
	assert_int_equal(r.n, 3);
	assert_int_equal(r.v[0].len, 3);
	assert_int_equal(r.v[1].off, 8);
	assert_int_equal(r.v[1].len, 4);
	assert_int_equal(r.v[2].off, 17);
	assert_int_equal(r.v[2].len, 5);
	assert_int_equal(runs_limit(&r, 2), 0);
	assert_int_equal(r.n, 2);
	assert_int_equal(runs_limit(&r, 1), 0);
	assert_int_equal(r.n, 1);
	assert_int_equal(r.v[0].len, 22);
	runs_clear(&r);
}

static void units_cover_runs_along_the_grid(void **state)
{
	struct runs r = {0};
	struct run_units u;
	struct run got;
	uint32_t at;

	(void)state;
	runs_add(&r, 3, 10);  /* 3-8 8-13 */
	runs_add(&r, 16, 8);  /* 16-24 */
	runs_add(&r, 100, 1); /* 100-101 */
	assert_int_equal(run_units_init(&u, &r, 3), 0);
	assert_int_equal(u.n, 4);
	got = run_unit(&u, 1, &at);
	assert_true(got.off == 8 && got.len == 5 && at == 0);
	got = run_unit(&u, 2, &at);
	assert_true(got.off == 16 && got.len == 8 && at == 1);
	got = run_unit(&u, 3, &at);
	assert_true(got.off == 100 && got.len == 1 && at == 2);
	run_units_clear(&u);
	runs_clear(&r);
}

static int third_job_fails(void *arg, struct crew_hand *hand, uint64_t job, struct err *err)
{
	(void)hand;
	atomic_fetch_add((_Atomic int *)arg, 1);
	return job == 2 ? err_set(err, -EPROTO, "job %d", 2) : 0;
}

static void a_crew_stops_at_the_first_error(void **state)
{
	_Atomic int ran = 0;
	struct crew crew = {.threads = 4, .jobs = 1000000, .run = third_job_fails, .arg = &ran};
	struct err err = {0};

	(void)state;
	assert_int_equal(crew_run(&crew, &err), -EPROTO);
	assert_string_equal(err.text, "job 2");
	assert_true(ran < 1000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(digests_equal_the_fsverity_tools),
		cmocka_unit_test(holes_change_nothing),
		cmocka_unit_test(a_sparse_image_of_three_levels_equals_the_plain_computation),
		cmocka_unit_test(leaf_hashes_are_those_of_the_blocks),
		cmocka_unit_test(a_file_that_ends_early_is_an_error),
		cmocka_unit_test(limiting_tree_runs_keeps_every_block),
		cmocka_unit_test(the_largest_holes_are_kept),
		cmocka_unit_test(units_cover_runs_along_the_grid),
		cmocka_unit_test(a_crew_stops_at_the_first_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
