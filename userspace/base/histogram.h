/* SPDX-License-Identifier: Apache-2.0 */
/* A histogram of durations in fixed buckets, four an octave from 1 us to 268 s (so a quantile is
 * right to 25 %), and below that four quarters of a microsecond. Adding is wait-free and relaxed,
 * on a stripe of the adding thread's own; what a reader sums up may lack what is just being added.
 * All zeros is an empty one.
 */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_STRIPES 8
#define HISTOGRAM_UNIT_NS 250ULL			  /* of the first buckets */
#define HISTOGRAM_OCTAVES 28				  /* from 1 us: 2^28 us = 268 s */
#define HISTOGRAM_BUCKETS (4 + 4 * HISTOGRAM_OCTAVES + 1) /* the last: 268 s and more */

struct histogram {
	struct {
		_Atomic uint64_t count[HISTOGRAM_BUCKETS];
		_Atomic uint64_t sum_ns, max_ns;
		char pad[64]; /* no stripe shares a cache line with the next */
	} stripe[HISTOGRAM_STRIPES];
};

/* @n things took @ns each. Any thread. */
void histogram_add(struct histogram *h, uint64_t ns, uint64_t n);

/* A histogram as it was at one time, for one thread. */
struct histogram_view {
	uint64_t bucket[HISTOGRAM_BUCKETS];
	uint64_t count, sum_ns, max_ns;
};

/* Put what @h holds on top of what is in @out. */
void histogram_merge(const struct histogram *h, struct histogram_view *out);

/* Which bucket @ns falls into, and the first nanosecond beyond a bucket (UINT64_MAX: the last). */
uint32_t histogram_bucket(uint64_t ns);
uint64_t histogram_bucket_end_ns(uint32_t bucket);

/* The duration that a share @q (0 .. 1) of all did not exceed: a bucket's end, or the maximum where
 * that is less. 0 when nothing was added. */
uint64_t histogram_quantile_ns(const struct histogram_view *v, double q);

/* How many took less than 2^@octave us, for octaves 0 .. HISTOGRAM_OCTAVES. */
uint64_t histogram_below(const struct histogram_view *v, uint32_t octave);

#endif
