/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "store/store.h"

struct bed {
	char path[64];
	struct store *store;
	struct object *o;
	struct err err;
};

static const struct object_id id = {
	.kind = OBJECT_IMAGE, .id = {1, 2, 3}, .length = 64 * MIB + 4096};

static void bed_open(struct bed *b, uint64_t size)
{
	assert_int_equal(store_open(b->path, size, &b->store, &b->err), 0);
	assert_int_equal(object_open(b->store, &id, false, &b->o, &b->err), 0);
}

static void bed_close(struct bed *b)
{
	object_close(b->o);
	store_close(b->store);
	b->store = NULL;
}

/* As after SIGKILL: no clean mark. */
static void bed_crash(struct bed *b)
{
	char mark[128];

	bed_close(b);
	snprintf(mark, sizeof(mark), "%s/clean", b->path);
	assert_int_equal(unlink(mark), 0);
}

static int bed_new(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	scratch_new(b->path);
	bed_open(b, GIB);
	*state = b;
	return 0;
}

static int bed_free(void **state)
{
	struct bed *b = *state;

	if (b->store)
		bed_close(b);
	scratch_free(b->path);
	free(b);
	return 0;
}

static void put(struct bed *b, uint64_t block, uint32_t n, uint8_t value)
{
	uint8_t *buf = malloc((size_t)n * STORE_BLOCK);

	memset(buf, value, (size_t)n * STORE_BLOCK);
	assert_int_equal(object_publish(b->o, block, n, buf, NULL), 0);
	free(buf);
}

static uint64_t disk_bytes(struct bed *b)
{
	struct stat st;

	assert_int_equal(fstat(b->o->data_fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void only_published_blocks_are_resident(void **state)
{
	struct bed *b = *state;

	assert_int_equal(object_resident(b->o, 0, 4096), 0);
	put(b, 2, 3, 7);
	assert_int_equal(object_resident(b->o, 0, 4096), 0);
	assert_int_equal(object_resident(b->o, 2 * STORE_BLOCK, 4096), 4096);
	assert_int_equal(object_resident(b->o, 2 * STORE_BLOCK + 100, 10 * STORE_BLOCK),
			 3 * STORE_BLOCK - 100);
	assert_int_equal(object_resident(b->o, 5 * STORE_BLOCK, 1), 0);
}

static void residence_crosses_extents(void **state)
{
	struct bed *b = *state;

	put(b, 60, 4, 1);
	put(b, 64, 64, 1);
	put(b, 128, 2, 1);
	assert_int_equal(object_resident(b->o, 60 * STORE_BLOCK, 20 * MIB), 70 * STORE_BLOCK);
}

static void the_last_cut_block_is_stored_and_read_padded(void **state)
{
	struct bed *b = *state;
	uint8_t buf[STORE_BLOCK];

	put(b, 1024, 1, 9);
	assert_int_equal(object_resident(b->o, 64 * MIB, 4096), 4096);
	assert_int_equal(object_read_block(b->o, 1024, buf), 0);
	assert_int_equal(buf[4095], 9);
	assert_int_equal(buf[4096], 0);
}

static void an_orderly_stop_keeps_blocks_ready(void **state)
{
	struct bed *b = *state;

	put(b, 0, 64, 5);
	bed_close(b);
	bed_open(b, GIB);
	assert_int_equal(object_resident(b->o, 0, 4 * MIB), 4 * MIB);
	assert_int_equal(store_counters(b->store)->used, 4 * MIB);
}

static void after_a_crash_blocks_are_suspect_until_trusted(void **state)
{
	struct bed *b = *state;

	put(b, 0, 64, 5);
	bed_crash(b);
	bed_open(b, GIB);
	assert_int_equal(object_resident(b->o, 0, 4096), 0);
	assert_int_equal(b->o->suspect[0], ~0ULL);
	object_trust(b->o, 0, 1);
	assert_int_equal(object_resident(b->o, 0, 4 * MIB), STORE_BLOCK);
}

static void a_file_touched_while_stopped_is_not_vouched_for(void **state)
{
	struct bed *b = *state;
	char path[256];
	int fd;

	put(b, 0, 64, 5);
	snprintf(path, sizeof(path), "%s/objects/%s/data", b->path, b->o->name);
	bed_close(b);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, 1000), 1);
	close(fd);
	bed_open(b, GIB);
	assert_int_equal(object_resident(b->o, 0, 4096), 0);
}

static void a_truncated_file_gets_its_length_back_and_no_trust(void **state)
{
	struct bed *b = *state;
	char path[256];
	struct stat st;

	put(b, 0, 64, 5);
	snprintf(path, sizeof(path), "%s/objects/%s/data", b->path, b->o->name);
	bed_close(b);
	assert_int_equal(truncate(path, 100), 0);
	bed_open(b, GIB);
	assert_int_equal(object_resident(b->o, 0, 4096), 0);
	assert_int_equal(fstat(b->o->data_fd, &st), 0);
	assert_int_equal(st.st_size, id.length);
}

static void bits_beyond_the_end_are_not_believed(void **state)
{
	struct bed *b = *state;
	uint64_t all = ~0ULL;
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/objects/%s/present", b->path, b->o->name);
	bed_close(b);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, &all, 8, 16 * 8), 8);
	close(fd);
	bed_open(b, GIB);
	/* the object ends in its 17th extent's first block */
	assert_int_equal(b->o->suspect[16], 1);
}

