/* SPDX-License-Identifier: Apache-2.0 */
#include "base/drr.h"

#include <stddef.h>

void drr_init(struct drr *d, uint64_t quantum)
{
	for (int c = 0; c < DRR_CLASSES; c++) {
		TAILQ_INIT(&d->ring[c].flows);
		d->ring[c].n = 0;
	}
	d->quantum = quantum;
	d->passed_over = 0;
}

void drr_flow_init(struct drr_flow *f, enum drr_class class)
{
	TAILQ_INIT(&f->items);
	f->class = class;
	f->deficit = 0;
	f->in_turn = false;
	f->active = 0;
}

static void flow_joins(struct drr *d, struct drr_flow *f)
{
	struct drr_ring *r = &d->ring[f->class];

	if (!TAILQ_EMPTY(&f->items))
		return;
	TAILQ_INSERT_TAIL(&r->flows, f, turn);
	r->n++;
}

void drr_push(struct drr *d, struct drr_flow *f, struct drr_item *i, uint64_t cost)
{
	flow_joins(d, f);
	i->flow = f;
	i->cost = cost;
	TAILQ_INSERT_TAIL(&f->items, i, link);
}

void drr_push_front(struct drr *d, struct drr_flow *f, struct drr_item *i, uint64_t cost)
{
	flow_joins(d, f);
	i->flow = f;
	i->cost = cost;
	TAILQ_INSERT_HEAD(&f->items, i, link);
}

/* What a flow did not use while it had nothing to ask for is not saved up. */
void drr_remove(struct drr *d, struct drr_item *i)
{
	struct drr_flow *f = i->flow;
	struct drr_ring *r = &d->ring[f->class];

	TAILQ_REMOVE(&f->items, i, link);
	i->flow = NULL;
	if (!TAILQ_EMPTY(&f->items))
		return;
	TAILQ_REMOVE(&r->flows, f, turn);
	r->n--;
	f->deficit = 0;
	f->in_turn = false;
}

static void turn_ends(struct drr_ring *r, struct drr_flow *f)
{
	f->in_turn = false;
	TAILQ_REMOVE(&r->flows, f, turn);
	TAILQ_INSERT_TAIL(&r->flows, f, turn);
}

/* A round in which nobody had enough: as many more as it takes until somebody has, at once. */
static void rounds_skip(struct drr *d, struct drr_ring *r,
			bool (*may)(void *arg, const struct drr_item *i), void *arg)
{
	uint64_t least = UINT64_MAX;
	struct drr_flow *f;

	for (f = TAILQ_FIRST(&r->flows); f; f = TAILQ_NEXT(f, turn)) {
		const struct drr_item *i = TAILQ_FIRST(&f->items);

		if ((!may || may(arg, i)) && i->cost - f->deficit < least)
			least = i->cost - f->deficit;
	}
	TAILQ_FOREACH(f, &r->flows, turn)
	if (!may || may(arg, TAILQ_FIRST(&f->items)))
		f->deficit += least / d->quantum * d->quantum;
}

static struct drr_item *ring_peek(struct drr *d, struct drr_ring *r,
				  bool (*may)(void *arg, const struct drr_item *i), void *arg)
{
	uint32_t barred = 0; /* flows in a row that may not go on */
	uint32_t short_of = 0;

	while (barred < r->n) {
		struct drr_flow *f = TAILQ_FIRST(&r->flows);
		struct drr_item *i = TAILQ_FIRST(&f->items);

		if (may && !may(arg, i)) {
			barred++;
			turn_ends(r, f);
			continue;
		}
		barred = 0;
		if (!f->in_turn) {
			f->in_turn = true;
			f->deficit += d->quantum;
		}
		if (r->n == 1 && i->cost > f->deficit)
			f->deficit = i->cost; /* it stays the next when others come */
		if (i->cost <= f->deficit)
			return i;
		turn_ends(r, f);
		if (++short_of == r->n)
			rounds_skip(d, r, may, arg);
	}
	return NULL;
}

struct drr_item *drr_peek(struct drr *d, bool (*may)(void *arg, const struct drr_item *i),
			  void *arg)
{
	int first = d->passed_over >= DRR_PATIENCE - 1 ? DRR_PREFETCH : DRR_DEMAND;
	struct drr_item *i = ring_peek(d, &d->ring[first], may, arg);

	return i ? i : ring_peek(d, &d->ring[!first], may, arg);
}

void drr_take(struct drr *d, struct drr_item *i)
{
	struct drr_flow *f = i->flow;

	f->deficit -= i->cost < f->deficit ? i->cost : f->deficit;
	d->passed_over = f->class == DRR_DEMAND && d->ring[DRR_PREFETCH].n ? d->passed_over + 1 : 0;
	drr_remove(d, i);
}
