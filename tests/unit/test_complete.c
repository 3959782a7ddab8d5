/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "store/store.h"

struct bed {
	char path[64];
	struct store *store;
	struct object *o;
	struct err err;
};

/* 65 blocks: the second extent is one short block. */
static const struct object_id id = {.kind = OBJECT_IMAGE, .id = {7}, .length = STORE_EXTENT + 8192};

static void bed_open(struct bed *b, uint64_t size)
{
	assert_int_equal(store_open(b->path, size, &b->store, &b->err), 0);
	assert_int_equal(object_open(b->store, &id, false, &b->o, &b->err), 0);
}

/* Without the clean mark: as after SIGKILL, or a power cut. */
static void bed_crash(struct bed *b)
{
	char mark[128];

	object_close(b->o);
	store_close(b->store);
	b->store = NULL;
	snprintf(mark, sizeof(mark), "%s/clean", b->path);
	assert_int_equal(unlink(mark), 0);
}

static int bed_new(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	scratch_new(b->path);
	bed_open(b, 64 * MIB);
	*state = b;
	return 0;
}

static int bed_free(void **state)
{
	struct bed *b = *state;

	if (b->store) {
		object_close(b->o);
		store_close(b->store);
	}
	scratch_free(b->path);
	free(b);
	return 0;
}

static void put(struct object *o, uint64_t block, uint32_t n, uint8_t value)
{
	uint8_t *buf = malloc((size_t)n * STORE_BLOCK);

	memset(buf, value, (size_t)n * STORE_BLOCK);
	assert_int_equal(object_publish(o, block, n, buf, NULL), 0);
	free(buf);
}

/* Blocks 0 to 62 stored, 63 zeros, 64 stored. */
static void complete(struct bed *b)
{
	put(b->o, 0, 63, 1);
	put(b->o, 64, 1, 2);
	assert_int_equal(object_seal(b->o), -EAGAIN);
	object_publish_zero(b->o, 0, 1ULL << 63);
	assert_int_equal(object_seal(b->o), 0);
}

static void whole_file(struct bed *b, const char *name, char path[256])
{
	snprintf(path, 256, "%s/objects/%s/%s", b->path, b->o->name, name);
}

static void a_sealed_object_is_ready_after_an_unclean_stop_zeros_too(void **state)
{
	struct bed *b = *state;
	uint64_t stored, zero;

	complete(b);
	bed_crash(b);
	bed_open(b, 64 * MIB);
	assert_true(object_is_complete(b->o));
	assert_true(object_has_all(b->o));
	object_usage(b->o, &stored, &zero);
	assert_int_equal(stored, 64 * STORE_BLOCK);
	assert_int_equal(zero, STORE_BLOCK);
}

