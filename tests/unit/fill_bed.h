/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of fills share: an origin in memory that misbehaves on request, an image of it
 * with its hashes given or in a tree, and reads. Include it once a test. */
#ifndef TESTS_FILL_BED_H
#define TESTS_FILL_BED_H

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

static inline void answer_end(struct answer *a, int rc, const char *why)
{
	struct origin_read *r = a->r;

	r->impl = NULL;
	free(a);
	if (rc)
		err_set(&r->err, rc, "%s", why);
	r->done(r, rc);
}

static inline void answer(struct loop_timer *t)
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

static inline void piece(struct fill_source *src, uint64_t off, struct fill_piece *out)
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

static inline enum fill_sum sum(struct fill_source *src, uint64_t block, uint8_t out[SHA256_LEN],
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

static inline void tree_piece(struct fill_source *src, uint64_t off, struct fill_piece *out)
{
	(void)src, (void)off;
	*out = (struct fill_piece){.kind = PIECE_MADE, .len = STORE_BLOCK};
}

static inline enum fill_sum tree_sum(struct fill_source *src, uint64_t block,
				     uint8_t out[SHA256_LEN], struct fill_source **from,
				     uint64_t *at)
{
	(void)src, (void)block, (void)from, (void)at;
	memcpy(out, bed->tree_sum, SHA256_LEN);
	return SUM_INLINE;
}

static inline void tree_make(struct fill_source *src, uint64_t block, uint8_t *out)
{
	(void)src, (void)block;
	memset(out, 0, STORE_BLOCK);
	memcpy(out, bed->sums, sizeof(bed->sums));
}

static inline bool may_change(struct fill_source *src)
{
	(void)src;
	return bed->sealed;
}

static inline void blob_is_now(struct fill_source *src, const char *name, const char *etag)
{
	(void)src, (void)name;
	snprintf(bed->adopted, sizeof(bed->adopted), "%s", etag);
}

static inline void ref(struct fill_source *src)
{
	(void)src;
	bed->refs++;
}

static inline void unref(struct fill_source *src)
{
	(void)src;
	bed->refs--;
}

static inline void describe(struct fill_source *src, char *buf, size_t len)
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

static inline void bed_open(uint64_t store_size, uint64_t memory, uint64_t deadline_ms)
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

static inline void bed_close(void)
{
	fill_stop(bed->fill);
	assert_int_equal(bed->refs, 0);
	object_close(bed->source.object);
	object_close(bed->tree.object);
	store_close(bed->store);
	bed->fill = NULL;
}

static inline void bed_crash(void)
{
	char mark[128];

	bed_close();
	snprintf(mark, sizeof(mark), "%s/clean", bed->path);
	assert_int_equal(unlink(mark), 0);
}

static inline void make_image(void)
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

static inline int bed_new(void **state)
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

static inline int bed_free(void **state)
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

static inline void read_done(struct fill_read *r, int rc, const char *why)
{
	struct wait *w = (struct wait *)((char *)r - offsetof(struct wait, read));

	w->rc = rc;
	snprintf(w->why, sizeof(w->why), "%s", why ? why : "");
	w->done = true;
}

static inline void start(struct wait *w, uint64_t off, uint32_t len)
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

static inline int finish(struct wait *w)
{
	uint64_t off = w->read.extent * STORE_EXTENT + w->read.off;

	while (!w->done)
		usleep(200);
	if (!w->rc)
		assert_memory_equal(w->dst, fake.bytes + off, w->read.len);
	free(w->dst);
	return w->rc;
}

static inline void ahead_done(struct fill_read *r, int rc, const char *why)
{
	(void)r, (void)rc, (void)why;
}

/* Readers come first: what a flight publishes and adopts is there when it let go of its source. */
static inline void flights_land(void)
{
	while (bed->refs)
		usleep(200);
}

static inline int get(uint64_t off, uint32_t len)
{
	struct wait w;
	int rc;

	start(&w, off, len);
	rc = finish(&w);
	flights_land();
	return rc;
}

#define T(name) cmocka_unit_test_setup_teardown(name, bed_new, bed_free)

#endif
