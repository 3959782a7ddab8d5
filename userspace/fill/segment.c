/* SPDX-License-Identifier: Apache-2.0 */
/* Segments: ranged requests of a flight, and what happens to their bytes as they arrive. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "fill/flight.h"

#define STORE_RUN                                                                                  \
	16 /* blocks that go into the store at once, with one write of its present word            \
	    */

static uint64_t segment_bytes(const struct segment *s)
{
	return (uint64_t)s->n * STORE_BLOCK;
}

static void segment_free(struct segment *s)
{
	struct flight *f = s->flight;

	for (struct segment **at = &f->segments; *at; at = &(*at)->next) {
		if (*at == s) {
			*at = s->next;
			break;
		}
	}
	f->lane->memory -= segment_bytes(s);
	fill_memory_give(f->thread, s->buf, segment_bytes(s));
	free(s);
}

/* Put blocks [b, b + n) of the extent, all held, into the store. */
static void publish_run(struct segment *s, uint32_t b, uint32_t n)
{
	struct flight *f = s->flight;

	f->held &= ~blocks_mask(b, n);
	if (object_publish(f->source->object, f->extent * STORE_EXTENT_BLOCKS + b, n,
			   s->buf + (uint64_t)(b - s->first) * STORE_BLOCK, &f->sums[b]) < 0)
		atomic_fetch_add(&f->thread->fill->counters.unstored_blocks, n);
}

/* Put what is settled into the store. */
static void segment_store(struct segment *s)
{
	struct flight *f = s->flight;
	uint64_t held = f->held & blocks_mask(s->first + s->stored, s->settled - s->stored);

	s->stored = s->settled;
	if (s->is_in_line)
		TAILQ_REMOVE(&f->thread->stores, s, line);
	s->is_in_line = false;
	while (held) {
		uint32_t b = (uint32_t)__builtin_ctzll(held);
		uint64_t rest = ~(held >> b);
		uint32_t n = rest ? (uint32_t)__builtin_ctzll(rest) : STORE_EXTENT_BLOCKS;

		publish_run(s, b, n);
		held &= ~blocks_mask(b, n);
	}
}

/* Readers come first: the store takes what is settled in a later turn of the loop, much at once. */
static void segment_store_later(struct segment *s)
{
	struct fill_thread *t = s->flight->thread;
	uint32_t n = s->settled - s->stored;

	if (s->is_in_line || !n || (n < STORE_RUN && s->settled < s->n))
		return;
	if (TAILQ_EMPTY(&t->stores))
		loop_timer_set(t->loop, &t->store, 0);
	TAILQ_INSERT_TAIL(&t->stores, s, line);
	s->is_in_line = true;
}

static void block_is_wrong(struct segment *s, uint32_t b)
{
	struct flight *f = s->flight;
	char what[512], why[768];

	s->wrong = true;
	atomic_fetch_add(&f->thread->fill->counters.verify_failures, 1);
	f->source->ops->describe(f->source, what, sizeof(what));
	snprintf(why, sizeof(why),
		 "%s: block %" PRIu64
		 " from blob %s does not match its hash: the blob is damaged (run `cairn "
		 "image verify`)",
		 what, f->extent * STORE_EXTENT_BLOCKS + b, s->read.name);
	log_warn("fill", "bytes do not match their hash", "%s", why);
	if (f->retried >> b & 1) {
		flight_fail(f, 1ULL << b, -EIO, why);
		return;
	}
	f->retried |= 1ULL << b; /* once more: the wire may have flipped it, or a disk its hash */
	flight_doubt_sum(f, b);
}

static bool settle_block(struct segment *s, bool good)
{
	struct flight *f = s->flight;
	uint32_t b = s->first + s->settled;
	uint64_t bit = 1ULL << b;
	const uint8_t *data = s->buf + (uint64_t)s->settled * STORE_BLOCK;

	f->busy &= ~bit;
	s->settled++;
	if (!good) {
		block_is_wrong(s, b);
		return false;
	}
	if (bytes_are_zero(data, STORE_BLOCK))
		object_publish_zero(f->source->object, f->extent, bit);
	else
		f->held |= bit;
	flight_deliver(f, b, data, true);
	return true;
}

/* How many blocks to verify next. Two together cost little more than one, so one that nobody waits
 * for waits for the next. */
