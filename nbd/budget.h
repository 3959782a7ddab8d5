/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that reads waiting for a fill may hold, over all connections and threads.
 *
 * Whoever finds it full waits in line, where exports take turns (base/drr.h), so that one with many
 * readers does not keep out one with few. Within an export it is first come, first served, and
 * nobody overtakes the one whose turn it is, so that a 32 MiB read is not starved by small ones.
 * One taker always passes, however much it wants.
 *
 * Others than the greedy may hold memory for as long as their origin is silent, so none may hold
 * all: an export that holds some already stops at an even part of it, and at 7/8 when it is alone.
 *
 * Misses wait for a store or an origin, so a mutex costs nothing here.
 */
#ifndef NBD_BUDGET_H
#define NBD_BUDGET_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/drr.h"

/* One export's part; of the budget, under its lock. Zero it, then nbd_budget_share_init(). */
struct nbd_budget_share {
	struct drr_flow flow;
	uint64_t held;
	uint32_t standing; /* of it in line */
};

struct nbd_budget_wait { /* embedded in who waits; zero it before first use */
	struct drr_item item;
	uint64_t want;
	bool in_line;
	/* Called once, when @want bytes were taken for it; on the giver's thread and with the
	 * budget locked, so it may only pass the news on. */
	void (*granted)(struct nbd_budget_wait *w);
};

struct nbd_budget {
	pthread_mutex_t lock;
	uint64_t limit, used;
	uint32_t sharers; /* that hold memory or stand in line */
	struct drr line;
};

void nbd_budget_init(struct nbd_budget *b, uint64_t limit);
void nbd_budget_free(struct nbd_budget *b); /* nobody in line, all given back */

void nbd_budget_share_init(struct nbd_budget_share *s);

/* True: @want bytes are the caller's. False: @w stands in line, and w->granted will be called. @s
 * outlives what it holds and waits for. */
bool nbd_budget_take(struct nbd_budget *b, struct nbd_budget_share *s, uint64_t want,
		     struct nbd_budget_wait *w);

/* Take without waiting, over the limit if need be: for what must go on lest others never give back.
 */
void nbd_budget_force(struct nbd_budget *b, struct nbd_budget_share *s, uint64_t n);

/* Whether somebody waits. */
bool nbd_budget_has_line(struct nbd_budget *b);

void nbd_budget_give(struct nbd_budget *b, struct nbd_budget_share *s, uint64_t n);

/* Leave the line. False: the grant was made already and its bytes are to be given back. */
bool nbd_budget_cancel(struct nbd_budget *b, struct nbd_budget_wait *w);

#endif
