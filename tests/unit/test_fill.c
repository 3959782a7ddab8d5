/* SPDX-License-Identifier: Apache-2.0 */
/* Fills against an origin in memory that misbehaves on request. */
#include "check.h"

#include <errno.h>
#include <pthread.h>

#include "base/clock.h"
#include "fill/fill.h"

#define BLOCKS 256 /* four extents */
#define LENGTH ((uint64_t)BLOCKS * STORE_BLOCK - 60000)

struct origin_counters origin_counters;

/* ---- the origin: one image in memory ---- */

static struct {
	uint8_t *bytes;
	_Atomic uint64_t requests, bytes_sent;
	_Atomic int corrupt_block, corrupt_times; /* flip a byte of this block so many times */
	_Atomic int fail_rc, fail_times;
	_Atomic bool hang, etag_changed;
	_Atomic bool pause;   /* after a third of the bytes */
	_Atomic bool at_once; /* progress comes from inside submit, as a local file's may */
	_Atomic int delay_ms;
	_Atomic int moved; /* reads that turned from prefetch into demand */
} fake;

struct origin_client {
	struct loop *loop;
};

struct answer {
	struct loop_timer timer;
	struct origin_read *r;
	struct origin_client *client;
	bool cancelled;
};

struct origin_client *origin_client_new(struct loop *l, const struct origin_config *cfg,
					struct err *err)
{
	struct origin_client *c = calloc(1, sizeof(*c));

	(void)cfg, (void)err;
	c->loop = l;
	return c;
}

void origin_client_free(struct origin_client *c)
{
	free(c);
}

static void answer_end(struct answer *a, int rc, const char *why)
{
	struct origin_read *r = a->r;

	r->impl = NULL;
	free(a);
	if (rc)
		err_set(&r->err, rc, "%s", why);
	r->done(r, rc);
}

static void answer(struct loop_timer *t)
{
	struct answer *a = (struct answer *)((char *)t - offsetof(struct answer, timer));
	struct origin_read *r = a->r;
	uint64_t first = r->off / STORE_BLOCK, last = (r->off + r->len - 1) / STORE_BLOCK;

	if (a->cancelled) {
		answer_end(a, -ECANCELED, "cancelled");
		return;
	}
	if (fake.hang) {
		loop_timer_set(a->client->loop, &a->timer, clock_now_ns() + 20 * NSEC_PER_MSEC);
		if (clock_now_ns() > r->deadline_ns) {
			loop_timer_cancel(a->client->loop, &a->timer);
			answer_end(a, -ETIMEDOUT, "hangs");
		}
		return;
	}
	if (fake.fail_times > 0) {
		fake.fail_times--;
		answer_end(a, fake.fail_rc, "told to fail");
		return;
	}
	if (fake.etag_changed && r->etag[0]) {
		answer_end(a, -ESTALE, "412");
		return;
	}
	memcpy(r->dst, fake.bytes + r->off, r->len);
	if (fake.pause) {
		r->progress(r, r->len / 3);
		loop_timer_set(a->client->loop, &a->timer, clock_now_ns() + 5 * NSEC_PER_MSEC);
		return;
	}
	if (fake.corrupt_times > 0 && (uint64_t)fake.corrupt_block >= first &&
	    (uint64_t)fake.corrupt_block <= last) {
		fake.corrupt_times--;
		r->dst[(uint64_t)fake.corrupt_block * STORE_BLOCK - r->off + 5] ^= 1;
	}
	fake.bytes_sent += r->len;
	strcpy(r->got_etag, "\"new\"");
	if (r->progress && r->len > 3000) /* in three uneven pieces */
		r->progress(r, r->len / 3), r->progress(r, r->len - 1);
	if (r->progress)
		r->progress(r, r->len);
	answer_end(a, 0, NULL);
}

void origin_read_submit(struct origin_client *c, struct origin_read *r)
{
	struct answer *a = calloc(1, sizeof(*a));

	fake.requests++;
	a->r = r;
	a->client = c;
	a->timer.fn = answer;
	r->impl = a;
	loop_timer_set(c->loop, &a->timer,
		       clock_now_ns() + (uint64_t)fake.delay_ms * NSEC_PER_MSEC);
	if (fake.at_once) {
		memcpy(r->dst, fake.bytes + r->off, r->len);
		r->progress(r, r->len);
	}
}

