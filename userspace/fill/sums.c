/* SPDX-License-Identifier: Apache-2.0 */
/* Learning the hashes of a flight's blocks: known outright, read from the tree where it is in the
 * store, or asked of the tree's own flights. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fill/flight.h"

bool flight_knows_sum(const struct flight *f, uint32_t b)
{
	return (f->sums_have | f->no_sum) >> b & 1;
}

static const uint8_t *zero_sum(void)
{
	static _Thread_local uint8_t sum[SHA256_LEN];
	static _Thread_local bool known;
	static const uint8_t zeros[STORE_BLOCK];

	if (!known)
		sha256(zeros, sizeof(zeros), sum);
	known = true;
	return sum;
}

static void hash_block(const uint8_t *data, uint8_t out[SHA256_LEN])
{
	if (bytes_are_zero(data, 64) && bytes_are_zero(data, STORE_BLOCK))
		memcpy(out, zero_sum(), SHA256_LEN);
	else
		sha256(data, STORE_BLOCK, out);
}

bool flight_block_matches(struct flight *f, uint32_t b, const uint8_t *data)
{
	uint8_t sum[SHA256_LEN];

	hash_block(data, sum);
	return memcmp(sum, f->sums[b], SHA256_LEN) == 0;
}

bool flight_block_is_zeros(struct flight *f, uint32_t b)
{
	return memcmp(zero_sum(), f->sums[b], SHA256_LEN) == 0;
}

/* Blocks no tree vouches for get a hash of their own. */
static bool sum_agrees(struct flight *f, uint32_t b, const uint8_t sum[SHA256_LEN])
{
	if (!(f->no_sum >> b & 1))
		return memcmp(sum, f->sums[b], SHA256_LEN) == 0;
	memcpy(f->sums[b], sum, SHA256_LEN);
	return true;
}

uint32_t flight_verify(struct flight *f, uint32_t b, uint32_t n, const uint8_t *data)
{
	const uint8_t *second = data + STORE_BLOCK;
	uint8_t sums[2][SHA256_LEN];

	if (n == 2 && !bytes_are_zero(data, 64) && !bytes_are_zero(second, 64)) {
		sha256_pair(data, second, STORE_BLOCK, sums[0], sums[1]);
	} else {
		hash_block(data, sums[0]);
		if (n == 2)
			hash_block(second, sums[1]);
	}
	return (uint32_t)sum_agrees(f, b, sums[0]) |
	       (n == 2 ? (uint32_t)sum_agrees(f, b + 1, sums[1]) << 1 : 0);
}

static void sums_arrived(struct loop_post *p)
{
	struct sum_read *s = (struct sum_read *)((char *)p - offsetof(struct sum_read, back));
	struct flight *f = s->flight;
	uint64_t mask = blocks_mask(s->first, s->n);
	bool entered = flight_enter(f->source, f->extent);

	for (struct sum_read **at = &f->sum_reads; *at; at = &(*at)->next) {
		if (*at == s) {
			*at = s->next;
			break;
		}
	}
	f->sums_busy &= ~mask;
	if (s->rc) {
		flight_fail(f, mask, s->rc, s->why);
		flight_abandon(f, mask);
	} else {
		f->sums_have |= mask;
	}
	free(s);
	flight_settle(f);
	flight_advance(f);
	crash_leave(entered);
}

/* On the tree flight's thread: carry the answer back. */
static void sum_read_done(struct fill_read *r, int rc, const char *why)
{
	struct sum_read *s = (struct sum_read *)((char *)r - offsetof(struct sum_read, read));

	s->rc = rc;
	snprintf(s->why, sizeof(s->why), "tree: %s", why ? why : "");
	s->back.fn = sums_arrived;
	loop_post(s->flight->thread->loop, &s->back);
}

