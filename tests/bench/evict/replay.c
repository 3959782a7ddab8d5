/* SPDX-License-Identifier: Apache-2.0 */
/* Replays traces under the daemon's own policy (store/evict.h) and under those of others, and
 * prints the hits of each. Deterministic: a seed makes the traces.
 *
 *   replay [--room EXTENTS] [--seed N]
 *
 * Exits 1 when ours is more than 3 points below the best of the others on a trace, or epochs over
 * twice the store hit less than 45 %.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reference.h"
#include "store/evict.h"
#include "trace.h"

#define POINTS	     3.0
#define EPOCHS_LEAST 45.0

/* A store of which only the policy is real. */
struct ours {
	struct evict evict;
	struct evict_set set;
	_Atomic uint64_t *stored, *use;
	_Atomic uint32_t *pins, kept;
	uint32_t used, room, grain;
};

static struct ours *ours_new(uint32_t room, uint32_t names, uint32_t grain)
{
	struct ours *o = calloc(1, sizeof(*o));

	o->room = room;
	o->grain = grain;
	o->stored = calloc(names, sizeof(*o->stored));
	o->use = calloc(names, sizeof(*o->use));
	o->pins = calloc(names, sizeof(*o->pins));
	evict_init(&o->evict);
	o->set = (struct evict_set){.extents = names,
				    .stored = o->stored,
				    .use = o->use,
				    .pins = o->pins,
				    .kept = &o->kept};
	if (evict_add(&o->evict, &o->set))
		exit(2);
	return o;
}

static void ours_free(struct ours *o)
{
	evict_free(&o->evict);
	free(o->stored);
	free(o->use);
	free(o->pins);
	free(o);
}

/* As the store does: a 64th of it at a time. */
static void make_room(struct ours *o)
{
	struct evict_set *set;
	uint64_t extent;

	if (o->used < o->room)
		return;
	while (o->used >= o->room - o->room / 64 && evict_next(&o->evict, NULL, &set, &extent)) {
		o->used -= (uint32_t)__builtin_popcountll(o->stored[extent]);
		o->stored[extent] = 0;
	}
}

static bool ours_read(struct ours *o, uint32_t name)
{
	uint32_t extent = name / o->grain;
	uint64_t bit = 1ULL << name % o->grain;
	bool hit = o->stored[extent] & bit;

	evict_touch(&o->evict, &o->set, extent, hit);
	if (hit)
		return true;
	o->pins[extent]++;
	make_room(o);
	o->stored[extent] |= bit;
	evict_stored(&o->evict, &o->set, extent);
	o->pins[extent]--;
	o->used++;
	return false;
}

static double percent(uint64_t hits, const struct trace *t)
{
	return 100.0 * (double)hits / (double)(t->n - t->warm);
}

static double replay_ours(const struct trace *t, uint32_t room)
{
	struct ours *o = ours_new(room, t->names, t->grain);
	uint64_t hits = 0;

	for (uint64_t i = 0; i < t->n; i++)
		hits += ours_read(o, t->read[i]) && i >= t->warm;
	ours_free(o);
	return percent(hits, t);
}

static double replay_reference(const struct reference *r, const struct trace *t, uint32_t room)
{
	void *cache = r->new (room, t->names);
	uint64_t hits = 0;

	for (uint64_t i = 0; i < t->n; i++)
		hits += r->read(cache, t->read[i]) && i >= t->warm;
	r->free(cache);
	return percent(hits, t);
}

static bool replay(int i, uint32_t room, uint64_t seed)
{
	struct trace t = trace_make(i, room, seed);
	double mine = replay_ours(&t, room), best = 0;
	bool good;

	printf("%-30s %6.1f", t.name, mine);
	for (int r = 0; r < REFERENCES; r++) {
		double theirs = replay_reference(&references[r], &t, room);

		printf(" %8.1f", theirs);
		best = theirs > best ? theirs : best;
	}
	good = mine >= best - POINTS &&
	       (strcmp(t.name, "epochs over 2 x") != 0 || mine >= EPOCHS_LEAST);
	printf(" %+7.1f%s\n", mine - best, good ? "" : "  MISSED");
	fflush(stdout);
	free(t.read);
	return good;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"room", required_argument, NULL, 'r'},
						{"seed", required_argument, NULL, 's'},
						{NULL, 0, NULL, 0}};
	uint32_t room = 2048;
	uint64_t seed = 1;
	bool good = true;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'r')
			room = (uint32_t)strtoul(optarg, NULL, 10);
		else if (opt == 's')
			seed = strtoull(optarg, NULL, 10);
		else
			return 2;
	}
	if (room < 64) {
		fputs("replay: a store of at least 64 extents\n", stderr);
		return 2;
	}
	printf("%% of reads that hit, a store of %u extents, seed %llu\n%-30s %6s", room,
	       (unsigned long long)seed, "trace", "cairn");
	for (int r = 0; r < REFERENCES; r++)
		printf(" %8s", references[r].name);
	printf(" %7s\n", "to best");
	for (int i = 0; i < TRACES; i++)
		good &= replay(i, room, seed);
	return good ? 0 : 1;
}
