/* SPDX-License-Identifier: Apache-2.0 */
/* Fill threads: their start and stop, the memory they share out, and the end of every read. */
#include "fill/fill.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "fill/flight.h"

#define SWEEP_NS (NSEC_PER_SEC)

static void spare_free(struct fill_thread *t)
{
	struct spare *p = t->spares;

	t->spares = p->next;
	t->spare_bytes -= STORE_EXTENT;
	free(p);
}

/* Whole extents are most of what is taken, and fresh memory costs the kernel's zeroing of it, so
 * they are kept for the next flight, as long as all together are within the limit. */
static void *buffer_new(struct fill_thread *t, uint64_t bytes)
{
	struct spare *p = t->spares;

	if (bytes == STORE_EXTENT && p) {
		t->spares = p->next;
		t->spare_bytes -= STORE_EXTENT;
		return p;
	}
	while (t->spares && t->memory + t->spare_bytes + bytes > t->memory_max)
		spare_free(t);
	return malloc(bytes);
}

static void buffer_free(struct fill_thread *t, void *buf, uint64_t bytes)
{
	struct spare *p = buf;

	if (bytes != STORE_EXTENT) {
		free(buf);
		return;
	}
	p->next = t->spares;
	t->spares = p;
	t->spare_bytes += STORE_EXTENT;
}

/* One buffer always passes, so that a small limit is slow and not stuck. */
bool fill_memory_fits(const struct fill_thread *t, uint64_t bytes)
{
	return !t->memory || t->memory + bytes <= t->memory_max;
}

void *fill_memory_take(struct fill_thread *t, uint64_t bytes, bool beyond)
{
	void *p;

	if (!beyond && !fill_memory_fits(t, bytes))
		return NULL;
	p = buffer_new(t, bytes);
	if (p)
		t->memory += bytes;
	return p;
}

void fill_memory_give(struct fill_thread *t, void *p, uint64_t bytes)
{
	buffer_free(t, p, bytes);
	t->memory -= bytes;
	/* Not from here: the caller is in the middle of a flight. */
	if (t->nwaiting)
		loop_timer_set(t->loop, &t->wake, 0);
}

static void wake(struct loop_timer *timer)
{
	struct fill_thread *t =
		(struct fill_thread *)((char *)timer - offsetof(struct fill_thread, wake));

	while (lane_run_next(t))
		;
}

/* One a turn: what has arrived meanwhile goes to its readers first. */
static void store(struct loop_timer *timer)
{
	struct fill_thread *t =
		(struct fill_thread *)((char *)timer - offsetof(struct fill_thread, store));

	if (segment_store_next(t) && !TAILQ_EMPTY(&t->stores))
		loop_timer_set(t->loop, &t->store, 0);
}

/* The extent's flights are all on one thread; neighbours are on different ones. */
static struct fill_thread *thread_of(struct fill *f, const struct fill_read *r)
{
	uint64_t h = (uintptr_t)r->source->object / 64 + r->extent;

	return &f->threads[h % f->nthreads];
}

static struct fill_read *read_of(struct loop_post *p)
{
	return (struct fill_read *)((char *)p - offsetof(struct fill_read, post));
}

static void submit_post(struct loop_post *p)
{
	struct fill_read *r = read_of(p);

	flight_join(thread_of(r->source->fill, r), r);
}

void fill_submit(struct fill *f, struct fill_read *r)
{
	r->origin_bytes = 0;
	r->deadline_ns = clock_now_ns() + f->cfg.deadline_ms * NSEC_PER_MSEC;
	r->post.fn = submit_post;
	loop_post(thread_of(f, r)->loop, &r->post);
}

static void for_each_flight(struct fill_thread *t, void (*fn)(struct flight *, uint64_t),
			    uint64_t arg)
{
	for (int i = 0; i < FLIGHT_BUCKETS; i++) {
		for (struct flight *f = t->buckets[i], *next; f; f = next) {
			next = f->hash_next;
			fn(f, arg);
		}
	}
}

static void sweep(struct loop_timer *timer)
{
	struct fill_thread *t =
		(struct fill_thread *)((char *)timer - offsetof(struct fill_thread, sweep));
	uint64_t now = clock_now_ns();

	for_each_flight(t, flight_expire, now);
	wake(&t->wake); /* memory may have been short for other reasons than our limit */
	loop_timer_set(t->loop, &t->sweep, now + SWEEP_NS);
}

