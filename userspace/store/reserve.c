/* SPDX-License-Identifier: Apache-2.0 */
/* Space: what may be stored is reserved first, and extents are evicted to make room. */
#include <errno.h>

#include "store/store_impl.h"

#define EVICT_BATCH 32 /* extents hidden before one wait for readers */

/* Evict ahead of need by a 64th of the store, at most 64 MiB: one wait for readers frees much. */
static uint64_t evict_ahead(const struct store *s)
{
	uint64_t n = s->size / 64;

	return n < 64 * MIB ? n : 64 * MIB;
}

/* One batch under the lock: hide, wait for readers to look away, punch. Bytes freed. */
static uint64_t evict_batch(struct store *s, uint64_t want)
{
	struct {
		struct object *o;
		uint64_t extent, mask;
	} victim[EVICT_BATCH];
	uint64_t freed = 0, set, extent;
	int n = 0;

	while (n < EVICT_BATCH && freed < want &&
	       evict_next(&s->hand, s->sets, s->nobjects, &set, &extent)) {
		struct object *o = s->objects[set];
		uint64_t mask;
		int rc = object_hide(o, extent, &mask);

		if (rc == -EBUSY)
			continue;
		if (rc)
			break; /* the disk refuses even the bits: what is there stays */
		victim[n].o = o;
		victim[n].extent = extent;
		victim[n++].mask = mask;
		freed += (uint64_t)__builtin_popcountll(mask) * STORE_BLOCK;
	}
	if (!n)
		return 0;
	quiesce_wait(&s->quiesce);
	for (int i = 0; i < n; i++)
		object_punch_hidden(victim[i].o, victim[i].extent, victim[i].mask);
	atomic_fetch_sub(&s->counters.used, freed);
	atomic_fetch_add(&s->counters.evicted_extents, (uint64_t)n);
	return freed;
}

uint64_t store_evict_locked(struct store *s, uint64_t bytes)
{
	uint64_t freed = 0, n;

	while (freed < bytes && (n = evict_batch(s, bytes - freed)) > 0)
		freed += n;
	return freed;
}

uint64_t store_evict(struct store *s, uint64_t bytes)
{
	uint64_t freed;

	pthread_mutex_lock(&s->lock);
	freed = store_evict_locked(s, bytes);
	pthread_mutex_unlock(&s->lock);
	return freed;
}

int store_reserve(struct store *s, uint64_t bytes)
{
	for (int tries = 0; tries < 4; tries++) {
		uint64_t used = atomic_fetch_add(&s->counters.used, bytes) + bytes;

		if (used <= s->size)
			return 0;
		atomic_fetch_sub(&s->counters.used, bytes);
		if (!store_evict(s, used - s->size + evict_ahead(s)))
			return -ENOSPC;
	}
	return -ENOSPC;
}

void store_unreserve(struct store *s, uint64_t bytes)
{
	atomic_fetch_sub(&s->counters.used, bytes);
}
