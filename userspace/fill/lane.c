/* SPDX-License-Identifier: Apache-2.0 */
#include "fill/lane.h"

#include <stddef.h>
#include <stdlib.h>

#include "base/clock.h"
#include "fill/flight.h"

#define RESERVE 8 /* the part that who is alone leaves: 1/8 */

static struct lane **bucket_of(struct fill_thread *t, const struct share *share)
{
	return &t->lanes[((uintptr_t)share / 64 * 0x9e3779b97f4a7c15ULL) >> 58];
}

struct lane *lane_get(struct fill_thread *t, struct share *share)
{
	struct lane **bucket = bucket_of(t, share), *l = *bucket;

	while (l && l->share != share)
		l = l->hash_next;
	if (!l) {
		l = calloc(1, sizeof(*l));
		if (!l)
			return NULL;
		l->share = share_ref(share);
		for (int c = 0; c < DRR_CLASSES; c++) {
			drr_flow_init(&l->wait[c], c);
			drr_flow_init(&l->ask[c], c);
		}
		l->hash_next = *bucket;
		*bucket = l;
		t->nlanes++;
	}
	l->flights++;
	return l;
}

void lane_put(struct fill_thread *t, struct lane *l)
{
	struct lane **at = bucket_of(t, l->share);

	if (--l->flights)
		return;
	while (*at != l)
		at = &(*at)->hash_next;
	*at = l->hash_next;
	t->nlanes--;
	share_unref(l->share);
	free(l);
}

static bool lane_may(struct fill_thread *t, const struct lane *l, uint64_t bytes)
{
	uint64_t most =
		t->nlanes > 1 ? t->memory_max / t->nlanes : t->memory_max - t->memory_max / RESERVE;
	uint64_t ns;

	if (most < STORE_EXTENT)
		most = STORE_EXTENT;
	if (l->memory && l->memory + bytes > most)
		return false;
	ns = share_wait_ns(l->share);
	if (ns && ns < t->limit_ns)
		t->limit_ns = ns;
	return !ns;
}

static struct flight *flight_of(const struct drr_item *i)
{
	return (struct flight *)((char *)i - offsetof(struct flight, wait));
}

static bool item_may(void *arg, const struct drr_item *i)
{
	return lane_may(arg, flight_of(i)->lane, i->cost);
}

/* Whose turn it is; those that only wait for their limit are looked at again in time. */
static struct drr_item *next_in_line(struct fill_thread *t)
{
	struct drr_item *i;

	t->limit_ns = UINT64_MAX;
	i = drr_peek(&t->line, item_may, t);
	if (!i && t->limit_ns != UINT64_MAX)
		loop_timer_set(t->loop, &t->wake, clock_now_ns() + t->limit_ns);
	return i;
}

bool lane_admits(struct flight *f, uint64_t bytes)
{
	struct fill_thread *t = f->thread;
	bool its_turn = t->turn == f;

	/* Hashes never wait for the memory of those who wait for hashes. */
	if (f->source->object->id.kind == OBJECT_TREE)
		return true;
	t->turn = NULL; /* a request a turn */
	if (!its_turn && !drr_is_empty(&t->line) && next_in_line(t))
		return false;
	return lane_may(t, f->lane, bytes);
}

void lane_wait(struct flight *f, uint64_t bytes)
{
	struct fill_thread *t = f->thread;
	struct drr_flow *flow = &f->lane->wait[f->demand ? DRR_DEMAND : DRR_PREFETCH];

	if (f->wait.flow == flow)
		return;
	if (f->wait.flow)
		drr_remove(&t->line, &f->wait);
	else
		t->nwaiting++;
	drr_push(&t->line, flow, &f->wait, bytes);
	loop_timer_set(t->loop, &t->wake, 0); /* its limit may be all that it waits for */
}

void lane_leave(struct flight *f)
{
	if (!f->wait.flow)
		return;
	drr_remove(&f->thread->line, &f->wait);
	f->thread->nwaiting--;
}

bool lane_run_next(struct fill_thread *t)
{
	struct drr_item *i = next_in_line(t);
	uint32_t was = t->nwaiting;
	uint64_t begun = t->begun;
	bool entered;

	if (!i || !fill_memory_fits(t, i->cost))
		return false;
	drr_take(&t->line, i);
	t->nwaiting--;
	t->turn = flight_of(i);
	entered = flight_enter(t->turn->source, t->turn->extent);
	flight_advance(t->turn); /* may free it, or have it wait again */
	crash_leave(entered);
	t->turn = NULL;
	return t->begun != begun || t->nwaiting < was;
}
