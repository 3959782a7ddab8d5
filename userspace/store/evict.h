/* SPDX-License-Identifier: Apache-2.0 */
/* Which extent goes when the store is full: pure, and it learns from what is read.
 *
 * Per extent there is one word: when it was last read, how often, how often since it is stored.
 * Time is counted in ticks, of which one passes when reads went to 1/64 as many extents as are
 * stored. A victim is the worst of some stored extents drawn at random, and of the latest
 * newcomers. What was brought ahead of need and not read for a while is worst; of the rest, one of
 * three experts says what is:
 *
 * - EVICT_RECENT: what was not read for longest. For working sets that move.
 * - EVICT_OFTEN: what was read least, over a memory that outlives eviction. For skewed use.
 * - EVICT_KEEP: newcomers, before what was read again since it came. For scans and epochs.
 *
 * Each of them runs a small cache of names beside it, on a sample of the extents
 * (store/evict_shadow.h); the one that would have hit most lately decides.
 *
 * Nothing here scans an object: each set lists its stored extents, 4 bytes an extent beside the
 * word's 8, in memory that is touched as extents are stored.
 *
 * Threads: evict_touch() any, wait-free. The rest under one lock of the caller.
 */
#ifndef STORE_EVICT_H
#define STORE_EVICT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/evict_shadow.h"
#include "store/evict_use.h"

#define EVICT_DRAWN	 64  /* stored extents looked at for a victim */
#define EVICT_NEWCOMERS	 256 /* remembered, of which some are looked at too */
#define EVICT_TICKS_HELD 64  /* ticks in which as many extents are read as are stored */
#define EVICT_TICK_MIN	 4   /* extents read in a tick at least */
#define EVICT_EVENTS	 4096

/* One object's extents as the policy sees them. Arrays of the first part are the object's. */
struct evict_set {
	uint64_t extents;
	const _Atomic uint64_t *stored; /* per extent: one bit a block that takes space */
	_Atomic uint64_t *use;		/* per extent: store/evict_use.h */
	const _Atomic uint32_t *pins;	/* per extent: > 0 = stays */
	const _Atomic uint32_t *kept;	/* the whole of it: > 0 = stays */
	/* the policy's */
	uint32_t number;
	uint32_t *listed; /* extents that are stored, in no order */
	uint64_t nlisted, cap;
};

struct evict {
	_Atomic uint32_t now;	     /* tick */
	_Atomic uint32_t noted;	     /* extents read in this tick */
	_Atomic uint32_t tick_reads; /* of which so many make a tick */
	_Atomic uint32_t sample;     /* which extents the shadows see: evict_is_sampled() */
	_Atomic uint64_t head;
	_Atomic uint64_t event[EVICT_EVENTS]; /* names of sampled extents that were read */
	uint64_t tail;
	struct evict_set **sets;
	uint64_t nsets, cap, nlisted, seed;
	uint64_t newcomer[EVICT_NEWCOMERS]; /* names */
	uint64_t nnewcomers;
	struct evict_shadows shadows;
};

void evict_init(struct evict *e);
void evict_free(struct evict *e); /* its lists too, not the sets */

/* Know a set from now on. -ENOMEM. */
int evict_add(struct evict *e, struct evict_set *set);

/* The extent takes space now, or still does after evict_next() gave it. */
void evict_stored(struct evict *e, struct evict_set *set, uint64_t extent);

/* The next victim, of @only or (NULL) of all sets; it is not given again until evict_stored().
 * False when everything is empty, pinned or kept. */
bool evict_next(struct evict *e, struct evict_set *only, struct evict_set **set, uint64_t *extent);

/* Of evict_touch(), once a tick and extent. */
void evict_note(struct evict *e, struct evict_set *set, uint64_t extent, bool hit);

/* A reader touched the extent, and found what it wants (@hit) or not. */
static inline void evict_touch(struct evict *e, struct evict_set *set, uint64_t extent, bool hit)
{
	uint64_t use = atomic_load_explicit(&set->use[extent], memory_order_relaxed);

	if (use_age(use, atomic_load_explicit(&e->now, memory_order_relaxed)))
		evict_note(e, set, extent, hit);
}

#endif