static void a_file_cut_short_while_serving_never_shows_zeros(void **state)
{
	struct bed *b = *state;

	put(b, 0, 64, 5);
	put(b, 64, 64, 6);
	assert_int_equal(ftruncate(b->o->data_fd, 10 * STORE_BLOCK + 7), 0);
	put(b, 192, 64, 7);
	assert_int_equal(object_resident(b->o, 0, 4 * MIB), 10 * STORE_BLOCK);
	assert_int_equal(object_resident(b->o, 4 * MIB, 1), 0);
	assert_int_equal(b->o->suspect[1], ~0ULL);
	assert_int_equal(object_resident(b->o, 12 * MIB, 4 * MIB), 4 * MIB);
}

static void a_store_has_one_owner(void **state)
{
	struct bed *b = *state;
	struct store *other;
	char pid[32];

	assert_int_equal(store_open(b->path, GIB, &other, &b->err), -EBUSY);
	snprintf(pid, sizeof(pid), "pid %d", getpid());
	assert_non_null(strstr(b->err.text, pid));
}

static void a_store_of_another_format_is_left_alone(void **state)
{
	struct bed *b = *state;
	char path[128];
	int fd;

	bed_close(b);
	snprintf(path, sizeof(path), "%s/version", b->path);
	fd = open(path, O_WRONLY | O_TRUNC);
	assert_int_equal(write(fd, "cairn-store 99\n", 15), 15);
	close(fd);
	assert_int_equal(store_open(b->path, GIB, &b->store, &b->err), -ENOTSUP);
	assert_non_null(strstr(b->err.text, "cairn-store 99"));
	b->store = NULL;
}

static void the_size_limit_holds_and_space_is_given_back(void **state)
{
	struct bed *b = *state;

	bed_close(b);
	bed_open(b, 16 * MIB);
	for (uint64_t i = 0; i < 16; i++) {
		put(b, i * 64, 64, (uint8_t)(i + 1));
		assert_true(store_counters(b->store)->used <= 16 * MIB);
	}
	assert_true(disk_bytes(b) <= 17 * MIB);
	assert_true(store_counters(b->store)->evicted_extents >= 12);
	assert_int_equal(object_resident(b->o, 15 * 4 * MIB, 4 * MIB), 4 * MIB);
	assert_int_equal(object_resident(b->o, 0, 4096), 0);
}