static uint32_t blocks_to_verify(const struct segment *s)
{
	const struct flight *f = s->flight;
	uint32_t b = s->first + s->settled, arrived = s->have - s->settled;

	if (s->have <= s->settled || !flight_knows_sum(f, b))
		return 0;
	if (arrived > 1)
		return flight_knows_sum(f, b + 1) ? 2 : 1;
	return s->over || s->have == s->n || (f->demand >> b & 1) ? 1 : 0;
}

/* Verify and deliver what has arrived and whose hashes are known. */
static void segment_settle(struct segment *s)
{
	uint32_t n;

	while ((n = blocks_to_verify(s))) {
		uint32_t good = flight_verify(s->flight, s->first + s->settled, n,
					      s->buf + (uint64_t)s->settled * STORE_BLOCK);

		/* Behind a wrong block hashes may be in doubt: the second is looked at again. */
		if (settle_block(s, good & 1) && n == 2)
			settle_block(s, good & 2);
	}
	segment_store_later(s);
}

static bool segment_is_spent(const struct segment *s)
{
	return s->over && s->stored == s->n;
}

void flight_settle(struct flight *f)
{
	for (struct segment *s = f->segments; s; s = s->next)
		segment_settle(s);
}

void flight_deliver_held(struct flight *f, uint64_t mask)
{
	for (struct segment *s = f->segments; s && mask; s = s->next) {
		uint64_t here =
			mask & f->held & blocks_mask(s->first + s->stored, s->settled - s->stored);

		for (mask &= ~here; here; here &= here - 1) {
			uint32_t b = (uint32_t)__builtin_ctzll(here);

			flight_deliver(f, b, s->buf + (uint64_t)(b - s->first) * STORE_BLOCK, true);
		}
	}
}

bool segment_store_next(struct fill_thread *t)
{
	struct segment *s = TAILQ_FIRST(&t->stores);
	struct flight *f;
	bool entered;

	if (!s)
		return false;
	f = s->flight;
	entered = flight_enter(f->source, f->extent);
	segment_store(s);
	if (segment_is_spent(s)) {
		segment_free(s);
		flight_advance(f);
	}
	crash_leave(entered);
	return true;
}

void flight_abandon(struct flight *f, uint64_t mask)
{
	for (struct segment *s = f->segments, *next; s; s = next) {
		uint64_t open = blocks_mask(s->first + s->settled, s->n - s->settled);

		next = s->next;
		if (!(open & mask))
			continue;
		if (!s->over) {
			origin_read_cancel(f->thread->client, &s->read);
			continue;
		}
		f->busy &= ~open;
		flight_fail(f, open, -EIO, "the tree that covers these blocks can't be read");
		segment_store(s);
		segment_free(s);
	}
}

static void segment_progress(struct origin_read *r, uint32_t got)
{
	struct segment *s = (struct segment *)((char *)r - offsetof(struct segment, read));
	bool entered = flight_enter(s->flight->source, s->flight->extent);

	s->have = got == r->len ? s->n : got / STORE_BLOCK;
	segment_settle(s);
	crash_leave(entered);
}

static void segment_fail(struct segment *s, int rc)
{
	struct flight *f = s->flight;
	char what[512], why[1400];
	uint64_t mask;

	segment_settle(s); /* what has arrived whole */
	mask = blocks_mask(s->first + s->settled, s->n - s->settled);
	f->source->ops->describe(f->source, what, sizeof(what));
	snprintf(why, sizeof(why), "%s: %s", what, s->read.err.text);
	f->busy &= ~mask;
	if (rc != -ECANCELED)
		log_warn("fill", "fill failed", "%s", why);
	flight_fail(f, mask, rc, why);
	segment_store(s);
	segment_free(s);
}

static void segment_end(struct segment *s, int rc)
{
	struct origin_read *r = &s->read;
	struct flight *f = s->flight;
	struct fill_source *src = f->source;

	if (rc == -ESTALE && !s->without_etag && src->ops->may_change(src)) {
		s->without_etag = true;
		r->etag = "";
		origin_read_submit(f->thread->client, r);
		return;
	}
	s->over = true;
	if (rc) {
		segment_fail(s, rc);
	} else {
		s->have = s->n;
		segment_settle(s);
		if (s->without_etag && s->settled == s->n && !s->wrong)
			src->ops->blob_is_now(src, r->name, r->got_etag);
		if (segment_is_spent(s))
			segment_free(s);
	}
	flight_advance(f);
}