void origin_read_cancel(struct origin_client *c, struct origin_read *r)
{
	struct answer *a = r->impl;

	a->cancelled = true;
	loop_timer_set(c->loop, &a->timer, 0);
}

void origin_read_move(struct origin_client *c, struct origin_read *r, struct drr_flow *flow)
{
	(void)c;
	r->flow = flow;
	fake.moved++;
}

/* ---- the source: that image, its hashes given or in a tree ---- */

struct bed {
	char path[64];
	struct store *store;
	struct fill *fill;
	struct fill_source source, tree;
	bool has_tree, sealed;
	uint64_t hole_block; /* the source says this block is a hole; BLOCKS = none */
	uint8_t sums[BLOCKS][SHA256_LEN];
	uint8_t tree_sum[SHA256_LEN];
	char adopted[64];
	_Atomic int refs; /* of flights on the sources */
	struct err err;
};

static struct bed *bed; /* the ops know only their source */

static void piece(struct fill_source *src, uint64_t off, struct fill_piece *out)
{
	*out = (struct fill_piece){.kind = PIECE_ORIGIN,
				   .len = LENGTH - off,
				   .name = "blob",
				   .etag = "\"old\"",
				   .blob_off = off};
	(void)src;
	if (off / STORE_BLOCK == bed->hole_block) {
		out->kind = PIECE_ZERO;
		out->len = STORE_BLOCK;
	} else if (bed->hole_block < BLOCKS && off / STORE_BLOCK < bed->hole_block) {
		out->len = bed->hole_block * STORE_BLOCK - off;
	}
}

static enum fill_sum sum(struct fill_source *src, uint64_t block, uint8_t out[SHA256_LEN],
			 struct fill_source **from, uint64_t *at)
{
	(void)src;
	if (!bed->sealed)
		return SUM_NONE;
	if (bed->has_tree) {
		*from = &bed->tree;
		*at = block * SHA256_LEN;
		return SUM_AT;
	}
	memcpy(out, bed->sums[block], SHA256_LEN);
	return SUM_INLINE;
}

static void tree_piece(struct fill_source *src, uint64_t off, struct fill_piece *out)
{
	(void)src, (void)off;
	*out = (struct fill_piece){.kind = PIECE_MADE, .len = STORE_BLOCK};
}

static enum fill_sum tree_sum(struct fill_source *src, uint64_t block, uint8_t out[SHA256_LEN],
			      struct fill_source **from, uint64_t *at)
{
	(void)src, (void)block, (void)from, (void)at;
	memcpy(out, bed->tree_sum, SHA256_LEN);
	return SUM_INLINE;
}

static void tree_make(struct fill_source *src, uint64_t block, uint8_t *out)
{
	(void)src, (void)block;
	memset(out, 0, STORE_BLOCK);
	memcpy(out, bed->sums, sizeof(bed->sums));
}

static bool may_change(struct fill_source *src)
{
	(void)src;
	return bed->sealed;
}

static void blob_is_now(struct fill_source *src, const char *name, const char *etag)
{
	(void)src, (void)name;
	snprintf(bed->adopted, sizeof(bed->adopted), "%s", etag);
}

static void ref(struct fill_source *src)
{
	(void)src;
	bed->refs++;
}

static void unref(struct fill_source *src)
{
	(void)src;
	bed->refs--;
}

static void describe(struct fill_source *src, char *buf, size_t len)
{
	(void)src;
	snprintf(buf, len, "image test");
}

static const struct fill_source_ops ops = {.piece = piece,
					   .sum = sum,
					   .may_change = may_change,
					   .blob_is_now = blob_is_now,
					   .ref = ref,
					   .unref = unref,
					   .describe = describe};
static const struct fill_source_ops tree_ops = {.piece = tree_piece,
						.sum = tree_sum,
						.make = tree_make,
						.may_change = may_change,
						.blob_is_now = blob_is_now,
						.ref = ref,
						.unref = unref,
						.describe = describe};

