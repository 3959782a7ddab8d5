/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that reads waiting for a fill may hold, over all connections and threads.
 *
 * First come, first served: whoever finds it full waits in line, and nobody overtakes, so that a
 * 32 MiB read is not starved by small ones. One taker always passes, however much it wants. Misses
 * wait for a store or an origin, so a mutex costs nothing here.
 */
#ifndef NBD_BUDGET_H
#define NBD_BUDGET_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct nbd_budget_wait { /* embedded in who waits; zero it before first use */
	TAILQ_ENTRY(nbd_budget_wait) line;
	uint64_t want;
	bool in_line;
	/* Called once, when @want bytes were taken for it; on the giver's thread and with the
	 * budget locked, so it may only pass the news on. */
	void (*granted)(struct nbd_budget_wait *w);
};

struct nbd_budget {
	pthread_mutex_t lock;
	uint64_t limit, used;
	TAILQ_HEAD(nbd_budget_line, nbd_budget_wait) line;
};

void nbd_budget_init(struct nbd_budget *b, uint64_t limit);
void nbd_budget_free(struct nbd_budget *b); /* nobody in line, all given back */

/* True: @want bytes are the caller's. False: @w stands in line, and w->granted will be called. */
bool nbd_budget_take(struct nbd_budget *b, uint64_t want, struct nbd_budget_wait *w);

/* Take without waiting, over the limit if need be: for what must go on lest others never give back.
 */
void nbd_budget_force(struct nbd_budget *b, uint64_t n);

/* Whether somebody waits. */
bool nbd_budget_has_line(struct nbd_budget *b);

void nbd_budget_give(struct nbd_budget *b, uint64_t n);

/* Leave the line. False: the grant was made already and its bytes are to be given back. */
bool nbd_budget_cancel(struct nbd_budget *b, struct nbd_budget_wait *w);

#endif