static void a_lowered_limit_holds_from_the_start(void **state)
{
	struct bed *b = *state;

	for (uint64_t i = 0; i < 16; i++)
		put(b, i * 64, 64, 1);
	bed_close(b);
	bed_open(b, 8 * MIB);
	assert_true(store_counters(b->store)->used <= 8 * MIB);
}

static void pinned_extents_are_never_evicted(void **state)
{
	struct bed *b = *state;
	uint8_t *buf = calloc(1, STORE_EXTENT);

	bed_close(b);
	bed_open(b, 8 * MIB);
	put(b, 0, 64, 1);
	put(b, 64, 64, 1);
	object_pin(b->o, 0);
	object_pin(b->o, 1);
	assert_int_equal(object_publish(b->o, 128, 64, buf, NULL), -ENOSPC);
	assert_int_equal(object_resident(b->o, 128 * STORE_BLOCK, 1), 0);
	object_unpin(b->o, 0);
	assert_int_equal(object_publish(b->o, 128, 64, buf, NULL), 0);
	assert_int_equal(object_resident(b->o, 4 * MIB, 4 * MIB), 4 * MIB);
	assert_int_equal(object_resident(b->o, 0, 1), 0);
	free(buf);
}

static void a_kept_object_is_never_evicted(void **state)
{
	struct bed *b = *state;
	const struct object_id other = {.kind = OBJECT_IMAGE, .id = {9}, .length = 64 * MIB};
	struct object *kept;
	uint8_t *buf = calloc(1, STORE_EXTENT);

	bed_close(b);
	bed_open(b, 8 * MIB);
	kept = b->o;
	object_keep(kept);
	object_keep(kept);
	put(b, 0, 64, 1);
	assert_int_equal(object_open(b->store, &other, false, &b->o, &b->err), 0);
	put(b, 0, 64, 2);
	put(b, 64, 64, 3);
	assert_int_equal(object_resident(kept, 0, 4 * MIB), 4 * MIB);
	assert_int_equal(object_resident(b->o, 0, 1), 0);
	object_let_go(kept);
	put(b, 128, 64, 4);
	assert_int_equal(object_resident(kept, 0, 4 * MIB), 4 * MIB);
	object_keep(b->o);
	assert_int_equal(object_publish(b->o, 0, 64, buf, NULL), -ENOSPC);
	object_let_go(kept);
	put(b, 0, 64, 5);
	assert_int_equal(object_resident(kept, 0, 1), 0);
	object_let_go(b->o);
	object_close(kept);
	free(buf);
}

static void a_quota_holds_and_is_filled_from_its_own_extents(void **state)
{
	struct bed *b = *state;
	const struct object_id other = {.kind = OBJECT_IMAGE, .id = {9}, .length = 64 * MIB};
	struct object *bounded = b->o, *neighbour;
	uint64_t stored, zero;

	put(b, 0, 64, 1);
	assert_int_equal(object_open(b->store, &other, false, &b->o, &b->err), 0);
	neighbour = b->o;
	put(b, 0, 64, 2);
	b->o = bounded;
	object_set_quota(bounded, 8 * MIB);
	for (uint64_t i = 1; i < 8; i++) {
		put(b, i * 64, 64, (uint8_t)i);
		object_usage(bounded, &stored, &zero);
		assert_in_range(stored, 4 * MIB, 8 * MIB);
	}
	assert_int_equal(object_resident(bounded, 28 * MIB, 4 * MIB), 4 * MIB);
	assert_int_equal(object_resident(neighbour, 0, 4 * MIB), 4 * MIB);
	object_set_quota(bounded, 4 * MIB);
	object_usage(bounded, &stored, &zero);
	assert_in_range(stored, 0, 4 * MIB);
	object_set_quota(bounded, 0);
	for (uint64_t i = 0; i < 8; i++)
		put(b, i * 64, 64, (uint8_t)i);
	object_usage(bounded, &stored, &zero);
	assert_int_equal(stored, 32 * MIB);
	assert_int_equal(atomic_load(&store_counters(b->store)->used), 36 * MIB);
	object_close(neighbour);
}