static void bed_open(uint64_t store_size, uint64_t memory, uint64_t deadline_ms)
{
	struct fill_config cfg = {.threads = 2, .memory = memory, .deadline_ms = deadline_ms};
	struct object_id id = {
		.kind = OBJECT_IMAGE, .id = {7}, .length = (LENGTH + 4095) / 4096 * 4096};

	assert_int_equal(store_open(bed->path, store_size, &bed->store, &bed->err), 0);
	assert_int_equal(fill_start(&cfg, &bed->fill, &bed->err), 0);
	bed->source.ops = &ops;
	bed->tree.ops = &tree_ops;
	bed->source.fill = bed->tree.fill = bed->fill;
	assert_int_equal(object_open(bed->store, &id, !bed->sealed, &bed->source.object, &bed->err),
			 0);
	id.kind = OBJECT_TREE;
	id.length = STORE_BLOCK;
	assert_int_equal(object_open(bed->store, &id, false, &bed->tree.object, &bed->err), 0);
}

static void bed_close(void)
{
	fill_stop(bed->fill);
	assert_int_equal(bed->refs, 0);
	object_close(bed->source.object);
	object_close(bed->tree.object);
	store_close(bed->store);
	bed->fill = NULL;
}

static void bed_crash(void)
{
	char mark[128];

	bed_close();
	snprintf(mark, sizeof(mark), "%s/clean", bed->path);
	assert_int_equal(unlink(mark), 0);
}

static void make_image(void)
{
	uint8_t tree[STORE_BLOCK] = {0};
	uint64_t x = 1;

	memset(&fake, 0, sizeof(fake));
	fake.bytes = calloc(BLOCKS, STORE_BLOCK);
	for (uint64_t i = 0; i < LENGTH / 8; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		((uint64_t *)fake.bytes)[i] = x;
	}
	memset(fake.bytes + 9 * STORE_BLOCK, 0, STORE_BLOCK); /* one block of zeros */
	for (int i = 0; i < BLOCKS; i++)
		sha256(fake.bytes + (uint64_t)i * STORE_BLOCK, STORE_BLOCK, bed->sums[i]);
	memcpy(tree, bed->sums, sizeof(bed->sums));
	sha256(tree, sizeof(tree), bed->tree_sum);
}

static int bed_new(void **state)
{
	bed = calloc(1, sizeof(*bed));
	scratch_new(bed->path);
	bed->sealed = true;
	bed->hole_block = BLOCKS;
	make_image();
	bed_open(GIB, 64 * MIB, 20000);
	*state = bed;
	return 0;
}

static int bed_free(void **state)
{
	(void)state;
	if (bed->fill)
		bed_close();
	scratch_free(bed->path);
	free(fake.bytes);
	free(bed);
	return 0;
}

/* ---- reading ---- */

struct wait {
	struct fill_read read;
	uint8_t *dst;
	int rc;
	char why[512];
	_Atomic bool done;
};

static void read_done(struct fill_read *r, int rc, const char *why)
{
	struct wait *w = (struct wait *)((char *)r - offsetof(struct wait, read));

	w->rc = rc;
	snprintf(w->why, sizeof(w->why), "%s", why ? why : "");
	w->done = true;
}

static void start(struct wait *w, uint64_t off, uint32_t len)
{
	memset(w, 0, sizeof(*w));
	w->dst = malloc(len);
	w->read = (struct fill_read){.source = &bed->source,
				     .extent = off / STORE_EXTENT,
				     .off = (uint32_t)(off % STORE_EXTENT),
				     .len = len,
				     .dst = w->dst,
				     .done = read_done};
	fill_submit(bed->fill, &w->read);
}

static int finish(struct wait *w)
{
	uint64_t off = w->read.extent * STORE_EXTENT + w->read.off;

	while (!w->done)
		usleep(200);
	if (!w->rc)
		assert_memory_equal(w->dst, fake.bytes + off, w->read.len);
	free(w->dst);
	return w->rc;
}

static void ahead_done(struct fill_read *r, int rc, const char *why)
{
	(void)r, (void)rc, (void)why;
}

