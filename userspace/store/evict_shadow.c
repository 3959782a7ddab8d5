/* SPDX-License-Identifier: Apache-2.0 */
#include "store/evict_shadow.h"

#include <string.h>

#define ENOUGH 128  /* reads before anything is said */
#define AHEAD  0.01 /* of the reads: a smaller lead changes nothing */

void shadows_init(struct evict_shadows *s)
{
	memset(s, 0, sizeof(*s));
	s->chosen = EVICT_KEEP;
}

static void take_out(struct evict_shadow *c, uint32_t i)
{
	c->n--;
	c->name[i] = c->name[c->n];
	c->use[i] = c->use[c->n];
}

static void drop_worst(struct evict_shadow *c, enum evict_expert expert, uint32_t now)
{
	uint64_t least = UINT64_MAX;
	uint32_t worst = 0;

	for (uint32_t i = 0; i < c->n; i++) {
		uint64_t worth = use_worth(expert, c->use[i], now);

		if (worth < least) {
			least = worth;
			worst = i;
		}
	}
	take_out(c, worst);
}

void shadows_resize(struct evict_shadows *s, uint32_t room, bool other_sample)
{
	s->room = room < SHADOW_ROOM ? room : SHADOW_ROOM;
	for (int e = 0; other_sample && e < EVICT_EXPERTS; e++)
		s->of[e].n = 0;
}

static uint64_t with_again(uint64_t use, uint64_t again)
{
	return (use & (USE_AGAIN - 1)) | again * USE_AGAIN;
}

/* What the shadow holds was read again, or comes in. */
static bool shadow_read(struct evict_shadow *c, enum evict_expert expert, uint32_t room,
			uint64_t name, uint64_t use, uint32_t now)
{
	uint64_t again;

	for (uint32_t i = 0; i < c->n; i++) {
		if (c->name[i] == name) {
			again = use_again(c->use[i]);
			again += again < USE_AGAIN_MAX;
			c->use[i] = with_again(use, again);
			return true;
		}
	}
	while (c->n && c->n >= room)
		drop_worst(c, expert, now);
	c->name[c->n] = name;
	c->use[c->n++] = with_again(use, 0);
	return false;
}

static void choose(struct evict_shadows *s)
{
	enum evict_expert best = s->chosen;

	for (int e = 0; e < EVICT_EXPERTS; e++)
		if (s->of[e].hits > s->of[best].hits)
			best = (enum evict_expert)e;
	if (s->of[best].hits - s->of[s->chosen].hits > AHEAD * s->reads)
		s->chosen = best;
}

void shadows_read(struct evict_shadows *s, uint64_t name, uint64_t use, uint32_t now)
{
	const double fade = 1 - 1.0 / SHADOW_MEMORY;

	if (!s->room)
		return;
	s->reads = s->reads * fade + 1;
	for (int e = 0; e < EVICT_EXPERTS; e++) {
		struct evict_shadow *c = &s->of[e];
		bool hit = shadow_read(c, (enum evict_expert)e, s->room, name, use, now);

		c->hits = c->hits * fade + hit;
	}
	if (s->reads >= ENOUGH)
		choose(s);
}