/* The tree block is in the store: read the hashes here and now. */
static bool read_resident(struct flight *f, struct fill_source *tree, uint64_t at, uint32_t first,
			  uint32_t n)
{
	struct object *o = tree->object;
	uint32_t len = n * SHA256_LEN;
	bool good;

	object_pin(o, at / STORE_EXTENT);
	good = object_resident(o, at, len) == len &&
	       pread_all(o->data_fd, f->sums[first], len, at) == 0;
	if (good)
		object_touch(o, at, len, true);
	object_unpin(o, at / STORE_EXTENT);
	if (good)
		f->sums_have |= blocks_mask(first, n);
	return good;
}

static void ask_tree(struct flight *f, struct fill_source *tree, uint64_t at, uint32_t first,
		     uint32_t n)
{
	struct sum_read *s;

	if (read_resident(f, tree, at, first, n))
		return;
	object_touch(tree->object, at, n * SHA256_LEN, false);
	s = calloc(1, sizeof(*s));
	if (!s) {
		flight_fail(f, blocks_mask(first, n), -ENOMEM, "out of memory");
		return;
	}
	s->flight = f;
	s->first = first;
	s->n = n;
	s->read = (struct fill_read){.source = tree,
				     .extent = at / STORE_EXTENT,
				     .off = (uint32_t)(at % STORE_EXTENT),
				     .len = n * SHA256_LEN,
				     .dst = f->sums[first],
				     .class = FILL_DEMAND,
				     .share = f->lane->share,
				     .done = sum_read_done};
	s->next = f->sum_reads;
	f->sum_reads = s;
	f->sums_busy |= blocks_mask(first, n);
	fill_submit(f->thread->fill, &s->read);
}

/* How many blocks from @b on have adjacent hashes in one tree block. */
static uint32_t sum_run(struct flight *f, uint64_t todo, uint32_t b, struct fill_source *from,
			uint64_t at)
{
	uint32_t n = 1;

	while (b + n < f->blocks && (todo >> (b + n) & 1) &&
	       (at + n * SHA256_LEN) % STORE_BLOCK != 0) {
		struct fill_source *next_from;
		uint8_t sum[SHA256_LEN];
		uint64_t next_at;

		if (f->source->ops->sum(f->source, f->extent * STORE_EXTENT_BLOCKS + b + n, sum,
					&next_from, &next_at) != SUM_AT ||
		    next_from != from || next_at != at + n * SHA256_LEN)
			break;
		n++;
	}
	return n;
}

void flight_learn_sums(struct flight *f, uint64_t mask)
{
	uint64_t todo = mask & ~f->sums_have & ~f->sums_busy & ~f->no_sum;

	while (todo) {
		uint32_t b = (uint32_t)__builtin_ctzll(todo), n = 1;
		struct fill_source *from;
		uint64_t at;

		switch (f->source->ops->sum(f->source, f->extent * STORE_EXTENT_BLOCKS + b,
					    f->sums[b], &from, &at)) {
		case SUM_NONE:
			f->no_sum |= 1ULL << b;
			break;
		case SUM_INLINE:
			f->sums_have |= 1ULL << b;
			break;
		case SUM_AT:
			n = sum_run(f, todo, b, from, at);
			ask_tree(f, from, at, b, n);
			break;
		}
		todo &= ~blocks_mask(b, n);
	}
}

bool flight_doubt_sum(struct flight *f, uint32_t b)
{
	struct fill_source *from;
	struct object *o;
	uint64_t at, extent, bit;
	bool stored;

	if (f->source->ops->sum(f->source, f->extent * STORE_EXTENT_BLOCKS + b, f->sums[b], &from,
				&at) != SUM_AT)
		return false;
	o = from->object;
	extent = at / STORE_EXTENT;
	bit = 1ULL << (at % STORE_EXTENT / STORE_BLOCK);
	object_pin(o, extent);
	stored = atomic_load(&o->stored[extent]) & bit;
	object_suspect(o, extent, bit);
	object_unpin(o, extent);
	if (stored)
		f->sums_have = 0;
	return stored;
}