/* Readers come first: what a flight publishes and adopts is there when it let go of its source. */
static void flights_land(void)
{
	while (bed->refs)
		usleep(200);
}

static int get(uint64_t off, uint32_t len)
{
	struct wait w;
	int rc;

	start(&w, off, len);
	rc = finish(&w);
	flights_land();
	return rc;
}

static void a_read_gets_the_origins_bytes_and_they_stay(void **state)
{
	(void)state;
	assert_int_equal(get(100000, 300000), 0);
	assert_true(fake.bytes_sent <= 6 * STORE_BLOCK);
	assert_int_equal(object_resident(bed->source.object, 100000, 300000), 300000);
	assert_int_equal(get(100000, 300000), 0);
	assert_int_equal(fake.requests, 1);
}

static void a_small_read_costs_one_block(void **state)
{
	(void)state;
	assert_int_equal(get(5 * STORE_BLOCK + 1, 10), 0);
	assert_int_equal(fake.bytes_sent, STORE_BLOCK);
}

static void the_end_of_the_image_is_padded_with_zeros(void **state)
{
	uint64_t end = bed->source.object->id.length;

	(void)state;
	assert_int_equal(get(end - 8192, 8192), 0);
	assert_int_equal(get(3 * STORE_EXTENT, (uint32_t)(end - 3 * STORE_EXTENT)), 0);
}

static void many_readers_of_an_extent_cost_one_request(void **state)
{
	struct wait w[50];

	(void)state;
	fake.hang = true;
	for (int i = 0; i < 50; i++)
		start(&w[i], STORE_EXTENT, STORE_EXTENT);
	while (fill_counters(bed->fill)->joined < 49)
		usleep(200);
	fake.hang = false;
	for (int i = 0; i < 50; i++)
		assert_int_equal(finish(&w[i]), 0);
	assert_int_equal(fake.requests, 1);
	assert_int_equal(fill_counters(bed->fill)->joined, 49);
}

static void a_block_stored_twice_takes_space_once(void **state)
{
	uint8_t *block = fake.bytes + 5 * STORE_BLOCK;

	(void)state;
	assert_int_equal(get(5 * STORE_BLOCK, STORE_BLOCK), 0);
	object_pin(bed->source.object, 0);
	assert_int_equal(object_publish(bed->source.object, 5, 1, block, &bed->sums[5]), 0);
	object_unpin(bed->source.object, 0);
	assert_int_equal(store_counters(bed->store)->used, STORE_BLOCK);
	assert_int_equal(bed->source.object->stored_blocks, 1);
}

static void an_origin_that_answers_at_once_is_asked_once(void **state)
{
	struct fill_read ahead = {
		.source = &bed->source, .len = STORE_EXTENT, .class = FILL_PREFETCH};
	struct wait demand;

	(void)state;
	fake.at_once = true;
	start(&demand, STORE_BLOCK, 3 * STORE_BLOCK);
	ahead.done = ahead_done;
	fill_submit(bed->fill, &ahead);
	assert_int_equal(finish(&demand), 0);
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_int_equal(fake.bytes_sent, STORE_EXTENT - STORE_BLOCK); /* but for the zeros */
}

static void zeros_are_neither_fetched_nor_stored(void **state)
{
	(void)state;
	assert_int_equal(get(9 * STORE_BLOCK, STORE_BLOCK), 0);
	assert_int_equal(fake.requests, 0);
	assert_int_equal(store_counters(bed->store)->used, 0);
	assert_int_equal(object_resident(bed->source.object, 9 * STORE_BLOCK, STORE_BLOCK),
			 STORE_BLOCK);
}

static void wrong_bytes_are_fetched_again_and_never_shown(void **state)
{
	(void)state;
	fake.corrupt_block = 20;
	fake.corrupt_times = 1;
	assert_int_equal(get(16 * STORE_BLOCK, 8 * STORE_BLOCK), 0);
	assert_int_equal(fake.requests, 2);
	assert_int_equal(fill_counters(bed->fill)->verify_failures, 1);
}