static void what_readers_asked_for_is_told_from_what_came_along(void **state)
{
	struct bed *b = *state;

	assert_int_equal(store_wanted(b->store), 0);
	object_touch(b->o, 4 * MIB - 4096, 8192, false); /* the last block of 0, the first of 1 */
	put(b, 32, 32, 1);
	put(b, 64, 32, 1);
	assert_int_equal(store_wanted(b->store), 2 * STORE_BLOCK);
	object_touch(b->o, 3 * MIB, MIB, true);
	assert_int_equal(store_wanted(b->store), 17 * STORE_BLOCK);
	object_touch(b->o, 0, MIB, false); /* not stored */
	assert_int_equal(store_wanted(b->store), 17 * STORE_BLOCK);
}

static void zero_blocks_take_no_space_and_survive_eviction_only_in_memory(void **state)
{
	struct bed *b = *state;
	uint64_t stored, zero;

	object_publish_zero(b->o, 3, 0xff);
	assert_int_equal(object_resident(b->o, 12 * MIB, 4 * MIB), 8 * STORE_BLOCK);
	object_usage(b->o, &stored, &zero);
	assert_int_equal(stored, 0);
	assert_int_equal(zero, 8 * STORE_BLOCK);
	bed_close(b);
	bed_open(b, GIB);
	assert_int_equal(object_resident(b->o, 12 * MIB, 4096), 0);
}

struct reader {
	struct store *store;
	_Atomic bool looking, waited;
};

static void *free_space(void *arg)
{
	struct reader *r = arg;

	quiesce_wait(store_quiesce(r->store));
	assert_false(r->looking);
	r->waited = true;
	return NULL;
}

static void space_is_not_freed_under_a_reader(void **state)
{
	struct bed *b = *state;
	struct reader r = {.store = b->store};
	pthread_t t;

	quiesce_enter(store_quiesce(b->store), 3);
	r.looking = true;
	assert_int_equal(pthread_create(&t, NULL, free_space, &r), 0);
	usleep(50000);
	assert_false(r.waited);
	r.looking = false;
	quiesce_leave(store_quiesce(b->store), 3);
	pthread_join(t, NULL);
	assert_true(r.waited);
}

static void *publish_more(void *arg)
{
	struct bed *b = arg;

	put(b, 128, 64, 3);
	return NULL;
}

/* The eviction waits for the data thread's turn to end, so nothing in that turn may wait for it. */
static void a_data_thread_never_waits_for_an_eviction(void **state)
{
	struct bed *b = *state;
	pthread_t t;

	bed_close(b);
	bed_open(b, 8 * MIB);
	put(b, 0, 64, 1);
	put(b, 64, 64, 2);
	object_hold(b->o, 1);
	assert_int_equal(object_open(b->store, &id, false, &b->o, &b->err), 0); /* to be closed */
	quiesce_enter(store_quiesce(b->store), 0);
	assert_int_equal(object_resident(b->o, 0, 1), 1);
	assert_int_equal(pthread_create(&t, NULL, publish_more, b), 0);
	while (object_resident(b->o, 0, 1))
		usleep(100); /* the eviction has begun, and waits for this thread */
	object_hold(b->o, 0);
	assert_int_equal(object_resident(b->o, 0, 1), 0);
	object_unpin(b->o, 0);
	assert_int_equal(object_resident(b->o, 4 * MIB, 4 * MIB), 4 * MIB);
	object_close(b->o);
	assert_int_equal(object_resident(b->o, 8 * MIB, 1), 0);
	quiesce_leave(store_quiesce(b->store), 0);
	pthread_join(t, NULL);
	assert_int_equal(object_resident(b->o, 8 * MIB, 4 * MIB), 4 * MIB);
	object_unpin(b->o, 1);
}

