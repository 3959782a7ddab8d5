/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cached.h"
#include "base/clock.h"
#include "store/pages.h"

struct bed {
	char path[64];
	struct store *store;
	struct object *o;
};

static int bed_new(void **state)
{
	static const struct object_id id = {.kind = OBJECT_IMAGE, .id = {1}, .length = 64 * MIB};
	struct bed *b = calloc(1, sizeof(*b));
	struct err err;

	scratch_new(b->path);
	assert_int_equal(store_open(b->path, GIB, &b->store, &err), 0);
	assert_int_equal(store_pages_start(b->store, &err), 0);
	assert_int_equal(object_open(b->store, &id, false, &b->o, &err), 0);
	*state = b;
	return 0;
}

static int bed_free(void **state)
{
	struct bed *b = *state;

	object_close(b->o);
	store_close(b->store);
	scratch_free(b->path);
	free(b);
	return 0;
}

static void needs_a_disk(struct bed *b)
{
	struct statfs fs;

	assert_int_equal(fstatfs(b->o->data_fd, &fs), 0);
	if (fs.f_type == TMPFS_MAGIC)
		skip();
}

static void put(struct bed *b, uint64_t extent)
{
	uint8_t *buf = malloc(STORE_EXTENT);

	memset(buf, 7, STORE_EXTENT);
	assert_int_equal(
		object_publish(b->o, extent * STORE_EXTENT_BLOCKS, STORE_EXTENT_BLOCKS, buf, NULL),
		0);
	free(buf);
}

static bool is_cached(struct bed *b, uint64_t extent)
{
	return file_is_cached(b->o->data_fd, extent * STORE_EXTENT, STORE_EXTENT);
}

/* As if @ms had passed, and the disk had taken what it was given. */
static void pass(struct bed *b, uint64_t ms)
{
	assert_int_equal(fsync(b->o->data_fd), 0);
	store_pages_drop(b->store, clock_now_ns() + ms * NSEC_PER_MSEC);
}

static void a_fill_of_what_a_device_reads_leaves_the_page_cache(void **state)
{
	struct bed *b = *state;

	needs_a_disk(b);
	object_readers(b->o, true, 1);
	put(b, 3);
	assert_true(is_cached(b, 3));
	pass(b, PAGES_WRITE_MS);
	pass(b, PAGES_DROP_MS);
	assert_false(is_cached(b, 3));
	assert_int_equal(object_resident(b->o, 3 * STORE_EXTENT, STORE_EXTENT), STORE_EXTENT);
}

static void a_fill_stays_while_a_program_reads_too(void **state)
{
	struct bed *b = *state;

	object_readers(b->o, true, 1);
	object_readers(b->o, false, 1);
	put(b, 3);
	for (int i = 0; i < 3; i++)
		pass(b, PAGES_AGAIN_MS);
	assert_true(is_cached(b, 3));
}

static void a_program_that_comes_meanwhile_keeps_what_was_to_go(void **state)
{
	struct bed *b = *state;

	object_readers(b->o, true, 1);
	put(b, 3);
	pass(b, PAGES_WRITE_MS);
	object_readers(b->o, false, 1);
	for (int i = 0; i < 3; i++)
		pass(b, PAGES_AGAIN_MS);
	assert_true(is_cached(b, 3));
}

static void what_is_sent_from_the_page_cache_leaves_it_afterwards(void **state)
{
	struct bed *b = *state;

	needs_a_disk(b);
	put(b, 3); /* nobody reads yet: it stays */
	object_readers(b->o, true, 1);
	object_pages_note(b->o, 3);
	pass(b, PAGES_WRITE_MS);
	pass(b, PAGES_DROP_MS);
	assert_false(is_cached(b, 3));
}

static void what_comes_after_the_last_drop_has_one_of_its_own(void **state)
{
	struct bed *b = *state;

	needs_a_disk(b);
	object_readers(b->o, true, 1);
	put(b, 3);
	pass(b, PAGES_WRITE_MS);
	pass(b, PAGES_DROP_MS);
	put(b, 3); /* in part or again */
	assert_true(is_cached(b, 3));
	pass(b, PAGES_AGAIN_MS); /* the end of the first note, the begin of the second */
	put(b, 3);
	for (int i = 0; i < 3; i++)
		pass(b, 3 * PAGES_AGAIN_MS);
	assert_false(is_cached(b, 3));
}

static void a_direct_read_brings_the_bytes_and_no_page(void **state)
{
	struct bed *b = *state;
	uint8_t *buf = aligned_alloc(STORE_DIRECT_ALIGN, STORE_BLOCK);

	needs_a_disk(b);
	put(b, 3);
	assert_int_equal(object_direct_fd(b->o, 3 * (uint64_t)STORE_EXTENT, STORE_BLOCK), -1);
	object_readers(b->o, true, 1);
	if (object_direct_fd(b->o, 3 * (uint64_t)STORE_EXTENT, STORE_BLOCK) >= 0) {
		assert_int_equal(fsync(b->o->data_fd), 0);
		posix_fadvise(b->o->data_fd, 0, 0, POSIX_FADV_DONTNEED);
		assert_int_equal(
			pread_all(object_direct_fd(b->o, 3 * (uint64_t)STORE_EXTENT, STORE_BLOCK),
				  buf, STORE_BLOCK, 3 * (uint64_t)STORE_EXTENT),
			0);
		assert_int_equal(buf[0], 7);
		assert_false(file_is_cached(b->o->data_fd, 3 * (uint64_t)STORE_EXTENT, 4096));
	}
	object_direct_refused(b->o);
	assert_int_equal(object_direct_fd(b->o, 3 * (uint64_t)STORE_EXTENT, STORE_BLOCK), -1);
	free(buf);
}

static void what_is_read_from_the_disk_again_and_again_stays(void **state)
{
	struct bed *b = *state;
	uint64_t off = 3 * (uint64_t)STORE_EXTENT;
	int reads = 0;

	needs_a_disk(b);
	put(b, 3);
	object_readers(b->o, true, 1);
	if (object_direct_fd(b->o, 0, 4096) < 0)
		skip(); /* no such reads here */
	while (object_direct_fd(b->o, off, MIB) >= 0)
		assert_in_range(++reads, 1, 9);
	assert_int_equal(reads, 9); /* twice its length, and more */
	object_pages_note(b->o, 3); /* it is read through the page cache now */
	for (int i = 0; i < 3; i++)
		pass(b, PAGES_AGAIN_MS);
	assert_true(is_cached(b, 3));
	assert_true(object_direct_fd(b->o, 0, 4096) >= 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_fill_of_what_a_device_reads_leaves_the_page_cache,
						bed_new, bed_free),
		cmocka_unit_test_setup_teardown(a_fill_stays_while_a_program_reads_too, bed_new,
						bed_free),
		cmocka_unit_test_setup_teardown(a_program_that_comes_meanwhile_keeps_what_was_to_go,
						bed_new, bed_free),
		cmocka_unit_test_setup_teardown(
			what_is_sent_from_the_page_cache_leaves_it_afterwards, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(what_comes_after_the_last_drop_has_one_of_its_own,
						bed_new, bed_free),
		cmocka_unit_test_setup_teardown(what_is_read_from_the_disk_again_and_again_stays,
						bed_new, bed_free),
		cmocka_unit_test_setup_teardown(a_direct_read_brings_the_bytes_and_no_page, bed_new,
						bed_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