static void *fill_thread_main(void *arg)
{
	struct fill_thread *t = arg;

	pthread_setname_np(pthread_self(), "fill");
	loop_run(t->loop);
	return NULL;
}

static int thread_start(struct fill *f, struct fill_thread *t, struct err *err)
{
	int rc;

	t->fill = f;
	t->memory_max = f->cfg.memory / f->cfg.threads;
	drr_init(&t->line, STORE_BLOCK);
	t->sweep.fn = sweep;
	t->wake.fn = wake;
	t->store.fn = store;
	TAILQ_INIT(&t->stores);
	t->loop = loop_new(f->cfg.loop_kind, err);
	if (!t->loop)
		return err->code ? err->code : -EIO;
	t->client = origin_client_new(t->loop, &f->cfg.origin, err);
	if (!t->client)
		return err->code ? err->code : -EIO;
	loop_timer_set(t->loop, &t->sweep, clock_now_ns() + SWEEP_NS);
	rc = pthread_create(&t->tid, NULL, fill_thread_main, t);
	if (rc)
		return err_set(err, -rc, "can't start a fill thread: %s", strerror(rc));
	t->running = true;
	return 0;
}

int fill_start(const struct fill_config *cfg, struct fill **out, struct err *err)
{
	struct fill *f = calloc(1, sizeof(*f));
	int rc = 0;

	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	f->cfg = *cfg;
	f->threads = calloc(cfg->threads, sizeof(*f->threads));
	f->nobodys = share_new();
	if (!f->threads || !f->nobodys) {
		share_unref(f->nobodys);
		free(f->threads);
		free(f);
		return err_set(err, -ENOMEM, "out of memory");
	}
	f->nthreads = cfg->threads;
	for (uint32_t i = 0; !rc && i < f->nthreads; i++)
		rc = thread_start(f, &f->threads[i], err);
	if (rc) {
		fill_stop(f);
		return rc;
	}
	*out = f;
	return 0;
}

static void cancel_post(struct loop_post *p)
{
	struct fill_thread *t =
		(struct fill_thread *)((char *)p - offsetof(struct fill_thread, cancel));

	for_each_flight(t, flight_cancel, 0);
	wake(&t->wake);
}

void fill_cancel(struct fill *f)
{
	if (atomic_exchange(&f->cancelled, true))
		return;
	for (uint32_t i = 0; i < f->nthreads; i++) {
		f->threads[i].cancel.fn = cancel_post;
		loop_post(f->threads[i].loop, &f->threads[i].cancel);
	}
}

bool fill_is_cancelled(const struct fill *f)
{
	return atomic_load(&f->cancelled);
}

static void stop_post(struct loop_post *p)
{
	struct fill_thread *t =
		(struct fill_thread *)((char *)p - offsetof(struct fill_thread, stop));

	for_each_flight(t, flight_cancel, 0);
	wake(&t->wake);
	if (t->nflights) { /* cancelled requests end in later turns */
		usleep(1000);
		loop_post(t->loop, &t->stop);
		return;
	}
	loop_timer_cancel(t->loop, &t->sweep);
	loop_timer_cancel(t->loop, &t->wake);
	t->stopped = true;
}

void fill_stop(struct fill *f)
{
	bool all = false;

	for (uint32_t i = 0; i < f->nthreads; i++) {
		struct fill_thread *t = &f->threads[i];

		t->stop.fn = stop_post;
		if (t->running)
			loop_post(t->loop, &t->stop);
	}
	while (!all) { /* threads ask each other for hashes, so none ends before all are idle */
		all = true;
		for (uint32_t i = 0; i < f->nthreads; i++)
			all &= !f->threads[i].running || f->threads[i].stopped;
		if (!all)
			usleep(1000);
	}
	for (uint32_t i = 0; i < f->nthreads; i++) {
		struct fill_thread *t = &f->threads[i];

		if (t->running) {
			loop_stop(t->loop);
			pthread_join(t->tid, NULL);
		}
		if (t->client)
			origin_client_free(t->client);
		if (t->loop)
			loop_free(t->loop);
		while (t->spares)
			spare_free(t);
	}
	free(f->threads);
	share_unref(f->nobodys);
	free(f);
}

struct fill_counters *fill_counters(struct fill *f)
{
	return &f->counters;
}
