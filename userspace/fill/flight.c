/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a flight: joined by readers, located on disk, fetched, delivered, gone.
 *
 * A wanted block is in one of these places, and flight_advance() moves it along:
 *   unlocated   not yet looked for; a suspect one stays here until its hash is known
 *   (neither)   to be fetched, made, or known to be zeros
 *   busy        in a segment
 *   done        delivered to everyone who waited for it; held until the store has it
 */
#include "fill/flight.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

static const uint8_t zeros[STORE_BLOCK];

static struct flight **bucket_of(struct fill_thread *t, const struct fill_source *src,
				 uint64_t extent)
{
	uint64_t h = ((uintptr_t)src / 64 + extent) * 0x9e3779b97f4a7c15ULL;

	return &t->buckets[h >> 54];
}

static struct flight *flight_find(struct fill_thread *t, const struct fill_source *src,
				  uint64_t extent)
{
	struct flight *f = *bucket_of(t, src, extent);

	while (f && (f->source != src || f->extent != extent))
		f = f->hash_next;
	return f;
}

static struct flight *flight_new(struct fill_thread *t, struct fill_source *src, uint64_t extent,
				 struct share *share)
{
	struct flight *f = calloc(1, sizeof(*f)), **bucket = bucket_of(t, src, extent);
	uint64_t blocks = (src->object->id.length + STORE_BLOCK - 1) / STORE_BLOCK;

	if (f)
		f->lane = lane_get(t, share ? share : t->fill->nobodys);
	if (!f || !f->lane) {
		free(f);
		return NULL;
	}
	blocks -= extent * STORE_EXTENT_BLOCKS;
	f->thread = t;
	f->source = src;
	f->extent = extent;
	f->blocks = blocks < STORE_EXTENT_BLOCKS ? (uint32_t)blocks : STORE_EXTENT_BLOCKS;
	f->hash_next = *bucket;
	*bucket = f;
	t->nflights++;
	src->ops->ref(src);
	object_pin(src->object, extent);
	atomic_fetch_add(&t->fill->counters.flights, 1);
	return f;
}

static void flight_free(struct flight *f)
{
	struct flight **at = bucket_of(f->thread, f->source, f->extent);

	while (*at != f)
		at = &(*at)->hash_next;
	*at = f->hash_next;
	f->thread->nflights--;
	object_unpin(f->source->object, f->extent);
	f->source->ops->unref(f->source);
	lane_put(f->thread, f->lane);
	free(f);
}

static void join(struct fill_thread *t, struct fill_read *r)
{
	struct flight *f = flight_find(t, r->source, r->extent);
	bool stopping = atomic_load(&t->fill->cancelled);
	uint32_t first = r->off / STORE_BLOCK, last = (r->off + r->len - 1) / STORE_BLOCK;
	uint64_t held;

	if (f)
		atomic_fetch_add(&t->fill->counters.joined, 1);
	else if (!stopping)
		f = flight_new(t, r->source, r->extent, r->share);
	if (!f || stopping) {
		r->done(r, stopping ? -ESHUTDOWN : -ENOMEM,
			stopping ? "cairnd is stopping" : "out of memory");
		return;
	}
	r->need = blocks_mask(first, last - first + 1);
	r->next = f->readers;
	f->readers = r;
	f->want |= r->need;
	if (r->class == FILL_DEMAND) {
		f->demand |= r->need;
		flight_hurry(f, r->need);
	}
	/* What was already delivered to others is on its way into the store, or there by now. */
	held = r->need & f->held;
	f->done &= ~r->need;
	f->unlocated |= r->need & ~f->busy & ~held;
	flight_deliver_held(f, held);
	flight_settle(f); /* blocks that waited to be verified with their next */
	flight_advance(f);
}

void flight_join(struct fill_thread *t, struct fill_read *r)
{
	struct fill_source *src = r->source;
	bool entered;

	if (crash_is_refused(&src->subject, CRASH_FILL, r->extent * STORE_EXTENT, STORE_EXTENT)) {
		r->done(r, -EIO, crash_refused_text);
		return;
	}
	entered = flight_enter(src, r->extent);
	join(t, r);
	crash_leave(entered);
}