static void path_of_data(struct bed *b, char path[256])
{
	snprintf(path, 256, "%s/objects/%s/data", b->path, b->o->name);
}

static uint32_t descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	uint32_t n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

#define MANY 100 /* more than the table has room for at first */

static void many_open(struct bed *b, struct object **out)
{
	struct object_id each = id;

	for (uint32_t i = 0; i < MANY; i++) {
		each.id[0] = (uint8_t)i; /* their neighbours differ elsewhere */
		each.id[20] = (uint8_t)i;
		assert_int_equal(object_open(b->store, &each, true, &out[i], &b->err), 0);
		assert_memory_equal(out[i]->id.id, each.id, sizeof(each.id));
	}
}

static void many_close(struct object **o)
{
	for (int i = 0; i < MANY; i++)
		object_close(o[i]);
}

static void objects_that_nobody_has_open_hold_no_descriptors(void **state)
{
	struct bed *b = *state;
	struct object *o[MANY], *again[MANY];
	uint32_t before = descriptors();

	many_open(b, o);
	assert_true(descriptors() >= before + MANY);
	many_close(o);
	assert_int_equal(descriptors(), before);
	many_open(b, again);
	assert_memory_equal(o, again, sizeof(o)); /* the same objects */
	many_close(again);
	assert_int_equal(store_objects(b->store), MANY + 1);
	bed_close(b);
	bed_open(b, GIB);
	assert_int_equal(store_objects(b->store), MANY + 1);
	assert_int_equal(descriptors(), before);
}

static void blocks_of_an_object_that_nobody_has_open_are_evicted(void **state)
{
	struct bed *b = *state;
	struct object_id other = {.kind = OBJECT_TREE, .id = {9}, .length = 64 * MIB};
	struct object *mine;
	struct stat st;
	char path[256];

	bed_close(b);
	bed_open(b, 16 * MIB);
	mine = b->o;
	path_of_data(b, path);
	for (uint64_t e = 0; e < 4; e++)
		put(b, e * 64, 64, 1);
	object_close(mine);
	assert_int_equal(object_open(b->store, &other, false, &b->o, &b->err), 0);
	for (uint64_t e = 0; e < 4; e++)
		put(b, e * 64, 64, 2);
	assert_int_equal(mine->stored_blocks, 0);
	assert_int_equal(mine->data_fd, -1);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_blocks, 0);
}

static void files_that_others_changed_while_closed_are_not_believed(void **state)
{
	struct bed *b = *state;
	struct object *before = b->o;
	char path[256];
	int fd;

	put(b, 0, 64, 5);
	object_publish_zero(b->o, 1, 1);
	object_close(b->o);
	assert_int_equal(object_open(b->store, &id, false, &b->o, &b->err), 0);
	assert_int_equal(object_resident(b->o, 0, 4 * MIB + 1), 4 * MIB + 1);
	path_of_data(b, path);
	object_close(b->o);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, 4 * MIB), 1);
	close(fd);
	assert_int_equal(object_open(b->store, &id, false, &b->o, &b->err), 0);
	assert_ptr_equal(b->o, before);
	assert_int_equal(object_resident(b->o, 0, 1), 0);
	assert_int_equal(object_resident(b->o, 4 * MIB, 1), 0);
	assert_int_equal(b->o->suspect[0], ~0ULL);
	assert_int_equal(b->o->suspect[1], 0);
}

static void an_object_whose_folder_is_gone_is_made_anew_and_not_believed(void **state)
{
	struct bed *b = *state;
	struct stat st;
	char path[256];

	put(b, 0, 64, 5);
	path_of_data(b, path);
	object_close(b->o);
	*strrchr(path, '/') = 0;
	scratch_free(path);
	assert_int_equal(object_open(b->store, &id, false, &b->o, &b->err), 0);
	assert_int_equal(object_resident(b->o, 0, 1), 0);
	path_of_data(b, path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, id.length);
	put(b, 0, 64, 6);
	bed_close(b);
	bed_open(b, GIB);
	assert_int_equal(object_resident(b->o, 0, 4 * MIB), 4 * MIB);
}

