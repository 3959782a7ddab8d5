/* SPDX-License-Identifier: Apache-2.0 */
#include "fill/share.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/bucket.h"
#include "base/clock.h"

struct share {
	_Atomic uint32_t refs;
	_Atomic uint64_t rate;
	pthread_mutex_t lock;
	struct bucket bucket;
};

struct share *share_new(void)
{
	struct share *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->refs = 1;
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

struct share *share_ref(struct share *s)
{
	atomic_fetch_add(&s->refs, 1);
	return s;
}

void share_unref(struct share *s)
{
	if (!s || atomic_fetch_sub(&s->refs, 1) != 1)
		return;
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void share_set_rate(struct share *s, uint64_t rate)
{
	pthread_mutex_lock(&s->lock);
	bucket_set(&s->bucket, rate, clock_now_ns());
	atomic_store(&s->rate, rate);
	pthread_mutex_unlock(&s->lock);
}

uint64_t share_rate(const struct share *s)
{
	return atomic_load(&s->rate);
}

uint64_t share_wait_ns(struct share *s)
{
	uint64_t ns;

	if (!atomic_load_explicit(&s->rate, memory_order_relaxed))
		return 0;
	pthread_mutex_lock(&s->lock);
	ns = bucket_wait_ns(&s->bucket, clock_now_ns());
	pthread_mutex_unlock(&s->lock);
	return ns;
}

void share_charge(struct share *s, uint64_t bytes)
{
	if (!atomic_load_explicit(&s->rate, memory_order_relaxed))
		return;
	pthread_mutex_lock(&s->lock);
	bucket_take(&s->bucket, bytes);
	pthread_mutex_unlock(&s->lock);
}
