/* SPDX-License-Identifier: Apache-2.0 */
/* Deficit round robin: whose turn it is for what is scarce. Pure; the caller locks and grants.
 *
 * What waits is an item with a cost (bytes). Items of one owner and class stand in a flow, first
 * come first served; flows of a class take turns, each for about the same cost, however many items
 * it has. Demand goes before prefetch, which gets every DRR_PATIENCE-th grant all the same, lest it
 * wait for ever. An owner that asks for less than its share leaves the rest to the others.
 */
#ifndef BASE_DRR_H
#define BASE_DRR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

enum drr_class { DRR_DEMAND, DRR_PREFETCH, DRR_CLASSES };
#define DRR_PATIENCE 16

struct drr_flow;

struct drr_item { /* embedded in what waits; zero it before first use */
	TAILQ_ENTRY(drr_item) link;
	struct drr_flow *flow; /* NULL: does not wait */
	uint64_t cost;
};

struct drr_flow { /* embedded in its owner; may go when it is empty */
	TAILQ_HEAD(drr_items, drr_item) items;
	TAILQ_ENTRY(drr_flow) turn;
	enum drr_class class;
	uint64_t deficit; /* what it may still take in this turn */
	bool in_turn;
	uint32_t active; /* for whoever grants: granted and not over yet */
};

struct drr_ring {
	TAILQ_HEAD(drr_flows, drr_flow) flows; /* those that are not empty */
	uint32_t n;
};

struct drr {
	struct drr_ring ring[DRR_CLASSES];
	uint64_t quantum;
	uint32_t passed_over; /* grants of demand since prefetch had one, while it waited */
};

/* @quantum: what a turn is worth, in units of cost, > 0. */
void drr_init(struct drr *d, uint64_t quantum);
void drr_flow_init(struct drr_flow *f, enum drr_class class);

/* Stand in line, at its end or ahead of the flow's others. */
void drr_push(struct drr *d, struct drr_flow *f, struct drr_item *i, uint64_t cost);
void drr_push_front(struct drr *d, struct drr_flow *f, struct drr_item *i, uint64_t cost);

/* Whose turn it is, among flows whose first item @may go on (NULL: all); NULL when there is none.
 * It stays the same until it is taken or leaves, so that a large one is not starved by small ones.
 */
struct drr_item *drr_peek(struct drr *d, bool (*may)(void *arg, const struct drr_item *i),
			  void *arg);

/* Grant @i: it leaves the line and is charged to its flow. */
void drr_take(struct drr *d, struct drr_item *i);

/* Leave the line without a grant. */
void drr_remove(struct drr *d, struct drr_item *i);

static inline bool drr_is_empty(const struct drr *d)
{
	return !d->ring[DRR_DEMAND].n && !d->ring[DRR_PREFETCH].n;
}

#endif
