/* SPDX-License-Identifier: Apache-2.0 */
/* Space: what may be stored is reserved first, and extents are evicted to make room. */
#include <errno.h>
#include <time.h>

#include "store/store_impl.h"

/* Extents hidden before one wait for readers; flights that begin wait, too. */
#define EVICT_BATCH 8

/* Evict ahead of need by a 64th of the space, at most 64 MiB: one wait for readers frees much. */
static uint64_t evict_ahead(uint64_t size)
{
	uint64_t n = size / 64;

	return n < 64 * MIB ? n : 64 * MIB;
}

/* Hide the next victim, of @only or of all. False: there is none, or the disk refuses even the bits
 * (what is there stays). */
static bool hide_next(struct store *s, struct evict_set *only, struct object **o, uint64_t *extent,
		      uint64_t *mask)
{
	struct evict_set *set;
	int rc = -EBUSY;
	bool any;

	while (rc == -EBUSY) { /* a reader was faster */
		pthread_mutex_lock(&s->evict_lock);
		any = evict_next(&s->evict, only, &set, extent);
		pthread_mutex_unlock(&s->evict_lock);
		if (!any)
			return false;
		*o = (struct object *)((char *)set - offsetof(struct object, set));
		rc = object_hide(*o, *extent, mask);
		if (rc)
			object_list(*o, *extent);
	}
	return !rc;
}

/* One batch under the lock: hide, wait for readers to look away, punch. Bytes freed. */
static uint64_t evict_batch(struct store *s, struct evict_set *only, uint64_t want)
{
	struct {
		struct object *o;
		uint64_t extent, mask;
	} v[EVICT_BATCH];
	uint64_t freed = 0;
	int n = 0;

	while (n < EVICT_BATCH && freed < want &&
	       hide_next(s, only, &v[n].o, &v[n].extent, &v[n].mask))
		freed += (uint64_t)__builtin_popcountll(v[n++].mask) * STORE_BLOCK;
	if (!n)
		return 0;
	quiesce_wait(&s->quiesce);
	for (int i = 0; i < n; i++)
		object_punch_hidden(v[i].o, v[i].extent, v[i].mask);
	atomic_fetch_sub(&s->counters.used, freed);
	atomic_fetch_add(&s->counters.evicted_extents, (uint64_t)n);
	return freed;
}

static uint64_t evict(struct store *s, struct evict_set *only, uint64_t bytes)
{
	const struct timespec nap = {.tv_nsec = 50000}; /* the lock is not fair */
	uint64_t freed = 0, n;

	do {
		if (freed)
			nanosleep(&nap, NULL);
		pthread_mutex_lock(&s->lock);
		n = evict_batch(s, only, bytes - freed);
		pthread_mutex_unlock(&s->lock);
		freed += n;
	} while (n && freed < bytes);
	return freed;
}

uint64_t store_evict(struct store *s, uint64_t bytes)
{
	return evict(s, NULL, bytes);
}

static int store_reserve(struct store *s, uint64_t bytes)
{
	for (int tries = 0; tries < 4; tries++) {
		uint64_t used = atomic_fetch_add(&s->counters.used, bytes) + bytes;

		if (used <= s->size)
			return 0;
		atomic_fetch_sub(&s->counters.used, bytes);
		if (!store_evict(s, used - s->size + evict_ahead(s->size)))
			return -ENOSPC;
	}
	return -ENOSPC;
}

void store_unreserve(struct store *s, uint64_t bytes)
{
	atomic_fetch_sub(&s->counters.used, bytes);
}

/* Bytes that the object has, or is about to have, beyond its quota. */
static uint64_t over_quota(const struct object *o, uint64_t quota)
{
	uint64_t has = atomic_load(&o->stored_blocks) * STORE_BLOCK + atomic_load(&o->writing);

	return quota && has > quota ? has - quota : 0;
}

/* An object over its quota evicts its own extents. */
static int fit_quota(struct object *o)
{
	for (;;) {
		uint64_t quota = atomic_load(&o->quota), over = over_quota(o, quota);

		if (!over)
			return 0;
		over += evict_ahead(quota);
		/* much of it goes bit by bit: others want the store's lock, too */
		if (!evict(o->store, &o->set, over < 64 * MIB ? over : 64 * MIB))
			return -ENOSPC;
	}
}

int object_reserve(struct object *o, uint64_t bytes)
{
	int rc;

	atomic_fetch_add(&o->writing, bytes);
	rc = fit_quota(o);
	if (!rc)
		rc = store_reserve(o->store, bytes);
	if (rc)
		atomic_fetch_sub(&o->writing, bytes);
	return rc;
}

void object_reserved(struct object *o, uint64_t bytes, uint64_t back)
{
	atomic_fetch_sub(&o->writing, bytes);
	store_unreserve(o->store, back);
}

void object_set_quota(struct object *o, uint64_t bytes)
{
	atomic_store(&o->quota, bytes);
	fit_quota(o);
}
