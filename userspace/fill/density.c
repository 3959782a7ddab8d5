/* SPDX-License-Identifier: Apache-2.0 */
#include "fill/density.h"

#include <string.h>

#include "base/clock.h"
#include "store/store.h"

#define CHANCE	     50		  /* extra bytes that chance may cost: one in so many */
#define SLOP	     STORE_BLOCK  /* reads this close go on from each other, and */
#define LARGE	     (512U << 10) /* reads this long, as far as they are long: a queue's */
#define WINDOW_NS    (8 * NSEC_PER_SEC)
#define IMAGE_SHARE  64		 /* 1/64 of the image was read before all of it is wanted */
#define IMAGE_LEAST  (16U << 20) /* bytes */
#define IMAGE_VISITS 64
#define PATIENCE     64 /* visits after which an extent must have proved right */
#define UNPROVEN     8	/* extents that may come at the first visit and be unproven */
#define TRUST_MAX    16
#define TRUST_TWO    4 /* from here on two visits are enough */
#define TRUST_ONE    8 /* and one */
#define FAILED	     4 /* what a wrong one costs */

/* How many of the last visits must fall into one extent. Were they thrown at random, the chance
 * that k of them share an extent is about C(visits, k) / extents^(k - 1). */
static uint32_t visits_needed(uint64_t extents)
{
	double chance = DENSITY_VISITS;
	uint32_t k = 1;

	while (k < DENSITY_VISITS / 2 &&
	       (k < 3 || chance * STORE_EXTENT_BLOCKS * CHANCE > DENSITY_VISITS)) {
		chance *= (double)(DENSITY_VISITS - k) / (k + 1) / (double)extents;
		k++;
	}
	return k;
}

void density_init(struct density *d, uint64_t length)
{
	memset(d, 0, sizeof(*d));
	d->blocks = (length + STORE_BLOCK - 1) / STORE_BLOCK;
	d->extents = (length + STORE_EXTENT - 1) / STORE_EXTENT;
	d->need = visits_needed(d->extents);
}

void density_restart(struct density *d)
{
	d->whole = false;
	d->since_ns = d->touched = d->scattered = 0;
}

static uint64_t mask_of(uint64_t extent, uint64_t off, uint64_t end)
{
	uint64_t from = extent * STORE_EXTENT, to = from + STORE_EXTENT;
	uint32_t first = off > from ? (uint32_t)((off - from) / STORE_BLOCK) : 0;
	uint32_t last =
		end < to ? (uint32_t)((end - 1 - from) / STORE_BLOCK) : STORE_EXTENT_BLOCKS - 1;

	return blocks_mask(first, last - first + 1);
}

bool density_is_news(const struct density *d, uint64_t off, uint32_t len)
{
	uint64_t extent = off / STORE_EXTENT;
	const struct density_slot *s = &d->slots[extent % DENSITY_SLOTS];

	if (atomic_load_explicit(&s->extent, memory_order_relaxed) != extent + 1)
		return false;
	return mask_of(extent, off, off + len) &
	       ~atomic_load_explicit(&s->touched, memory_order_relaxed);
}

/* The extent asked for was not read after all. */
static void slot_fails(struct density *d, struct density_slot *s)
{
	if (!s->asked || s->proven)
		return;
	s->asked = 0;
	d->unproven--;
	d->trust = d->trust > FAILED ? d->trust - FAILED : 0;
}

static struct density_slot *slot_of(struct density *d, uint64_t extent)
{
	struct density_slot *s = &d->slots[extent % DENSITY_SLOTS];

	if (s->extent == extent + 1)
		return s;
	slot_fails(d, s);
	s->touched = 0;
	s->asked = 0;
	s->proven = false;
	atomic_store(&s->extent, extent + 1);
	return s;
}

static void slot_touch(struct density *d, uint64_t extent, uint64_t mask)
{
	struct density_slot *s = slot_of(d, extent);
	uint64_t touched = s->touched | mask;

	d->touched += (uint64_t)__builtin_popcountll(mask & ~s->touched);
	s->touched = touched;
	if (!s->asked || s->proven || __builtin_popcountll(touched) < STORE_EXTENT_BLOCKS / 2)
		return;
	s->proven = true;
	d->unproven--;
	if (d->trust < TRUST_MAX)
		d->trust++;
}

