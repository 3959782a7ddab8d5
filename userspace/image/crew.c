/* SPDX-License-Identifier: Apache-2.0 */
#include "image/crew.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"

#define CREW_THREADS_MAX 256
#define REPORT_NS	 (200 * NSEC_PER_MSEC)

/* One crew_run(). */
struct shift {
	struct crew *crew;
	_Atomic uint64_t next;
	_Atomic bool stop;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	unsigned working; /* threads; under lock */
	struct err err;	  /* the first; under lock */
};

static void shift_fail(struct shift *s, const struct err *err)
{
	pthread_mutex_lock(&s->lock);
	if (!s->err.code)
		s->err = *err;
	pthread_mutex_unlock(&s->lock);
	atomic_store(&s->stop, true);
}

static int work(struct shift *s, struct crew_hand *hand, struct err *err)
{
	struct crew *crew = s->crew;

	while (!atomic_load(&s->stop)) {
		uint64_t job = atomic_fetch_add(&s->next, 1);
		int rc;

		if (job >= crew->jobs)
			break;
		rc = crew->run(crew->arg, hand, job, err);
		if (rc)
			return err->code ? rc
					 : err_set(err, rc, "%s: %s", crew->phase, strerror(-rc));
	}
	return 0;
}

static int work_with_client(struct shift *s, struct crew_hand *hand, struct err *err)
{
	struct loop *loop = loop_new(LOOP_AUTO, err);
	int rc;

	if (!loop)
		return err->code;
	hand->client = origin_client_new(loop, s->crew->config, err);
	rc = hand->client ? work(s, hand, err) : err->code;
	if (hand->client)
		origin_client_free(hand->client);
	loop_free(loop);
	return rc;
}

static void *hand_main(void *arg)
{
	struct shift *s = arg;
	struct crew_hand hand = {0};
	struct err err = {0};
	int rc;

	hand.scratch = aligned_alloc(4096, (s->crew->scratch + 4096) & ~(size_t)4095);
	if (!hand.scratch)
		rc = err_set(&err, -ENOMEM, "no memory for %zu bytes a thread: use fewer --threads",
			     s->crew->scratch);
	else if (s->crew->config)
		rc = work_with_client(s, &hand, &err);
	else
		rc = work(s, &hand, &err);
	free(hand.scratch);
	if (rc)
		shift_fail(s, &err);
	pthread_mutex_lock(&s->lock);
	if (--s->working == 0)
		pthread_cond_signal(&s->ended);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void report(struct crew *crew)
{
	if (crew->progress && crew->progress->fn)
		crew->progress->fn(crew->progress->arg, crew->phase, atomic_load(&crew->done),
				   crew->total);
}

static void wait_for_all(struct shift *s)
{
	pthread_mutex_lock(&s->lock);
	while (s->working) {
		uint64_t at = clock_now_ns() + REPORT_NS;
		struct timespec ts = {.tv_sec = (time_t)(at / NSEC_PER_SEC),
				      .tv_nsec = (long)(at % NSEC_PER_SEC)};

		if (pthread_cond_timedwait(&s->ended, &s->lock, &ts) == ETIMEDOUT) {
			pthread_mutex_unlock(&s->lock);
			report(s->crew);
			pthread_mutex_lock(&s->lock);
		}
	}
	pthread_mutex_unlock(&s->lock);
}

static unsigned thread_count(const struct crew *crew)
{
	unsigned n = crew->threads;

	if (!n) {
		long cpus = sysconf(_SC_NPROCESSORS_ONLN);

		n = cpus > 0 ? (unsigned)cpus : 1;
	}
	if (n > crew->jobs)
		n = (unsigned)crew->jobs;
	return n < CREW_THREADS_MAX ? n : CREW_THREADS_MAX;
}

int crew_run(struct crew *crew, struct err *err)
{
	struct shift s = {.crew = crew, .lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_t threads[CREW_THREADS_MAX];
	unsigned n = thread_count(crew), started;
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s.ended, &attr);
	pthread_condattr_destroy(&attr);
	s.working = n;
	report(crew); /* the phase begins now */
	for (started = 0; started < n; started++) {
		int rc = pthread_create(&threads[started], NULL, hand_main, &s);

		if (rc) {
			struct err e = {0};

			err_set(&e, -rc, "can't start a thread: %s", strerror(rc));
			shift_fail(&s, &e);
			pthread_mutex_lock(&s.lock);
			s.working -= n - started;
			pthread_mutex_unlock(&s.lock);
			break;
		}
	}
	wait_for_all(&s);
	for (unsigned i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	pthread_cond_destroy(&s.ended);
	pthread_mutex_destroy(&s.lock);
	if (s.err.code) {
		if (err)
			*err = s.err;
		return s.err.code;
	}
	report(crew);
	return 0;
}