static void segment_done(struct origin_read *r, int rc)
{
	struct segment *s = (struct segment *)((char *)r - offsetof(struct segment, read));
	bool entered = flight_enter(s->flight->source, s->flight->extent);

	segment_end(s, rc);
	crash_leave(entered);
}

/* How many blocks from @b on one request can bring, and from where. */
static uint32_t piece_run(struct flight *f, uint64_t mask, uint32_t b, struct fill_piece *piece,
			  uint32_t *len)
{
	uint64_t off = (f->extent * STORE_EXTENT_BLOCKS + b) * STORE_BLOCK, rest = ~(mask >> b);
	uint32_t n = rest ? (uint32_t)__builtin_ctzll(rest) : STORE_EXTENT_BLOCKS;

	f->source->ops->piece(f->source, off, piece);
	if (n > f->blocks - b)
		n = f->blocks - b;
	if (piece->len >= (uint64_t)n * STORE_BLOCK) {
		*len = n * STORE_BLOCK;
		return n;
	}
	/* Only the end of the image cuts a block; the rest of that block is zeros. */
	*len = (uint32_t)piece->len;
	return (uint32_t)((piece->len + STORE_BLOCK - 1) / STORE_BLOCK);
}

static bool segment_start(struct flight *f, uint32_t b, uint32_t n, uint32_t len,
			  const struct fill_piece *piece)
{
	struct fill_thread *t = f->thread;
	struct segment *s = calloc(1, sizeof(*s));
	uint64_t bytes = (uint64_t)n * STORE_BLOCK;
	enum drr_class class = f->demand & blocks_mask(b, n) ? DRR_DEMAND : DRR_PREFETCH;

	if (s)
		s->buf = fill_memory_take(t, bytes, f->source->object->id.kind == OBJECT_TREE);
	if (!s || !s->buf) {
		free(s);
		return false;
	}
	t->begun++;
	f->lane->memory += bytes;
	share_charge(f->lane->share, len);
	s->flight = f;
	s->first = b;
	s->n = n;
	memset(s->buf + len, 0, bytes - len);
	s->read = (struct origin_read){.origin = piece->origin,
				       .name = piece->name,
				       .etag = piece->etag,
				       .off = piece->blob_off,
				       .len = len,
				       .dst = s->buf,
				       .flow = &f->lane->ask[class],
				       .window = &f->lane->window,
				       .deadline_ns = clock_now_ns() +
						      t->fill->cfg.deadline_ms * NSEC_PER_MSEC,
				       .progress = segment_progress,
				       .done = segment_done};
	s->next = f->segments;
	f->segments = s;
	f->busy |= blocks_mask(b, n);
	origin_read_submit(t->client, &s->read);
	return true;
}

/* Start requests for runs of @mask. False: one has to wait, and stands in line. */
static bool fetch_runs(struct flight *f, uint64_t mask)
{
	while (mask) {
		uint32_t b = (uint32_t)__builtin_ctzll(mask), len, n;
		struct fill_piece piece;
		uint64_t bytes;

		n = piece_run(f, mask, b, &piece, &len);
		bytes = (uint64_t)n * STORE_BLOCK;
		if (!lane_admits(f, bytes) || !segment_start(f, b, n, len, &piece)) {
			lane_wait(f, bytes);
			return false;
		}
		mask &= ~blocks_mask(b, n);
	}
	return true;
}

void flight_fetch(struct flight *f, uint64_t mask)
{
	uint64_t demand = mask & f->demand; /* a local origin may answer, and clear it, at once */

	if (fetch_runs(f, demand))
		fetch_runs(f, mask & ~demand);
}

void flight_hurry(struct flight *f, uint64_t mask)
{
	struct drr_flow *demand = &f->lane->ask[DRR_DEMAND];

	for (struct segment *s = f->segments; s; s = s->next)
		if (!s->over && s->read.flow != demand && (blocks_mask(s->first, s->n) & mask))
			origin_read_move(f->thread->client, &s->read, demand);
}