static void copy_to(struct fill_read *r, uint32_t b, const uint8_t *data, bool from_origin)
{
	uint32_t block_off = b * STORE_BLOCK, from = r->off > block_off ? r->off - block_off : 0;
	uint32_t end = r->off + r->len - block_off;

	if (end > STORE_BLOCK)
		end = STORE_BLOCK;
	if (r->dst)
		memcpy(r->dst + (block_off + from - r->off), data + from, end - from);
	if (from_origin)
		r->origin_bytes += end - from;
}

void flight_deliver(struct flight *f, uint32_t b, const uint8_t *data, bool from_origin)
{
	uint64_t bit = 1ULL << b;

	f->done |= bit;
	f->demand &= ~bit;
	for (struct fill_read **at = &f->readers, *r; (r = *at);) {
		if (r->need & bit) {
			copy_to(r, b, data, from_origin);
			r->need &= ~bit;
		}
		if (r->need) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		r->done(r, 0, NULL);
	}
}

void flight_fail(struct flight *f, uint64_t mask, int rc, const char *why)
{
	f->want &= ~mask;
	f->demand &= ~mask;
	f->unlocated &= ~mask;
	for (struct fill_read **at = &f->readers, *r; (r = *at);) {
		if (!(r->need & mask)) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		r->done(r, rc, why);
	}
}

/* Its own export's limit is no reason for a read to fail: what it waits for that is not counted. */
static bool is_held_back(const struct flight *f, struct fill_read *r, uint64_t now)
{
	if (!f->wait.flow || !share_rate(f->lane->share))
		return false;
	r->deadline_ns = now + f->thread->fill->cfg.deadline_ms * NSEC_PER_MSEC;
	return true;
}

void flight_expire(struct flight *f, uint64_t now)
{
	for (struct fill_read **at = &f->readers, *r; (r = *at);) {
		if (r->deadline_ns > now || is_held_back(f, r, now)) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		r->done(r, -ETIMEDOUT, "no source answered within the fill deadline");
	}
}

void flight_cancel(struct flight *f, uint64_t unused)
{
	(void)unused;
	flight_fail(f, ~0ULL, -ESHUTDOWN, "cairnd is stopping");
	for (struct segment *s = f->segments; s; s = s->next)
		if (!s->over)
			origin_read_cancel(f->thread->client, &s->read);
	lane_leave(f);
	if (!f->segments && !f->sum_reads)
		flight_free(f);
}

static bool someone_reads(const struct flight *f, uint64_t bit)
{
	for (const struct fill_read *r = f->readers; r; r = r->next)
		if ((r->need & bit) && r->dst)
			return true;
	return false;
}

/* A block that readers may already see: hand it to those who wait here. */
static void take_ready(struct flight *f, uint32_t b, uint8_t *buf)
{
	struct object *o = f->source->object;
	uint64_t bit = 1ULL << b;

	if (someone_reads(f, bit)) {
		int rc = object_read_block(o, f->extent * STORE_EXTENT_BLOCKS + b, buf);

		if (rc) { /* the file is not what it was: nothing of the extent is believed */
			log_warn("store", "store file can't be read; its extent is rechecked",
				 "object=%s extent=%llu why=\"%s\"", o->name,
				 (unsigned long long)f->extent, strerror(-rc));
			object_suspect(o, f->extent, ~0ULL);
			return;
		}
	}
	f->unlocated &= ~bit;
	flight_deliver(f, b, buf, false);
}

/* A block of an unclean stop: believed only if it matches. It stays unlocated until its
 * hash is known. */
static void take_suspect(struct flight *f, uint32_t b, uint8_t *buf, uint64_t *damaged)
{
	struct object *o = f->source->object;
	uint64_t bit = 1ULL << b, block = f->extent * STORE_EXTENT_BLOCKS + b;
	uint8_t own[SHA256_LEN], sum[SHA256_LEN];
	bool good = false;
	uint32_t was;

	if (!flight_knows_sum(f, b)) {
		flight_learn_sums(f, f->want);
		if (!flight_knows_sum(f, b))
			return;
	}
	was = crash_turn_to(CRASH_RECHECK);
	if (object_read_block(o, block, buf) == 0) {
		if (!(f->no_sum & bit)) {
			good = flight_block_matches(f, b, buf);
		} else if (object_read_sum(o, block, own) == 0) {
			sha256(buf, STORE_BLOCK, sum);
			good = memcmp(own, sum, SHA256_LEN) == 0;
		}
	}
	crash_turn_to(was);
	f->unlocated &= ~bit;
	if (good) {
		object_trust(o, f->extent, bit);
		flight_deliver(f, b, buf, false);
	} else {
		object_forget(o, f->extent, bit);
		*damaged |= bit;
	}
}

