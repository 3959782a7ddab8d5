/* SPDX-License-Identifier: Apache-2.0 */
#include "reference.h"

#include <stdlib.h>

#include "queue.h"

/* ---- LRU ---- */

struct lru {
	uint32_t room;
	struct links links;
	struct queue queue;
};

static void *lru_new(uint32_t room, uint32_t names)
{
	struct lru *c = calloc(1, sizeof(*c));

	c->room = room;
	links_init(&c->links, names);
	c->queue = queue_new(&c->links, 1);
	return c;
}

static bool lru_read(void *cache, uint32_t name)
{
	struct lru *c = cache;
	bool hit = c->links.in[name];

	if (hit)
		queue_remove(&c->queue, name);
	else if (c->queue.n == c->room)
		queue_take(&c->queue);
	queue_add(&c->queue, name);
	return hit;
}

static void lru_free(void *cache)
{
	struct lru *c = cache;

	links_free(&c->links);
	free(c);
}

/* ---- LFU: counts of what is held only, and counts that outlive it ---- */

struct lfu {
	uint32_t room, n, now;
	bool remembers;
	uint32_t *place; /* by name: 1 + index among the held; 0 = not held */
	uint32_t *reads; /* by name */
	uint32_t *held;	 /* names */
	uint64_t *worth; /* of the held: reads, then the later */
};

static struct lfu *lfu_make(uint32_t room, uint32_t names, bool remembers)
{
	struct lfu *c = calloc(1, sizeof(*c));

	c->room = room;
	c->remembers = remembers;
	c->place = calloc(names, sizeof(*c->place));
	c->reads = calloc(names, sizeof(*c->reads));
	c->held = calloc(room, sizeof(*c->held));
	c->worth = calloc(room, sizeof(*c->worth));
	return c;
}

static void *lfu_new(uint32_t room, uint32_t names)
{
	return lfu_make(room, names, false);
}

static void *lfu_all_new(uint32_t room, uint32_t names)
{
	return lfu_make(room, names, true);
}

static uint32_t lfu_drop(struct lfu *c)
{
	uint32_t least = 0;

	for (uint32_t i = 1; i < c->n; i++)
		if (c->worth[i] < c->worth[least])
			least = i;
	c->place[c->held[least]] = 0;
	if (!c->remembers)
		c->reads[c->held[least]] = 0;
	return least;
}

static bool lfu_read(void *cache, uint32_t name)
{
	struct lfu *c = cache;
	bool hit = c->place[name];
	uint32_t at = hit ? c->place[name] - 1 : c->n < c->room ? c->n++ : lfu_drop(c);

	c->held[at] = name;
	c->place[name] = at + 1;
	c->worth[at] = (uint64_t)++c->reads[name] << 32 | c->now++;
	return hit;
}

static void lfu_free(void *cache)
{
	struct lfu *c = cache;

	free(c->place);
	free(c->reads);
	free(c->held);
	free(c->worth);
	free(c);
}

/* ---- S3-FIFO: a tenth for what is new, ghosts of as many as the main queue holds ---- */

enum { SMALL = 1, MAIN, GHOST };

struct s3 {
	uint32_t room, small_room;
	struct links links;
	struct queue small, main, ghost;
	uint8_t *reads; /* by name, at most 3 */
};

static void *s3_new(uint32_t room, uint32_t names)
{
	struct s3 *c = calloc(1, sizeof(*c));

	c->room = room;
	c->small_room = room / 10 ? room / 10 : 1;
	links_init(&c->links, names);
	c->small = queue_new(&c->links, SMALL);
	c->main = queue_new(&c->links, MAIN);
	c->ghost = queue_new(&c->links, GHOST);
	c->reads = calloc(names, 1);
	return c;
}

static void s3_drop_main(struct s3 *c)
{
	for (;;) {
		uint32_t name = queue_take(&c->main);

		if (!c->reads[name])
			return;
		c->reads[name]--;
		queue_add(&c->main, name);
	}
}

