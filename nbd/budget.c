/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/budget.h"

#include <assert.h>
#include <stddef.h>

#define TURN_BYTES (64U << 10)
#define RESERVE	   8 /* the part that who is alone leaves: 1/8 */

void nbd_budget_init(struct nbd_budget *b, uint64_t limit)
{
	pthread_mutex_init(&b->lock, NULL);
	b->limit = limit;
	b->used = 0;
	b->sharers = 0;
	drr_init(&b->line, TURN_BYTES);
}

void nbd_budget_free(struct nbd_budget *b)
{
	assert(drr_is_empty(&b->line) && b->used == 0);
	pthread_mutex_destroy(&b->lock);
}

void nbd_budget_share_init(struct nbd_budget_share *s)
{
	drr_flow_init(&s->flow, DRR_DEMAND);
	s->held = 0;
	s->standing = 0;
}

static bool is_sharer(const struct nbd_budget_share *s)
{
	return s->held || s->standing;
}

static void hold(struct nbd_budget *b, struct nbd_budget_share *s, uint64_t n)
{
	b->sharers += !is_sharer(s);
	s->held += n;
	b->used += n;
}

static void stand(struct nbd_budget *b, struct nbd_budget_share *s)
{
	b->sharers += !is_sharer(s);
	s->standing++;
}

static void stand_down(struct nbd_budget *b, struct nbd_budget_share *s)
{
	s->standing--;
	b->sharers -= !is_sharer(s);
}

static bool share_may(const struct nbd_budget *b, const struct nbd_budget_share *s, uint64_t want)
{
	uint32_t sharers = b->sharers + !is_sharer(s);
	uint64_t most = sharers > 1 ? b->limit / sharers : b->limit - b->limit / RESERVE;

	return !s->held || s->held + want <= most;
}

static bool item_may(void *arg, const struct drr_item *i)
{
	const struct nbd_budget_share *s =
		(const struct nbd_budget_share *)((const char *)i->flow -
						  offsetof(struct nbd_budget_share, flow));

	return share_may(arg, s, i->cost);
}

static bool budget_has(const struct nbd_budget *b, uint64_t want)
{
	return b->used == 0 || (b->used < b->limit && want <= b->limit - b->used);
}

bool nbd_budget_take(struct nbd_budget *b, struct nbd_budget_share *s, uint64_t want,
		     struct nbd_budget_wait *w)
{
	bool taken;

	pthread_mutex_lock(&b->lock);
	taken = share_may(b, s, want) && budget_has(b, want) && !drr_peek(&b->line, item_may, b);
	if (taken) {
		hold(b, s, want);
	} else {
		w->want = want;
		w->in_line = true;
		stand(b, s);
		drr_push(&b->line, &s->flow, &w->item, want);
	}
	pthread_mutex_unlock(&b->lock);
	return taken;
}

void nbd_budget_force(struct nbd_budget *b, struct nbd_budget_share *s, uint64_t n)
{
	pthread_mutex_lock(&b->lock);
	hold(b, s, n);
	pthread_mutex_unlock(&b->lock);
}

bool nbd_budget_has_line(struct nbd_budget *b)
{
	bool has_line;

	pthread_mutex_lock(&b->lock);
	has_line = !drr_is_empty(&b->line);
	pthread_mutex_unlock(&b->lock);
	return has_line;
}

static void line_advance(struct nbd_budget *b)
{
	struct drr_item *i;

	while ((i = drr_peek(&b->line, item_may, b)) && budget_has(b, i->cost)) {
		struct nbd_budget_wait *w =
			(struct nbd_budget_wait *)((char *)i -
						   offsetof(struct nbd_budget_wait, item));
		struct nbd_budget_share *s =
			(struct nbd_budget_share *)((char *)i->flow -
						    offsetof(struct nbd_budget_share, flow));

		drr_take(&b->line, i);
		w->in_line = false;
		hold(b, s, w->want);
		stand_down(b, s);
		w->granted(w);
	}
}

void nbd_budget_give(struct nbd_budget *b, struct nbd_budget_share *s, uint64_t n)
{
	pthread_mutex_lock(&b->lock);
	assert(n <= s->held && n <= b->used);
	s->held -= n;
	b->used -= n;
	b->sharers -= n && !is_sharer(s);
	line_advance(b);
	pthread_mutex_unlock(&b->lock);
}

bool nbd_budget_cancel(struct nbd_budget *b, struct nbd_budget_wait *w)
{
	bool was_in_line;

	pthread_mutex_lock(&b->lock);
	was_in_line = w->in_line;
	if (was_in_line) {
		struct nbd_budget_share *s =
			(struct nbd_budget_share *)((char *)w->item.flow -
						    offsetof(struct nbd_budget_share, flow));

		drr_remove(&b->line, &w->item);
		w->in_line = false;
		stand_down(b, s);
		line_advance(b); /* who stood behind may want less */
	}
	pthread_mutex_unlock(&b->lock);
	return was_in_line;
}