static void bytes_that_stay_wrong_fail_only_their_own_readers(void **state)
{
	struct wait bad, good;

	(void)state;
	fake.corrupt_block = 20;
	fake.corrupt_times = 1000;
	fake.delay_ms = 20;
	start(&bad, 16 * STORE_BLOCK, 8 * STORE_BLOCK);
	start(&good, 16 * STORE_BLOCK, 4 * STORE_BLOCK);
	assert_int_equal(finish(&bad), -EIO);
	assert_non_null(strstr(bad.why, "image test"));
	assert_non_null(strstr(bad.why, "block 20"));
	assert_int_equal(finish(&good), 0);
	assert_int_equal(object_resident(bed->source.object, 20 * STORE_BLOCK, 1), 0);
	fake.corrupt_times = 0; /* and it heals */
	assert_int_equal(get(16 * STORE_BLOCK, 8 * STORE_BLOCK), 0);
}

static void an_origin_error_is_told_and_the_next_read_asks_again(void **state)
{
	struct wait w;

	(void)state;
	fake.fail_times = 1;
	fake.fail_rc = -EACCES;
	start(&w, 0, 4096);
	assert_int_equal(finish(&w), -EACCES);
	assert_non_null(strstr(w.why, "told to fail"));
	assert_int_equal(get(0, 4096), 0);
}

static void a_sealed_blob_with_a_new_etag_and_the_same_bytes_is_adopted(void **state)
{
	(void)state;
	fake.etag_changed = true;
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_string_equal(bed->adopted, "\"new\"");
}

static void a_sealed_blob_with_a_new_etag_and_other_bytes_is_refused(void **state)
{
	(void)state;
	fake.etag_changed = true;
	fake.corrupt_block = 0;
	fake.corrupt_times = 1000;
	assert_int_equal(get(0, 4096), -EIO);
	assert_string_equal(bed->adopted, "");
}

static void an_unsealed_blob_with_a_new_etag_is_refused(void **state)
{
	(void)state;
	bed_close();
	bed->sealed = false;
	scratch_free(bed->path);
	scratch_new(bed->path);
	bed_open(GIB, 64 * MIB, 20000);
	assert_int_equal(get(0, 4096), 0);
	fake.etag_changed = true;
	assert_int_equal(get(STORE_EXTENT, 4096), -ESTALE);
}

static void damage(uint64_t off)
{
	uint8_t b;

	assert_int_equal(pread(bed->source.object->data_fd, &b, 1, (off_t)off), 1);
	b ^= 1;
	assert_int_equal(pwrite(bed->source.object->data_fd, &b, 1, (off_t)off), 1);
}

static void suspect_blocks_are_rechecked_and_damaged_ones_fetched_again(void **state)
{
	uint64_t before;

	(void)state;
	assert_int_equal(get(0, STORE_EXTENT), 0);
	damage(3 * STORE_BLOCK + 9);
	bed_crash();
	bed_open(GIB, 64 * MIB, 20000);
	before = fake.bytes_sent;
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_int_equal(fake.bytes_sent - before, STORE_BLOCK);
	assert_int_equal(store_counters(bed->store)->recheck_failures, 1);
	assert_int_equal(store_counters(bed->store)->rechecked_blocks,
			 62); /* less damaged, less zeros */
}

static void an_unsealed_image_rechecks_against_hashes_of_its_own(void **state)
{
	uint64_t before;

	(void)state;
	bed_close();
	bed->sealed = false;
	scratch_free(bed->path);
	scratch_new(bed->path);
	bed_open(GIB, 64 * MIB, 20000);
	assert_int_equal(get(0, STORE_EXTENT), 0);
	damage(3 * STORE_BLOCK + 9);
	bed_crash();
	bed_open(GIB, 64 * MIB, 20000);
	before = fake.bytes_sent;
	assert_int_equal(get(STORE_BLOCK, 5 * STORE_BLOCK), 0);
	assert_int_equal(fake.bytes_sent - before, STORE_BLOCK);
}

static void a_truncated_store_file_costs_a_fetch_and_no_wrong_byte(void **state)
{
	(void)state;
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_int_equal(ftruncate(bed->source.object->data_fd, 1000), 0);
	assert_int_equal(get(0, STORE_EXTENT), 0);
}

