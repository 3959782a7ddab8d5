/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/cached.h"

#define LEN (16 * MIB) /* a folio may have 2 MiB, and goes as a whole */

/* A file on the disk with all of its bytes in the page cache. */
static int cached_file(void)
{
	char path[] = "cached-XXXXXX";
	uint8_t *bytes = malloc(LEN);
	int fd = mkstemp(path);

	assert_non_null(bytes);
	assert_true(fd >= 0);
	unlink(path);
	memset(bytes, 7, LEN);
	assert_int_equal(pwrite_all(fd, bytes, LEN, 0), 0);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(pread_all(fd, bytes, LEN, 0), 0);
	free(bytes);
	return fd;
}

static void drop(int fd, uint64_t off, uint64_t len)
{
	struct statfs fs;

	assert_int_equal(fstatfs(fd, &fs), 0);
	if (fs.f_type == TMPFS_MAGIC) {
		close(fd);
		skip();
	}
	assert_int_equal(posix_fadvise(fd, (off_t)off, (off_t)len, POSIX_FADV_DONTNEED), 0);
}

static void a_file_that_was_read_is_cached(void **state)
{
	int fd = cached_file();
	uint8_t byte = 0;

	(void)state;
	assert_true(file_is_cached(fd, 0, LEN));
	assert_true(file_is_cached(fd, 4095, 2));
	assert_true(file_is_cached(fd, LEN - 1, 1));
	assert_true(file_read_cached(fd, LEN - 1, 1, &byte));
	assert_int_equal(byte, 7);
	close(fd);
}

static void a_hole_between_cached_ends_is_seen(void **state)
{
	int fd = cached_file();

	(void)state;
	drop(fd, 4 * MIB, 8 * MIB);
	assert_true(file_is_cached(fd, 0, 64 * KIB));
	assert_true(file_is_cached(fd, LEN - 64 * KIB, 64 * KIB));
	assert_false(file_is_cached(fd, 0, LEN));
	close(fd);
}

static void what_was_dropped_is_not_copied(void **state)
{
	int fd = cached_file();
	uint8_t byte = 0;

	(void)state;
	drop(fd, 0, LEN);
	assert_false(file_is_cached(fd, 8 * MIB, 4096));
	assert_false(file_read_cached(fd, 8 * MIB, 1, &byte));
	close(fd);
}

static void bytes_past_the_end_are_not_there(void **state)
{
	int fd = cached_file();

	(void)state;
	assert_false(file_is_cached(fd, LEN - 4096, 8192));
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_that_was_read_is_cached),
		cmocka_unit_test(a_hole_between_cached_ends_is_seen),
		cmocka_unit_test(what_was_dropped_is_not_copied),
		cmocka_unit_test(bytes_past_the_end_are_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
