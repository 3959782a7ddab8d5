/* SPDX-License-Identifier: Apache-2.0 */
#include "trace.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static uint64_t random_next(uint64_t *s)
{
	uint64_t x = (*s += 0x9e3779b97f4a7c15ULL);

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static uint32_t random_below(uint64_t *s, uint32_t n)
{
	return (uint32_t)(random_next(s) % n);
}

static void shuffle(uint32_t *a, uint32_t n, uint64_t *s)
{
	for (uint32_t i = n; i > 1; i--) {
		uint32_t j = random_below(s, i), t = a[i - 1];

		a[i - 1] = a[j];
		a[j] = t;
	}
}

static uint32_t *names_in_order(uint32_t n)
{
	uint32_t *a = malloc(n * sizeof(*a));

	for (uint32_t i = 0; i < n; i++)
		a[i] = i;
	return a;
}

/* Ranks by Zipf's law, their names in random order. */
struct zipf {
	uint32_t n, *name;
	double *below; /* part of the reads that go to ranks <= i */
};

static struct zipf zipf_new(uint32_t n, double skew, uint64_t *s)
{
	struct zipf z = {n, names_in_order(n), malloc(n * sizeof(double))};
	double sum = 0;

	for (uint32_t i = 0; i < n; i++)
		z.below[i] = sum += pow(i + 1, -skew);
	for (uint32_t i = 0; i < n; i++)
		z.below[i] /= sum;
	shuffle(z.name, n, s);
	return z;
}

static void zipf_free(struct zipf *z)
{
	free(z->name);
	free(z->below);
}

static uint32_t zipf_draw(const struct zipf *z, uint64_t *s)
{
	double u = (double)(random_next(s) >> 11) * 0x1p-53;
	uint32_t from = 0, to = z->n - 1;

	while (from < to) {
		uint32_t mid = (from + to) / 2;

		if (z->below[mid] < u)
			from = mid + 1;
		else
			to = mid;
	}
	return z->name[from];
}

static struct trace trace_new(const char *name, uint32_t names, uint64_t n, uint64_t warm)
{
	return (struct trace){name, malloc(n * sizeof(uint32_t)), n, warm, names, 1};
}

static struct trace uniform(uint32_t room, uint64_t s)
{
	struct trace t = trace_new("uniform over 4 x", 4 * room, 40 * room, 8 * room);

	for (uint64_t i = 0; i < t.n; i++)
		t.read[i] = random_below(&s, t.names);
	return t;
}

static struct trace skewed(const char *name, double skew, uint32_t room, uint64_t s)
{
	struct trace t = trace_new(name, 10 * room, 60 * room, 10 * room);
	struct zipf z = zipf_new(t.names, skew, &s);

	for (uint64_t i = 0; i < t.n; i++)
		t.read[i] = zipf_draw(&z, &s);
	zipf_free(&z);
	return t;
}

/* Runs of names that never come again, one after each few reads of a hot set. */
static struct trace scan(const char *name, double skew, uint32_t room, uint64_t s)
{
	uint32_t hot = skew > 0 ? 4 * room : room / 2, next = hot, run = room / 4;
	struct trace t = trace_new(name, hot, 60 * room, 10 * room);
	struct zipf z = zipf_new(hot, skew, &s);

	for (uint64_t i = 0; i < t.n; i++)
		t.read[i] = i / run % 3 == 2 ? next++ : zipf_draw(&z, &s);
	t.names = next;
	zipf_free(&z);
	return t;
}

/* All of them once, in a new random order each time; the first epoch finds nothing. */
static struct trace epochs(const char *name, double over, uint32_t room, uint64_t s)
{
	uint32_t n = (uint32_t)(over * room), count = 16;
	struct trace t = trace_new(name, n, (uint64_t)count * n, n);
	uint32_t *order = names_in_order(n);

	for (uint32_t i = 0; i < count; i++) {
		shuffle(order, n, &s);
		memcpy(t.read + (uint64_t)i * n, order, n * sizeof(*order));
	}
	free(order);
	return t;
}

/* Epochs over files, of which 16 are an extent that is stored file by file. */
static struct trace files(uint32_t room, uint64_t s)
{
	struct trace t = epochs("small files, epochs over 2 x", 2, room, s);

	t.grain = 16;
	return t;
}

static struct trace cyclic(uint32_t room, uint64_t s)
{
	struct trace t = trace_new("one order, over 1.5 x", room + room / 2, 40 * room, 2 * room);

	(void)s;
	for (uint64_t i = 0; i < t.n; i++)
		t.read[i] = (uint32_t)(i % t.names);
	return t;
}

/* One job reads epochs over 1.5 times the store, the other one a skewed set of its own. */
static struct trace two_jobs(const char *name, bool in_turns, uint32_t room, uint64_t s)
{
	uint32_t n = room + room / 2, *order = names_in_order(n), at = 0;
	struct trace t = trace_new(name, n + 4 * room, 60 * room, 10 * room);
	struct zipf z = zipf_new(4 * room, 1.0, &s);

	for (uint64_t i = 0; i < t.n; i++) {
		bool first = in_turns ? i / (5 * room) % 2 : random_next(&s) & 1;

		if (first && at % n == 0)
			shuffle(order, n, &s);
		t.read[i] = first ? order[at++ % n] : n + zipf_draw(&z, &s);
	}
	zipf_free(&z);
	free(order);
	return t;
}

/* A working set of 0.8 of the store that moves on by an extent each few reads. */
static struct trace moving(uint32_t room, uint64_t s)
{
	uint32_t set = room / 5 * 4;
	struct trace t = trace_new("a working set that moves", set, 60 * room, 10 * room);

	for (uint64_t i = 0; i < t.n; i++)
		t.read[i] = (uint32_t)(i / 8) + random_below(&s, set);
	t.names = (uint32_t)(t.n / 8) + set;
	return t;
}

/* Another skewed set from the middle on. */
static struct trace change(uint32_t room, uint64_t s)
{
	struct trace t = skewed("Zipf 1.0, anew in the middle", 1.0, room, s);

	for (uint64_t i = t.n / 2; i < t.n; i++)
		t.read[i] += t.names;
	t.names *= 2;
	return t;
}

struct trace trace_make(int i, uint32_t room, uint64_t seed)
{
	switch (i) {
	case 0:
		return uniform(room, seed);
	case 1:
		return skewed("Zipf 0.8", 0.8, room, seed);
	case 2:
		return skewed("Zipf 0.9", 0.9, room, seed);
	case 3:
		return skewed("Zipf 1.0", 1.0, room, seed);
	case 4:
		return skewed("Zipf 1.1", 1.1, room, seed);
	case 5:
		return skewed("Zipf 1.2", 1.2, room, seed);
	case 6:
		return scan("scans over a hot set of 0.5 x", 0, room, seed);
	case 7:
		return scan("scans over Zipf 1.0", 1.0, room, seed);
	case 8:
		return epochs("epochs over 1.2 x", 1.2, room, seed);
	case 9:
		return epochs("epochs over 2 x", 2, room, seed);
	case 10:
		return files(room, seed);
	case 11:
		return cyclic(room, seed);
	case 12:
		return two_jobs("epochs and Zipf 1.0 at once", false, room, seed);
	case 13:
		return moving(room, seed);
	default:
		return change(room, seed);
	}
}
