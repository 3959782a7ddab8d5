/* SPDX-License-Identifier: Apache-2.0 */
#include "store/evict.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NEWCOMERS_DRAWN 16
#define READ_JUST_NOW	2	     /* ticks */
#define BEING_READ	(1ULL << 62) /* the reads of one pass over it are not done */

/* The best victim so far. */
struct pick {
	struct evict_set *set;
	uint64_t extent, worth;
};

static uint64_t name_of(const struct evict_set *set, uint64_t extent)
{
	return (uint64_t)set->number << 32 | extent;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 31) * 0x7fb5d329728ea185ULL;
	x = (x ^ x >> 27) * 0x81dadef4bc2dd44dULL;
	return x ^ x >> 33;
}

static uint64_t draw(struct evict *e)
{
	return mix(e->seed += 0x9e3779b97f4a7c15ULL);
}

void evict_init(struct evict *e)
{
	memset(e, 0, sizeof(*e));
	atomic_store(&e->now, 1);
	atomic_store(&e->tick_reads, EVICT_TICK_MIN);
	shadows_init(&e->shadows);
}

void evict_free(struct evict *e)
{
	for (uint64_t i = 0; i < e->nsets; i++)
		free(e->sets[i]->listed);
	free(e->sets);
}

int evict_add(struct evict *e, struct evict_set *set)
{
	if (e->nsets == e->cap) {
		uint64_t cap = e->cap ? e->cap * 2 : 64;
		void *sets = reallocarray(e->sets, cap, sizeof(struct evict_set *));

		if (!sets)
			return -ENOMEM;
		e->sets = sets;
		e->cap = cap;
	}
	set->number = (uint32_t)e->nsets;
	e->sets[e->nsets++] = set;
	return 0;
}

/* A tick, and what part of the extents is sampled, go by how many are stored. */
static void measure(struct evict *e)
{
	uint64_t tick = e->nlisted / EVICT_TICKS_HELD;
	uint32_t sample = 0, was = atomic_load(&e->sample);

	if (tick < EVICT_TICK_MIN)
		tick = EVICT_TICK_MIN;
	atomic_store_explicit(&e->tick_reads, (uint32_t)tick, memory_order_relaxed);
	while (e->nlisted >> sample > SHADOW_ROOM)
		sample++;
	if (sample < was && e->nlisted >> sample > SHADOW_ROOM / 2 + SHADOW_ROOM / 4)
		sample = was; /* not to and fro */
	atomic_store_explicit(&e->sample, sample, memory_order_relaxed);
	shadows_resize(&e->shadows, (uint32_t)(e->nlisted >> sample), sample != was);
}

/* The word's upper part changes under the lock only, but for what readers do to it meanwhile. */
static void place_move(struct evict_set *set, uint64_t extent, uint64_t place)
{
	uint64_t use = atomic_load(&set->use[extent]);

	while (!atomic_compare_exchange_weak(&set->use[extent], &use,
					     (use & (USE_PLACE - 1)) | place * USE_PLACE))
		;
}

/* @place 0: it is not stored any more. */
static void place_set(struct evict *e, struct evict_set *set, uint64_t extent, uint64_t place)
{
	uint64_t use = atomic_load(&set->use[extent]), want;
	uint32_t now = atomic_load(&e->now);

	do {
		want = place && use_age(use, now) > READ_JUST_NOW ? use_brought(use, now)
								  : use & (USE_AGAIN - 1);
	} while (!atomic_compare_exchange_weak(&set->use[extent], &use, want | place * USE_PLACE));
}

void evict_stored(struct evict *e, struct evict_set *set, uint64_t extent)
{
	if (use_place(atomic_load(&set->use[extent])) || set->nlisted == USE_PLACE_MAX)
		return;
	if (set->nlisted == set->cap) {
		uint64_t cap = set->cap ? set->cap * 2 : 64;
		void *listed = reallocarray(set->listed, cap, sizeof(*set->listed));

		if (!listed)
			return; /* the next block of the extent tries again */
		set->listed = listed;
		set->cap = cap;
	}
	set->listed[set->nlisted++] = (uint32_t)extent;
	place_set(e, set, extent, set->nlisted);
	e->newcomer[e->nnewcomers++ % EVICT_NEWCOMERS] = name_of(set, extent);
	e->nlisted++;
	measure(e);
}

static void take_out(struct evict *e, struct evict_set *set, uint64_t extent)
{
	uint64_t place = use_place(atomic_load(&set->use[extent]));
	uint64_t last = set->listed[--set->nlisted];

	set->listed[place - 1] = (uint32_t)last;
	place_move(set, last, place);
	place_set(e, set, extent, 0);
	e->nlisted--;
	measure(e);
}

static bool is_sampled(uint64_t name, uint32_t sample)
{
	return !(mix(name) & ((1ULL << sample) - 1));
}

