/* SPDX-License-Identifier: Apache-2.0 */
/* A histogram of durations: 64 steps an octave, so that a percentile is right within 1.6 %. */
#ifndef TESTS_BENCH_LATENCY_H
#define TESTS_BENCH_LATENCY_H

#include <stdint.h>

#define LATENCY_STEPS 64
#define LATENCY_SLOTS (LATENCY_STEPS * 59)

struct latency {
	uint64_t count;
	uint64_t slots[LATENCY_SLOTS];
};

static inline uint32_t latency_slot(uint64_t ns)
{
	uint32_t octave;

	if (ns < LATENCY_STEPS)
		return (uint32_t)ns;
	octave = 63 - (uint32_t)__builtin_clzll(ns) - 5; /* 1: 64..127, whose step is 1 ns */
	return octave * LATENCY_STEPS + (uint32_t)(ns >> (octave - 1)) % LATENCY_STEPS;
}

/* The smallest duration of a slot. */
static inline uint64_t latency_of_slot(uint32_t slot)
{
	uint32_t octave = slot / LATENCY_STEPS;

	if (octave == 0)
		return slot;
	return (uint64_t)(LATENCY_STEPS + slot % LATENCY_STEPS) << (octave - 1);
}

static inline void latency_add(struct latency *l, uint64_t ns)
{
	l->slots[latency_slot(ns)]++;
	l->count++;
}

static inline void latency_merge(struct latency *into, const struct latency *l)
{
	for (uint32_t i = 0; i < LATENCY_SLOTS; i++)
		into->slots[i] += l->slots[i];
	into->count += l->count;
}

static inline double latency_us(const struct latency *l, double quantile)
{
	uint64_t rank = (uint64_t)((double)l->count * quantile), seen = 0;

	for (uint32_t i = 0; i < LATENCY_SLOTS; i++) {
		seen += l->slots[i];
		if (seen > rank)
			return (double)latency_of_slot(i) / 1e3;
	}
	return 0;
}

#endif
