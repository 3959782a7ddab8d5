/* SPDX-License-Identifier: Apache-2.0 */
/* File reads that must not block the loop. */
#include "loop_bed.h"

#include <errno.h>
#include <fcntl.h>

#include "base/bytes.h"

/* Reads. */

#define FILE_LEN 1000001 /* odd: the last read is short */

struct read_of {
	struct loop_read r;
	int *done;
	int res;
	int calls;
};

static void on_read(struct loop_read *r, int res)
{
	struct read_of *x = (struct read_of *)r;

	x->res = res;
	x->calls++;
	++*x->done;
}

static uint8_t byte_at(uint64_t off)
{
	return (uint8_t)(off * 2654435761U >> 13);
}

static int file_new(void)
{
	char path[] = "/var/tmp/test_loop.XXXXXX"; /* not tmpfs: reads of a disk */
	uint8_t *buf = malloc(FILE_LEN);
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	for (int i = 0; i < FILE_LEN; i++)
		buf[i] = byte_at((uint64_t)i);
	assert_int_equal(pwrite_all(fd, buf, FILE_LEN, 0), 0);
	free(buf);
	return fd;
}

static void file_forget(int fd)
{
	fsync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static int read_now(struct bed *bed, int fd, void *buf, uint64_t off, uint32_t len)
{
	int done = 0;
	struct read_of x = {.r = {.done = on_read, .buf = buf, .off = off, .len = len, .fd = fd},
			    .done = &done};

	loop_pread(bed->l, &x.r);
	assert_int_equal(done, 0); /* never from inside */
	turns_until(bed, &done, 1);
	return x.res;
}

static void assert_bytes(const uint8_t *buf, uint64_t off, int len)
{
	for (int i = 0; i < len; i++)
		if (buf[i] != byte_at(off + (uint64_t)i))
			fail_msg("byte %llu differs", (unsigned long long)off + (unsigned)i);
}

static void read_gives_the_bytes_and_less_only_at_the_end(void **state)
{
	struct bed *bed = bed_of(state);
	uint8_t *buf = malloc(FILE_LEN + 10);
	int fd = file_new();

	for (int cached = 0; cached < 2; cached++) {
		if (!cached)
			file_forget(fd);
		assert_int_equal(read_now(bed, fd, buf, 12345, 70000), 70000);
		assert_bytes(buf, 12345, 70000);
		assert_int_equal(read_now(bed, fd, buf, 0, FILE_LEN + 10), FILE_LEN);
		assert_bytes(buf, 0, FILE_LEN);
		assert_int_equal(read_now(bed, fd, buf, FILE_LEN - 3, 4096), 3);
		assert_bytes(buf, FILE_LEN - 3, 3);
		assert_int_equal(read_now(bed, fd, buf, FILE_LEN, 4096), 0);
		assert_int_equal(read_now(bed, fd, buf, 10 * FILE_LEN, 4096), 0);
		assert_int_equal(read_now(bed, fd, buf, 0, 0), 0);
	}
	free(buf);
	close(fd);
}

static void read_that_fails_gives_the_errno(void **state)
{
	struct bed *bed = bed_of(state);
	char buf[16];
	int dir = open("/", O_RDONLY | O_DIRECTORY);

	assert_int_equal(read_now(bed, 987654, buf, 0, 16), -EBADF);
	assert_int_equal(read_now(bed, dir, buf, 0, 16), -EISDIR);
	close(dir);
}

static void more_reads_than_the_queue_holds_all_complete(void **state)
{
	static struct read_of x[MANY];
	static uint8_t buf[MANY][300];
	struct bed *bed = bed_of(state);
	int fd = file_new(), done = 0;

	file_forget(fd);
	for (int i = 0; i < MANY; i++) {
		x[i] = (struct read_of){
			.r = {.done = on_read, .buf = buf[i], .off = (uint64_t)i * 300, .len = 300},
			.done = &done};
		x[i].r.fd = fd;
		loop_pread(bed->l, &x[i].r);
	}
	turns_until(bed, &done, MANY);
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(x[i].calls, 1);
		assert_int_equal(x[i].res, 300);
		assert_bytes(buf[i], (uint64_t)i * 300, 300);
	}
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(read_gives_the_bytes_and_less_only_at_the_end),
		BOTH(read_that_fails_gives_the_errno),
		BOTH(more_reads_than_the_queue_holds_all_complete),
	};

	allow_many_descriptors();
	bed_alarm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