static void touch(struct density *d, uint64_t now_ns, uint64_t off, uint64_t end)
{
	if (!d->since_ns)
		d->since_ns = now_ns;
	if (now_ns - d->since_ns > WINDOW_NS) {
		d->since_ns = now_ns - WINDOW_NS / 2;
		d->touched /= 2;
		d->scattered /= 2;
	}
	for (uint64_t e = off / STORE_EXTENT; e * STORE_EXTENT < end; e++)
		slot_touch(d, e, mask_of(e, off, end));
}

/* Does the read go on from a recent one? */
static bool joins(struct density *d, uint64_t off, uint64_t end)
{
	uint64_t slop = end - off >= LARGE ? end - off : SLOP;

	for (int i = 0; i < DENSITY_RECENT; i++) {
		struct density_range *r = &d->recent[i];

		if (!r->end || off > r->end + slop || end + slop < r->start)
			continue;
		r->start = off < r->start ? off : r->start;
		r->end = end > r->end ? end : r->end;
		return true;
	}
	d->recent[d->oldest] = (struct density_range){off, end};
	d->oldest = (d->oldest + 1) % DENSITY_RECENT;
	return false;
}

static void judge_old(struct density *d)
{
	for (int i = 0; i < DENSITY_SLOTS; i++)
		if (d->slots[i].asked + PATIENCE < d->visits)
			slot_fails(d, &d->slots[i]);
}

static void visit(struct density *d, uint64_t extent)
{
	d->visited[d->visits++ % DENSITY_VISITS] = extent + 1;
	d->scattered++;
	if (d->visits % DENSITY_VISITS == 0)
		judge_old(d);
}

static bool image_is_wanted(const struct density *d, uint64_t now_ns, uint64_t room)
{
	uint64_t least = d->blocks / IMAGE_SHARE, bytes = d->blocks * STORE_BLOCK;

	if (least < IMAGE_LEAST / STORE_BLOCK)
		least = IMAGE_LEAST / STORE_BLOCK;
	if (d->touched < least || d->scattered < IMAGE_VISITS || room / 2 < bytes)
		return false;
	return (double)d->blocks / (double)d->touched * (double)(now_ns - d->since_ns) <=
	       DENSITY_HORIZON * (double)NSEC_PER_SEC;
}

static uint32_t visits_enough(const struct density *d)
{
	if (d->unproven >= UNPROVEN || d->trust < TRUST_TWO)
		return d->need;
	return d->trust < TRUST_ONE ? 2 : 1;
}

static void ask(struct density *d, uint64_t extent)
{
	struct density_slot *s = slot_of(d, extent);

	if (!s->asked)
		d->unproven++;
	s->asked = d->visits;
	s->proven = false;
}

static bool is_proven(const struct density *d, uint64_t extent)
{
	const struct density_slot *s = &d->slots[extent % DENSITY_SLOTS];

	return s->extent == extent + 1 && s->proven;
}

/* The extent just visited, and where they are read in order the next. */
static bool extent_is_wanted(struct density *d, uint64_t extent, uint64_t *first, uint64_t *n)
{
	uint32_t hits = 0;

	for (int i = 0; i < DENSITY_VISITS; i++)
		hits += d->visited[i] == extent + 1;
	if (hits < visits_enough(d) || slot_of(d, extent)->asked)
		return false;
	ask(d, extent);
	*first = extent;
	*n = 1;
	if (extent && extent + 1 < d->extents && is_proven(d, extent - 1) &&
	    d->trust >= TRUST_ONE) {
		ask(d, extent + 1);
		*n = 2;
	}
	return true;
}

bool density_note(struct density *d, uint64_t now_ns, uint64_t off, uint32_t len, uint64_t room,
		  uint64_t *first, uint64_t *n)
{
	uint64_t extent = off / STORE_EXTENT;

	touch(d, now_ns, off, off + len);
	if (joins(d, off, off + len) || d->whole)
		return false;
	visit(d, extent);
	if (image_is_wanted(d, now_ns, room)) {
		d->whole = true;
		*first = extent;
		*n = d->extents;
		return true;
	}
	return extent_is_wanted(d, extent, first, n);
}