static void a_clean_mark_vouches_for_objects_one_by_one(void **state)
{
	struct bed *b = *state;
	struct object *o[MANY];
	char path[256];
	int fd;

	many_open(b, o);
	path_of_data(b, path);
	for (int i = 0; i < MANY; i++) {
		uint8_t sums[1][SHA256_LEN] = {{0}}, block[STORE_BLOCK] = {(uint8_t)i};

		assert_int_equal(object_publish(o[i], 3, 1, block, sums), 0);
	}
	many_close(o);
	put(b, 0, 1, 1);
	for (int i = 0; i < 2; i++) { /* the second time nobody had them open */
		bed_close(b);
		bed_open(b, GIB);
	}
	bed_close(b);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
	close(fd);
	bed_open(b, GIB);
	assert_int_equal(object_resident(b->o, 0, 1), 0);
	many_open(b, o);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(object_resident(o[i], 3 * STORE_BLOCK, 1), 1);
	many_close(o);
}

static void forgotten_blocks_are_gone_from_disk_too(void **state)
{
	struct bed *b = *state;

	put(b, 0, 64, 1);
	object_forget(b->o, 0, ~0ULL);
	assert_int_equal(object_resident(b->o, 0, 1), 0);
	assert_int_equal(store_counters(b->store)->used, 0);
	assert_int_equal(disk_bytes(b), 0);
	bed_close(b);
	bed_open(b, GIB);
	assert_int_equal(object_resident(b->o, 0, 1), 0);
}

static void attributes_are_whole_and_bounded(void **state)
{
	struct bed *b = *state;
	char *buf;
	size_t len;

	assert_int_equal(store_url_read(b->store, "az://a/b/c", 100, &buf, &len), -ENOENT);
	assert_int_equal(store_url_write(b->store, "az://a/b/c", "hello", 5), 0);
	assert_int_equal(store_url_read(b->store, "az://a/b/c", 4, &buf, &len), -EFBIG);
	assert_int_equal(store_url_read(b->store, "az://a/b/c", 100, &buf, &len), 0);
	assert_string_equal(buf, "hello");
	free(buf);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, bed_new, bed_free)
	const struct CMUnitTest tests[] = {
		T(only_published_blocks_are_resident),
		T(residence_crosses_extents),
		T(the_last_cut_block_is_stored_and_read_padded),
		T(an_orderly_stop_keeps_blocks_ready),
		T(after_a_crash_blocks_are_suspect_until_trusted),
		T(a_file_touched_while_stopped_is_not_vouched_for),
		T(a_truncated_file_gets_its_length_back_and_no_trust),
		T(bits_beyond_the_end_are_not_believed),
		T(a_file_cut_short_while_serving_never_shows_zeros),
		T(a_store_has_one_owner),
		T(a_store_of_another_format_is_left_alone),
		T(the_size_limit_holds_and_space_is_given_back),
		T(a_lowered_limit_holds_from_the_start),
		T(pinned_extents_are_never_evicted),
		T(a_kept_object_is_never_evicted),
		T(what_readers_asked_for_is_told_from_what_came_along),
		T(a_quota_holds_and_is_filled_from_its_own_extents),
		T(zero_blocks_take_no_space_and_survive_eviction_only_in_memory),
		T(space_is_not_freed_under_a_reader),
		T(a_data_thread_never_waits_for_an_eviction),
		T(objects_that_nobody_has_open_hold_no_descriptors),
		T(blocks_of_an_object_that_nobody_has_open_are_evicted),
		T(files_that_others_changed_while_closed_are_not_believed),
		T(an_object_whose_folder_is_gone_is_made_anew_and_not_believed),
		T(a_clean_mark_vouches_for_objects_one_by_one),
		T(forgotten_blocks_are_gone_from_disk_too),
		T(attributes_are_whole_and_bounded),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
