/* SPDX-License-Identifier: Apache-2.0 */
/* Queues of names, in arrays shared by those that a name is never in together. */
#ifndef BENCH_EVICT_QUEUE_H
#define BENCH_EVICT_QUEUE_H

#include <stdint.h>
#include <stdlib.h>

#define NOBODY UINT32_MAX

struct links {
	uint32_t *older, *newer;
	uint8_t *in; /* which queue; 0 = none */
};

struct queue {
	struct links *links;
	uint8_t number; /* from 1 on */
	uint32_t oldest, newest, n;
};

static inline void links_init(struct links *l, uint32_t names)
{
	l->older = calloc(names, sizeof(uint32_t));
	l->newer = calloc(names, sizeof(uint32_t));
	l->in = calloc(names, 1);
}

static inline void links_free(struct links *l)
{
	free(l->older);
	free(l->newer);
	free(l->in);
}

static inline struct queue queue_new(struct links *l, uint8_t number)
{
	return (struct queue){l, number, NOBODY, NOBODY, 0};
}

static inline void queue_add(struct queue *q, uint32_t name)
{
	struct links *l = q->links;

	l->older[name] = q->newest;
	l->newer[name] = NOBODY;
	*(q->newest == NOBODY ? &q->oldest : &l->newer[q->newest]) = name;
	q->newest = name;
	l->in[name] = q->number;
	q->n++;
}

static inline void queue_remove(struct queue *q, uint32_t name)
{
	struct links *l = q->links;

	*(l->newer[name] == NOBODY ? &q->newest : &l->older[l->newer[name]]) = l->older[name];
	*(l->older[name] == NOBODY ? &q->oldest : &l->newer[l->older[name]]) = l->newer[name];
	l->in[name] = 0;
	q->n--;
}

static inline uint32_t queue_take(struct queue *q)
{
	uint32_t name = q->oldest;

	queue_remove(q, name);
	return name;
}

#endif
