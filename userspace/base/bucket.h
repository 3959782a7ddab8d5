/* SPDX-License-Identifier: Apache-2.0 */
/* A token bucket: bytes a second, with a second's worth at once after a pause. Pure; the caller
 * locks. Whoever finds a token passes whole, however large, and leaves the debt to those that
 * follow, so the rate holds over time and no request is too large for it.
 */
#ifndef BASE_BUCKET_H
#define BASE_BUCKET_H

#include <stdint.h>

struct bucket {
	uint64_t rate;	/* bytes a second; 0 = no limit */
	int64_t tokens; /* bytes; negative: a debt */
	uint64_t at_ns; /* when they were counted */
};

/* A full bucket of another rate; debts are forgiven. */
static inline void bucket_set(struct bucket *b, uint64_t rate, uint64_t now_ns)
{
	*b = (struct bucket){rate, (int64_t)rate, now_ns};
}

static inline void bucket_refill(struct bucket *b, uint64_t now_ns)
{
	double more = now_ns > b->at_ns ? (double)(now_ns - b->at_ns) / 1e9 * (double)b->rate : 0;

	if (more < 1) /* let the time add up to a byte */
		return;
	b->at_ns = now_ns;
	if (more >= (double)((int64_t)b->rate - b->tokens))
		b->tokens = (int64_t)b->rate;
	else
		b->tokens += (int64_t)more;
}

/* How long until the next may pass, ns; 0 = now. */
static inline uint64_t bucket_wait_ns(struct bucket *b, uint64_t now_ns)
{
	if (!b->rate)
		return 0;
	bucket_refill(b, now_ns);
	if (b->tokens > 0)
		return 0;
	return (uint64_t)((double)(1 - b->tokens) / (double)b->rate * 1e9) + 1;
}

static inline void bucket_take(struct bucket *b, uint64_t bytes)
{
	if (b->rate)
		b->tokens -= (int64_t)bytes;
}

#endif