static void locate(struct flight *f)
{
	struct object *o = f->source->object;
	uint64_t todo = f->unlocated & f->want & ~f->busy, damaged = 0;
	static _Thread_local uint8_t buf[STORE_BLOCK];

	while (todo) {
		uint32_t b = (uint32_t)__builtin_ctzll(todo);
		uint64_t bit = 1ULL << b;

		todo &= ~bit;
		if (atomic_load(&o->ready[f->extent]) & bit)
			take_ready(f, b, buf);
		if (!(f->unlocated & bit))
			continue;
		if (!(atomic_load(&o->suspect[f->extent]) & bit))
			f->unlocated &= ~bit;
		else
			take_suspect(f, b, buf, &damaged);
	}
	if (damaged)
		log_warn("store", "stored blocks are damaged; they are fetched again",
			 "object=%s extent=%llu blocks=%d", o->name, (unsigned long long)f->extent,
			 __builtin_popcountll(damaged));
}

static void take_zero(struct flight *f, uint32_t b)
{
	object_publish_zero(f->source->object, f->extent, 1ULL << b);
	flight_deliver(f, b, zeros, false);
}

static void take_made(struct flight *f, uint32_t b)
{
	static _Thread_local uint8_t buf[STORE_BLOCK];
	char what[512];

	f->source->ops->make(f->source, f->extent * STORE_EXTENT_BLOCKS + b, buf);
	if (flight_block_matches(f, b, buf)) {
		object_publish(f->source->object, f->extent * STORE_EXTENT_BLOCKS + b, 1, buf,
			       &f->sums[b]);
		flight_deliver(f, b, buf, false);
		return;
	}
	atomic_fetch_add(&f->thread->fill->counters.verify_failures, 1);
	f->source->ops->describe(f->source, what, sizeof(what));
	flight_fail(f, 1ULL << b, -EIO, what);
}

/* The hash of this block is in doubt: learn it anew. The block, if it is known at once. */
static uint64_t ask_again(struct flight *f, uint32_t b)
{
	uint64_t bit = 1ULL << b;

	f->retried |= bit;
	flight_learn_sums(f, f->want & ~f->done);
	return flight_knows_sum(f, b) ? bit : 0;
}

/* Blocks that need no origin are taken here; the rest is returned, to be fetched. */
static uint64_t take_known(struct flight *f, uint64_t mask)
{
	uint64_t fetch = 0;

	while (mask) {
		uint32_t b = (uint32_t)__builtin_ctzll(mask);
		uint64_t bit = 1ULL << b, off = (f->extent * STORE_EXTENT_BLOCKS + b) * STORE_BLOCK;
		bool known = flight_knows_sum(f, b), none = f->no_sum & bit;
		struct fill_piece piece;

		mask &= ~bit;
		f->source->ops->piece(f->source, off, &piece);
		if (known && !none && flight_block_is_zeros(f, b))
			take_zero(f, b);
		else if (piece.kind == PIECE_ORIGIN)
			fetch |= bit;
		else if (!known)
			continue; /* a hole is believed when its hash says so too */
		else if (piece.kind == PIECE_MADE)
			take_made(f, b);
		else if (none)
			take_zero(f, b);
		else if (!(f->retried & bit) && flight_doubt_sum(f, b))
			mask |= ask_again(f, b);
		else
			flight_fail(f, bit, -EIO,
				    "the manifest says a hole where the tree says data: the image "
				    "is damaged "
				    "(run `cairn image verify`)");
	}
	return fetch;
}

void flight_advance(struct flight *f)
{
	uint64_t mask;

	locate(f);
	mask = f->want & ~f->done & ~f->busy & ~f->unlocated;
	if (mask) {
		flight_learn_sums(f, f->want & ~f->done);
		mask = take_known(f, mask);
	}
	if (mask)
		flight_fetch(f, mask);
	if (f->wait.flow || f->segments || f->sum_reads || (f->want & ~f->done))
		return;
	flight_free(f);
}