static void a_store_smaller_than_the_image_serves_all_of_it(void **state)
{
	(void)state;
	bed_close();
	bed_open(6 * MIB, 64 * MIB, 20000);
	for (int round = 0; round < 3; round++) {
		for (uint64_t e = 0; e < 3; e++) {
			assert_int_equal(get(e * STORE_EXTENT, STORE_EXTENT), 0);
			assert_true(store_counters(bed->store)->used <= 6 * MIB);
		}
	}
}

static void a_store_that_takes_nothing_costs_no_reader(void **state)
{
	(void)state;
	bed_close();
	bed_open(STORE_BLOCK, 64 * MIB, 20000); /* room for one block */
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_true(fill_counters(bed->fill)->unstored_blocks > 0);
}

static void little_memory_is_slow_and_not_stuck(void **state)
{
	struct wait w[40];

	(void)state;
	bed_close();
	bed_open(GIB, 2 * STORE_BLOCK, 20000);
	fake.delay_ms = 1;
	for (uint64_t i = 0; i < 40; i++)
		start(&w[i], i % 3 * STORE_EXTENT + i * STORE_BLOCK, STORE_BLOCK);
	for (int i = 0; i < 40; i++)
		assert_int_equal(finish(&w[i]), 0);
	assert_int_equal(get(0, STORE_EXTENT), 0);
}

static void hashes_come_from_a_tree_that_is_filled_itself(void **state)
{
	(void)state;
	bed->has_tree = true;
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_int_equal(object_resident(bed->tree.object, 0, STORE_BLOCK), STORE_BLOCK);
	assert_int_equal(get(2 * STORE_EXTENT, STORE_EXTENT), 0);
}

static void a_tree_that_does_not_match_its_root_fails_reads(void **state)
{
	struct wait w;

	(void)state;
	bed->has_tree = true;
	bed->tree_sum[0] ^= 1;
	start(&w, 0, 4096);
	assert_int_equal(finish(&w), -EIO);
	bed->tree_sum[0] ^= 1;
	assert_int_equal(get(0, 4096), 0);
}

static void hashes_that_go_bad_in_the_store_are_learned_anew(void **state)
{
	uint8_t junk[BLOCKS * SHA256_LEN];

	(void)state;
	bed->has_tree = true;
	bed->hole_block = 9;
	assert_int_equal(get(0, 4096), 0);
	memset(junk, 7, sizeof(junk));
	assert_int_equal(pwrite(bed->tree.object->data_fd, junk, sizeof(junk), 0), sizeof(junk));
	assert_int_equal(get(9 * STORE_BLOCK, 4096), 0);
	assert_int_equal(pwrite(bed->tree.object->data_fd, junk, sizeof(junk), 0), sizeof(junk));
	assert_int_equal(get(STORE_EXTENT, STORE_EXTENT), 0);
	assert_int_equal(get(0, STORE_EXTENT), 0);
}

static void a_hole_is_believed_only_when_its_hash_agrees(void **state)
{
	(void)state;
	bed->hole_block = 9;
	assert_int_equal(get(9 * STORE_BLOCK, 4096), 0);
	bed->hole_block = 10;
	assert_int_equal(get(10 * STORE_BLOCK, 4096), -EIO);
}

static void an_origin_that_never_answers_ends_in_a_timeout(void **state)
{
	uint64_t t0;

	(void)state;
	bed_close();
	bed_open(GIB, 64 * MIB, 300);
	fake.hang = true;
	t0 = clock_now_ns();
	assert_int_equal(get(0, 4096), -ETIMEDOUT);
	assert_true(clock_now_ns() - t0 < 5 * NSEC_PER_SEC);
}

static void stopping_ends_reads_that_wait(void **state)
{
	struct wait w;

	(void)state;
	fake.hang = true;
	start(&w, 0, 4096);
	usleep(50000);
	bed_close();
	assert_true(finish(&w) < 0);
}

static void after_a_cancel_no_read_waits(void **state)
{
	struct wait w;

	(void)state;
	fake.hang = true;
	start(&w, 0, 4096);
	usleep(20000);
	fill_cancel(bed->fill);
	assert_int_equal(finish(&w), -ESHUTDOWN);
	assert_int_equal(get(STORE_EXTENT, 4096), -ESHUTDOWN);
}