/* One goes; those of the small queue that were read more than once move on instead. */
static void s3_drop(struct s3 *c)
{
	while (c->small.n >= c->small_room || !c->main.n) {
		uint32_t name = queue_take(&c->small);

		if (c->reads[name] > 1) {
			c->reads[name] = 0;
			queue_add(&c->main, name);
			if (c->main.n > c->room - c->small_room) {
				s3_drop_main(c);
				return;
			}
			continue;
		}
		if (c->ghost.n == c->room - c->small_room)
			queue_take(&c->ghost);
		queue_add(&c->ghost, name);
		return;
	}
	s3_drop_main(c);
}

static bool s3_read(void *cache, uint32_t name)
{
	struct s3 *c = cache;
	bool ghost = c->links.in[name] == GHOST;

	if (c->links.in[name] == SMALL || c->links.in[name] == MAIN) {
		c->reads[name] += c->reads[name] < 3;
		return true;
	}
	if (ghost)
		queue_remove(&c->ghost, name);
	if (c->small.n + c->main.n == c->room)
		s3_drop(c);
	c->reads[name] = 0;
	queue_add(ghost ? &c->main : &c->small, name);
	return false;
}

static void s3_free(void *cache)
{
	struct s3 *c = cache;

	links_free(&c->links);
	free(c->reads);
	free(c);
}

/* ---- ARC, as published: T1, T2, their ghosts B1, B2, and a target for T1 ---- */

enum { T1 = 1, T2, B1, B2 };

struct arc {
	uint32_t room, target;
	struct links links;
	struct queue q[B2 + 1];
};

static void *arc_new(uint32_t room, uint32_t names)
{
	struct arc *c = calloc(1, sizeof(*c));

	c->room = room;
	links_init(&c->links, names);
	for (uint8_t i = T1; i <= B2; i++)
		c->q[i] = queue_new(&c->links, i);
	return c;
}

static void arc_replace(struct arc *c, bool in_b2)
{
	if (c->q[T1].n && (c->q[T1].n > c->target || (in_b2 && c->q[T1].n == c->target)))
		queue_add(&c->q[B1], queue_take(&c->q[T1]));
	else if (c->q[T2].n)
		queue_add(&c->q[B2], queue_take(&c->q[T2]));
	else
		queue_add(&c->q[B1], queue_take(&c->q[T1]));
}

static void arc_make_room(struct arc *c)
{
	uint32_t first = c->q[T1].n + c->q[B1].n, all = first + c->q[T2].n + c->q[B2].n;

	if (first == c->room) {
		if (c->q[T1].n < c->room) {
			queue_take(&c->q[B1]);
			arc_replace(c, false);
		} else {
			queue_take(&c->q[T1]);
		}
	} else if (all >= c->room) {
		if (all == 2 * c->room)
			queue_take(&c->q[B2]);
		arc_replace(c, false);
	}
}

static void arc_aim(struct arc *c, bool in_b2)
{
	uint32_t b1 = c->q[B1].n, b2 = c->q[B2].n;
	uint32_t step = in_b2 ? (b1 > b2 ? b1 / b2 : 1) : (b2 > b1 ? b2 / b1 : 1);

	if (in_b2)
		c->target -= c->target < step ? c->target : step;
	else
		c->target = c->target + step < c->room ? c->target + step : c->room;
}

static bool arc_read(void *cache, uint32_t name)
{
	struct arc *c = cache;
	uint8_t in = c->links.in[name];

	if (in == B1 || in == B2) {
		arc_aim(c, in == B2);
		arc_replace(c, in == B2);
	} else if (!in) {
		arc_make_room(c);
	}
	if (in)
		queue_remove(&c->q[in], name);
	queue_add(&c->q[in ? T2 : T1], name);
	return in == T1 || in == T2;
}

static void arc_free(void *cache)
{
	struct arc *c = cache;

	links_free(&c->links);
	free(c);
}

const struct reference references[REFERENCES] = {
	{"LRU", lru_new, lru_read, lru_free},	      {"LFU", lfu_new, lfu_read, lfu_free},
	{"LFU-all", lfu_all_new, lfu_read, lfu_free}, {"S3-FIFO", s3_new, s3_read, s3_free},
	{"ARC", arc_new, arc_read, arc_free},
};
