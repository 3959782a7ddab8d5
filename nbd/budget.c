/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/budget.h"

#include <assert.h>

void nbd_budget_init(struct nbd_budget *b, uint64_t limit)
{
	pthread_mutex_init(&b->lock, NULL);
	b->limit = limit;
	b->used = 0;
	TAILQ_INIT(&b->line);
}

void nbd_budget_free(struct nbd_budget *b)
{
	assert(TAILQ_EMPTY(&b->line) && b->used == 0);
	pthread_mutex_destroy(&b->lock);
}

static bool budget_has(const struct nbd_budget *b, uint64_t want)
{
	return b->used == 0 || (b->used < b->limit && want <= b->limit - b->used);
}

bool nbd_budget_take(struct nbd_budget *b, uint64_t want, struct nbd_budget_wait *w)
{
	bool taken;

	pthread_mutex_lock(&b->lock);
	taken = TAILQ_EMPTY(&b->line) && budget_has(b, want);
	if (taken) {
		b->used += want;
	} else {
		w->want = want;
		w->in_line = true;
		TAILQ_INSERT_TAIL(&b->line, w, line);
	}
	pthread_mutex_unlock(&b->lock);
	return taken;
}

void nbd_budget_force(struct nbd_budget *b, uint64_t n)
{
	pthread_mutex_lock(&b->lock);
	b->used += n;
	pthread_mutex_unlock(&b->lock);
}

bool nbd_budget_has_line(struct nbd_budget *b)
{
	bool has_line;

	pthread_mutex_lock(&b->lock);
	has_line = !TAILQ_EMPTY(&b->line);
	pthread_mutex_unlock(&b->lock);
	return has_line;
}

static void line_advance(struct nbd_budget *b)
{
	struct nbd_budget_wait *w;

	while ((w = TAILQ_FIRST(&b->line)) && budget_has(b, w->want)) {
		TAILQ_REMOVE(&b->line, w, line);
		w->in_line = false;
		b->used += w->want;
		w->granted(w);
	}
}

void nbd_budget_give(struct nbd_budget *b, uint64_t n)
{
	pthread_mutex_lock(&b->lock);
	assert(n <= b->used);
	b->used -= n;
	line_advance(b);
	pthread_mutex_unlock(&b->lock);
}

bool nbd_budget_cancel(struct nbd_budget *b, struct nbd_budget_wait *w)
{
	bool was_in_line;

	pthread_mutex_lock(&b->lock);
	was_in_line = w->in_line;
	if (was_in_line) {
		TAILQ_REMOVE(&b->line, w, line);
		w->in_line = false;
		line_advance(b); /* who stood behind may want less */
	}
	pthread_mutex_unlock(&b->lock);
	return was_in_line;
}