struct early {
	struct wait wait;
	uint32_t resident; /* bytes, when it was answered */
};

static void early_done(struct fill_read *r, int rc, const char *why)
{
	struct early *e = (struct early *)((char *)r - offsetof(struct early, wait.read));

	e->resident = object_resident(bed->source.object, STORE_EXTENT, STORE_EXTENT);
	read_done(r, rc, why);
}

static void a_reader_is_answered_before_the_store_writes(void **state)
{
	struct early e = {.wait.read = {.extent = 1, .len = STORE_EXTENT, .done = early_done}};

	(void)state;
	e.wait.dst = malloc(STORE_EXTENT);
	e.wait.read.dst = e.wait.dst;
	e.wait.read.source = &bed->source;
	fill_submit(bed->fill, &e.wait.read);
	assert_int_equal(finish(&e.wait), 0);
	assert_int_equal(e.resident, 0);
	flights_land();
	assert_int_equal(object_resident(bed->source.object, STORE_EXTENT, STORE_EXTENT),
			 STORE_EXTENT);
}

static void what_the_store_has_not_yet_comes_from_the_flight(void **state)
{
	struct fill_read ahead = {.source = &bed->source,
				  .extent = 1,
				  .len = 24 * STORE_BLOCK,
				  .class = FILL_PREFETCH,
				  .done = ahead_done};
	struct wait w;

	(void)state;
	fake.pause = true;
	fill_submit(bed->fill, &ahead);
	for (int i = 0; i < 3; i++) {
		start(&w, STORE_EXTENT + 1000, 5 * STORE_BLOCK);
		assert_int_equal(finish(&w), 0);
		assert_int_equal(object_resident(bed->source.object, STORE_EXTENT, 1), 0);
	}
	fake.pause = false;
	flights_land();
	assert_int_equal(fake.requests, 1);
	assert_int_equal(object_resident(bed->source.object, STORE_EXTENT, 24 * STORE_BLOCK),
			 24 * STORE_BLOCK);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, bed_new, bed_free)
	const struct CMUnitTest tests[] = {
		T(a_read_gets_the_origins_bytes_and_they_stay),
		T(a_small_read_costs_one_block),
		T(the_end_of_the_image_is_padded_with_zeros),
		T(many_readers_of_an_extent_cost_one_request),
		T(a_block_stored_twice_takes_space_once),
		T(an_origin_that_answers_at_once_is_asked_once),
		T(zeros_are_neither_fetched_nor_stored),
		T(wrong_bytes_are_fetched_again_and_never_shown),
		T(bytes_that_stay_wrong_fail_only_their_own_readers),
		T(an_origin_error_is_told_and_the_next_read_asks_again),
		T(a_sealed_blob_with_a_new_etag_and_the_same_bytes_is_adopted),
		T(a_sealed_blob_with_a_new_etag_and_other_bytes_is_refused),
		T(an_unsealed_blob_with_a_new_etag_is_refused),
		T(suspect_blocks_are_rechecked_and_damaged_ones_fetched_again),
		T(an_unsealed_image_rechecks_against_hashes_of_its_own),
		T(a_truncated_store_file_costs_a_fetch_and_no_wrong_byte),
		T(a_store_smaller_than_the_image_serves_all_of_it),
		T(a_store_that_takes_nothing_costs_no_reader),
		T(little_memory_is_slow_and_not_stuck),
		T(hashes_come_from_a_tree_that_is_filled_itself),
		T(a_tree_that_does_not_match_its_root_fails_reads),
		T(hashes_that_go_bad_in_the_store_are_learned_anew),
		T(a_hole_is_believed_only_when_its_hash_agrees),
		T(an_origin_that_never_answers_ends_in_a_timeout),
		T(stopping_ends_reads_that_wait),
		T(after_a_cancel_no_read_waits),
		T(a_reader_is_answered_before_the_store_writes),
		T(what_the_store_has_not_yet_comes_from_the_flight),
	};

	return cmocka_run_group_tests_name("fill", tests, NULL, NULL);
}