static void a_sealed_object_has_no_descriptor_that_writes(void **state)
{
	struct bed *b = *state;
	char path[256];
	struct stat st;

	complete(b);
	assert_int_equal(fcntl(b->o->data_fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(pwrite(b->o->data_fd, "x", 1, 0), -1);
	whole_file(b, "data", path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0400);
	bed_crash(b);
	bed_open(b, 64 * MIB);
	assert_int_equal(fcntl(b->o->data_fd, F_GETFL) & O_ACCMODE, O_RDONLY);
}

static void a_file_written_to_behind_its_seal_is_believed_no_more(void **state)
{
	struct bed *b = *state;
	char path[256];
	int fd;

	complete(b);
	whole_file(b, "data", path);
	bed_crash(b);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
	close(fd);
	bed_open(b, 64 * MIB);
	assert_int_equal(object_resident(b->o, 0, 1), 0);
	put(b->o, 0, 1, 3); /* and it can be written again */
}

static void the_seal_goes_with_the_first_block(void **state)
{
	struct bed *b = *state;
	const struct object_id other = {.kind = OBJECT_IMAGE, .id = {8}, .length = 64 * MIB};
	struct object *o;
	char path[256];

	complete(b);
	whole_file(b, "complete", path);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(object_open(b->store, &other, false, &o, &b->err), 0);
	for (uint64_t i = 0; i < 16; i++)
		put(o, i * 64, 64, 9);
	object_close(o);
	assert_false(object_is_complete(b->o));
	assert_int_equal(access(path, F_OK), -1);
	bed_crash(b);
	bed_open(b, 64 * MIB);
	assert_int_equal(object_resident(b->o, 0, 1), 0);
}

static void a_promoted_object_stays_under_pressure_until_released(void **state)
{
	struct bed *b = *state;
	const struct object_id other = {.kind = OBJECT_IMAGE, .id = {8}, .length = 256 * MIB};
	struct object *o;
	char path[256];

	complete(b);
	assert_int_equal(object_promote(b->o), 0);
	assert_int_equal(object_promote(b->o), 0);
	object_release(b->o);
	bed_crash(b);
	bed_open(b, 64 * MIB); /* nobody has told this one yet */
	assert_int_equal(object_open(b->store, &other, false, &o, &b->err), 0);
	for (uint64_t i = 0; i < 32; i++)
		put(o, i * 64, 64, 9);
	assert_true(object_is_complete(b->o));
	object_promoted(b->o);
	object_release(b->o);
	whole_file(b, "promoted", path);
	assert_int_equal(access(path, F_OK), -1);
	for (uint64_t i = 32; i < 96; i++) /* the hand comes round */
		put(o, i % 64 * 64, 64, 9);
	object_close(o);
	assert_false(object_is_complete(b->o));
}

static void a_released_file_stays_while_somebody_has_it_open(void **state)
{
	struct bed *b = *state;
	char path[256];
	int fd;

	complete(b);
	whole_file(b, "data", path);
	assert_int_equal(object_promote(b->o), 0);
	assert_false(object_is_read_elsewhere(b->o));
	fd = open(path, O_RDONLY);
	assert_true(object_is_read_elsewhere(b->o));
	object_release(b->o);
	assert_int_equal(b->o->kept, 1);
	store_let_go_unread(b->store);
	assert_int_equal(b->o->kept, 1);
	close(fd);
	store_let_go_unread(b->store);
	assert_int_equal(b->o->kept, 0);
}

static void blocks_of_a_kept_file_are_never_punched(void **state)
{
	struct bed *b = *state;
	uint8_t byte;

	complete(b);
	assert_int_equal(object_promote(b->o), 0);
	object_forget(b->o, 0, 1);
	assert_int_equal(object_resident(b->o, 0, 1), 0);
	assert_int_equal(pread(b->o->data_fd, &byte, 1, 0), 1);
	assert_int_equal(byte, 1);
	put(b->o, 0, 1, 4);
	assert_true(object_is_complete(b->o));
	object_release(b->o);
}

static void a_mark_of_another_boot_keeps_nothing(void **state)
{
	struct bed *b = *state;
	char path[256];
	FILE *f;

	complete(b);
	assert_int_equal(object_promote(b->o), 0);
	whole_file(b, "promoted", path);
	f = fopen(path, "w");
	fputs("00000000-0000-0000-0000-000000000000", f);
	fclose(f);
	bed_crash(b);
	bed_open(b, 64 * MIB);
	assert_int_equal(b->o->kept, 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_true(object_is_complete(b->o));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, bed_new, bed_free)
	const struct CMUnitTest tests[] = {
		T(a_sealed_object_is_ready_after_an_unclean_stop_zeros_too),
		T(a_sealed_object_has_no_descriptor_that_writes),
		T(a_file_written_to_behind_its_seal_is_believed_no_more),
		T(the_seal_goes_with_the_first_block),
		T(a_promoted_object_stays_under_pressure_until_released),
		T(a_released_file_stays_while_somebody_has_it_open),
		T(blocks_of_a_kept_file_are_never_punched),
		T(a_mark_of_another_boot_keeps_nothing),
	};

	return cmocka_run_group_tests_name("complete", tests, NULL, NULL);
}
