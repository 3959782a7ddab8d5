/* SPDX-License-Identifier: Apache-2.0 */
#include "base/histogram.h"

static _Thread_local uint32_t stripe_of_thread; /* + 1; 0 = none yet */
static _Atomic uint32_t next_stripe;

uint32_t histogram_bucket(uint64_t ns)
{
	uint64_t n = ns / HISTOGRAM_UNIT_NS;
	uint32_t top;

	if (n < 4)
		return (uint32_t)n;
	top = 63 - (uint32_t)__builtin_clzll(n); /* >= 2 */
	if (top >= 2 + HISTOGRAM_OCTAVES)
		return HISTOGRAM_BUCKETS - 1;
	return 4 * (top - 1) + (uint32_t)(n >> (top - 2) & 3);
}

uint64_t histogram_bucket_end_ns(uint32_t bucket)
{
	uint32_t octave = bucket / 4, quarter = bucket % 4;

	if (bucket >= HISTOGRAM_BUCKETS - 1)
		return UINT64_MAX;
	if (!octave)
		return (bucket + 1) * HISTOGRAM_UNIT_NS;
	return ((5ULL + quarter) << (octave - 1)) * HISTOGRAM_UNIT_NS;
}

static uint32_t stripe_mine(void)
{
	if (!stripe_of_thread)
		stripe_of_thread =
			1 + atomic_fetch_add_explicit(&next_stripe, 1, memory_order_relaxed) %
				    HISTOGRAM_STRIPES;
	return stripe_of_thread - 1;
}

void histogram_add(struct histogram *h, uint64_t ns, uint64_t n)
{
	uint32_t s = stripe_mine();
	uint64_t max = atomic_load_explicit(&h->stripe[s].max_ns, memory_order_relaxed);

	atomic_fetch_add_explicit(&h->stripe[s].count[histogram_bucket(ns)], n,
				  memory_order_relaxed);
	atomic_fetch_add_explicit(&h->stripe[s].sum_ns, ns * n, memory_order_relaxed);
	while (ns > max &&
	       !atomic_compare_exchange_weak_explicit(&h->stripe[s].max_ns, &max, ns,
						      memory_order_relaxed, memory_order_relaxed))
		;
}

void histogram_merge(const struct histogram *h, struct histogram_view *out)
{
	for (uint32_t s = 0; s < HISTOGRAM_STRIPES; s++) {
		uint64_t max = atomic_load_explicit(&h->stripe[s].max_ns, memory_order_relaxed);

		for (uint32_t b = 0; b < HISTOGRAM_BUCKETS; b++) {
			uint64_t n =
				atomic_load_explicit(&h->stripe[s].count[b], memory_order_relaxed);

			out->bucket[b] += n;
			out->count += n;
		}
		out->sum_ns += atomic_load_explicit(&h->stripe[s].sum_ns, memory_order_relaxed);
		if (max > out->max_ns)
			out->max_ns = max;
	}
}

uint64_t histogram_quantile_ns(const struct histogram_view *v, double q)
{
	uint64_t want = (uint64_t)(q * (double)v->count), seen = 0;

	if (!v->count)
		return 0;
	want += (double)want < q * (double)v->count; /* rounded up, at least one */
	want += !want;
	for (uint32_t b = 0; b < HISTOGRAM_BUCKETS; b++) {
		uint64_t end = histogram_bucket_end_ns(b);

		seen += v->bucket[b];
		if (seen >= want)
			return end < v->max_ns ? end : v->max_ns;
	}
	return v->max_ns;
}

uint64_t histogram_below(const struct histogram_view *v, uint32_t octave)
{
	uint64_t n = 0;

	for (uint32_t b = 0; b < 4 + 4 * octave && b < HISTOGRAM_BUCKETS; b++)
		n += v->bucket[b];
	return n;
}