void evict_note(struct evict *e, struct evict_set *set, uint64_t extent, bool hit)
{
	uint32_t now = atomic_load_explicit(&e->now, memory_order_relaxed), tick, sample;
	uint64_t use = atomic_load_explicit(&set->use[extent], memory_order_relaxed);
	uint64_t name = name_of(set, extent);

	/* Whoever was faster said the same. */
	if (!atomic_compare_exchange_strong_explicit(&set->use[extent], &use,
						     use_read(use, now, hit), memory_order_relaxed,
						     memory_order_relaxed))
		return;
	sample = atomic_load_explicit(&e->sample, memory_order_relaxed);
	if (is_sampled(name, sample)) {
		uint64_t at = atomic_fetch_add_explicit(&e->head, 1, memory_order_relaxed);

		atomic_store_explicit(&e->event[at % EVICT_EVENTS], name, memory_order_relaxed);
	}
	tick = atomic_load_explicit(&e->tick_reads, memory_order_relaxed);
	if (atomic_fetch_add_explicit(&e->noted, 1, memory_order_relaxed) + 1 >= tick) {
		atomic_store_explicit(&e->noted, 0, memory_order_relaxed);
		atomic_fetch_add_explicit(&e->now, 1, memory_order_relaxed);
	}
}

/* Let the shadows see what was read since. What the ring lost they do not miss. */
static void catch_up(struct evict *e)
{
	uint64_t head = atomic_load(&e->head);
	uint32_t now = atomic_load(&e->now);

	if (head - e->tail > EVICT_EVENTS)
		e->tail = head - EVICT_EVENTS;
	for (; e->tail < head; e->tail++) {
		uint64_t name = atomic_load(&e->event[e->tail % EVICT_EVENTS]);
		uint64_t set = name >> 32, extent = (uint32_t)name;

		if (is_sampled(name, e->sample) && set < e->nsets && extent < e->sets[set]->extents)
			shadows_read(&e->shadows, name, atomic_load(&e->sets[set]->use[extent]),
				     now);
	}
}

/* Is this one worth less than what was found so far? */
static void consider(struct evict *e, struct pick *pick, struct evict_set *set, uint64_t extent)
{
	uint32_t now = atomic_load_explicit(&e->now, memory_order_relaxed);
	uint64_t worth, use = atomic_load_explicit(&set->use[extent], memory_order_relaxed);

	if (!atomic_load_explicit(&set->stored[extent], memory_order_relaxed) ||
	    atomic_load_explicit(&set->pins[extent], memory_order_relaxed))
		return;
	worth = use_worth(e->shadows.chosen, use, now);
	if (!use_age(use, now))
		worth |= BEING_READ;
	if (!pick->set || worth < pick->worth)
		*pick = (struct pick){set, extent, worth};
}

static bool may_go(const struct evict_set *set, const struct evict_set *only)
{
	return (!only || set == only) && !atomic_load_explicit(set->kept, memory_order_relaxed);
}

static uint64_t count(const struct evict *e, const struct evict_set *only)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < e->nsets; i++)
		if (may_go(e->sets[i], only))
			n += e->sets[i]->nlisted;
	return n;
}

/* Of all that may go, in a row over the sets: the one at @from and each @step further. */
static void consider_each(struct evict *e, struct pick *pick, struct evict_set *only, uint64_t from,
			  uint64_t step)
{
	for (uint64_t i = 0; i < e->nsets; i++) {
		struct evict_set *set = e->sets[i];

		if (!may_go(set, only))
			continue;
		for (; from < set->nlisted; from += step)
			consider(e, pick, set, set->listed[from]);
		from -= set->nlisted;
	}
}

static void consider_newcomers(struct evict *e, struct pick *pick, struct evict_set *only)
{
	for (int i = 0; i < NEWCOMERS_DRAWN; i++) {
		uint64_t name = e->newcomer[draw(e) % EVICT_NEWCOMERS];
		struct evict_set *set = e->sets[name >> 32];

		if (may_go(set, only) && use_place(atomic_load(&set->use[(uint32_t)name])))
			consider(e, pick, set, (uint32_t)name);
	}
}

/* Of a few drawn ones the worst; when all those are pinned, of all. */
static bool pick_victim(struct evict *e, struct evict_set *only, struct pick *pick)
{
	uint64_t n = count(e, only), step = n / EVICT_DRAWN;

	if (!n)
		return false;
	consider_each(e, pick, only, step ? draw(e) % step : 0, step ? step : 1);
	consider_newcomers(e, pick, only);
	if (!pick->set && step)
		consider_each(e, pick, only, 0, 1);
	return pick->set;
}

bool evict_next(struct evict *e, struct evict_set *only, struct evict_set **set, uint64_t *extent)
{
	struct pick pick = {0};

	catch_up(e);
	if (!pick_victim(e, only, &pick))
		return false;
	take_out(e, pick.set, pick.extent);
	*set = pick.set;
	*extent = pick.extent;
	return true;
}
