/* SPDX-License-Identifier: Apache-2.0 */
/* The loop on epoll, with a few threads for reads that would block. Needs nothing that a container
 * runtime forbids. The threads start when the first read has to wait for a disk.
 */
#include "base/loop_impl.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"

#define EVENTS_A_TURN 128
#define READERS_MAX   4

struct readers {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct loop_read *first, **last;
	pthread_t threads[READERS_MAX];
	uint32_t count, idle;
	bool closing;
};

struct epoll_state {
	struct loop *loop;
	int epoll_fd;
	bool no_pwait2; /* below 5.11, or a seccomp filter that predates it */
	int ready;
	struct loop_watch *dead;
	struct readers readers;
	struct epoll_event events[EVENTS_A_TURN];
};

/* The reading threads. */

static int read_whole(struct loop_read *r)
{
	size_t got = 0;

	while (got < r->len) {
		ssize_t n = pread(r->fd, (char *)r->buf + got, r->len - got, (off_t)(r->off + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (int)got;
}

/* The next read, or NULL when the loop closes. Called with the lock held. */
static struct loop_read *reader_wait(struct readers *p)
{
	struct loop_read *r;

	p->idle++;
	while (!p->first && !p->closing)
		pthread_cond_wait(&p->work, &p->lock);
	p->idle--;
	r = p->first;
	if (r) {
		p->first = r->next;
		if (!p->first)
			p->last = &p->first;
	}
	return r;
}

static void *reader_main(void *arg)
{
	struct epoll_state *s = arg;
	struct loop_read *r;

	pthread_mutex_lock(&s->readers.lock);
	while ((r = reader_wait(&s->readers))) {
		pthread_mutex_unlock(&s->readers.lock);
		loop_read_finish(s->loop, r, read_whole(r));
		pthread_mutex_lock(&s->readers.lock);
	}
	pthread_mutex_unlock(&s->readers.lock);
	return NULL;
}

/* Signals belong to the threads that the program made. */
static void reader_start(struct epoll_state *s)
{
	struct readers *p = &s->readers;
	sigset_t all, was;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	if (pthread_create(&p->threads[p->count], NULL, reader_main, s) == 0)
		p->count++;
	pthread_sigmask(SIG_SETMASK, &was, NULL);
}

static void readers_push(struct epoll_state *s, struct loop_read *r)
{
	struct readers *p = &s->readers;

	pthread_mutex_lock(&p->lock);
	r->next = NULL;
	*p->last = r;
	p->last = &r->next;
	if (p->idle == 0 && p->count < READERS_MAX)
		reader_start(s);
	if (p->count == 0) { /* not one thread to be had: block rather than wait for ever */
		p->first = NULL;
		p->last = &p->first;
		loop_read_finish(s->loop, r, read_whole(r));
	}
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}

static void readers_stop(struct readers *p)
{
	pthread_mutex_lock(&p->lock);
	p->closing = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (uint32_t i = 0; i < p->count; i++)
		pthread_join(p->threads[i], NULL);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
}

/* What is in the page cache costs no thread switch, as on a ring. */
static void epoll_pread(struct loop *l, struct loop_read *r)
{
	struct iovec v = {r->buf, r->len};

	if (preadv2(r->fd, &v, 1, (off_t)r->off, RWF_NOWAIT) == (ssize_t)r->len)
		loop_read_finish(l, r, (int)r->len);
	else
		readers_push(l->state, r);
}

/* Watches. */

static int epoll_tell(struct epoll_state *s, int op, struct loop_watch *w)
{
	struct epoll_event ev = {.events = w->events, .data.ptr = w};

	return epoll_ctl(s->epoll_fd, op, w->fd, &ev) < 0 ? -errno : 0;
}

static int epoll_watch(struct loop *l, struct loop_watch *w)
{
	return epoll_tell(l->state, EPOLL_CTL_ADD, w);
}

static void epoll_rewatch(struct loop *l, struct loop_watch *w)
{
	epoll_tell(l->state, EPOLL_CTL_MOD, w);
}

/* An event of @w may be in the batch at hand, so it is freed after the next dispatch. */
static void epoll_unwatch(struct loop *l, struct loop_watch *w)
{
	struct epoll_state *s = l->state;

	epoll_tell(s, EPOLL_CTL_DEL, w);
	w->dead = true;
	w->next = s->dead;
	s->dead = w;
}

static void free_dead(struct epoll_state *s)
{
	while (s->dead) {
		struct loop_watch *w = s->dead;

		s->dead = w->next;
		free(w);
	}
}

static int wait_ms(struct epoll_state *s, uint64_t ns)
{
	uint64_t ms = (ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;

	if (ns == LOOP_FOREVER)
		return epoll_wait(s->epoll_fd, s->events, EVENTS_A_TURN, -1);
	return epoll_wait(s->epoll_fd, s->events, EVENTS_A_TURN,
			  ms < INT32_MAX ? (int)ms : INT32_MAX);
}

static int wait_ns(struct epoll_state *s, uint64_t ns)
{
	struct timespec ts = {(time_t)(ns / NSEC_PER_SEC), (long)(ns % NSEC_PER_SEC)};

	return epoll_pwait2(s->epoll_fd, s->events, EVENTS_A_TURN, &ts, NULL);
}

static void epoll_wait_turn(struct loop *l, uint64_t ns)
{
	struct epoll_state *s = l->state;
	bool coarse = ns == 0 || ns == LOOP_FOREVER || s->no_pwait2;

	s->ready = coarse ? wait_ms(s, ns) : wait_ns(s, ns);
	if (s->ready < 0 && !coarse && (errno == ENOSYS || errno == EPERM)) {
		s->no_pwait2 = true;
		s->ready = wait_ms(s, ns);
	}
}

static void epoll_dispatch(struct loop *l)
{
	struct epoll_state *s = l->state;

	for (int i = 0; i < s->ready; i++) {
		struct loop_watch *w = s->events[i].data.ptr;

		if (w && !w->dead)
			w->fn(w->arg, s->events[i].events);
	}
	free_dead(s);
}

static void epoll_close(struct loop *l)
{
	struct epoll_state *s = l->state;

	readers_stop(&s->readers);
	free_dead(s);
	close(s->epoll_fd);
	free(s);
}

static int epoll_open(struct loop *l, struct err *err)
{
	struct epoll_event wake = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
	struct epoll_state *s = calloc(1, sizeof(*s));

	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "no memory for an event loop");
	s->loop = l;
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll_fd < 0 || epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, l->wake_fd, &wake) < 0) {
		rc = err_set(err, -errno, "cannot make an epoll descriptor: %s", strerror(errno));
		if (s->epoll_fd >= 0)
			close(s->epoll_fd);
		free(s);
		return rc;
	}
	pthread_mutex_init(&s->readers.lock, NULL);
	pthread_cond_init(&s->readers.work, NULL);
	s->readers.last = &s->readers.first;
	l->state = s;
	return 0;
}

const struct loop_mechanism loop_epoll = {
	.name = "epoll",
	.open = epoll_open,
	.close = epoll_close,
	.watch = epoll_watch,
	.rewatch = epoll_rewatch,
	.unwatch = epoll_unwatch,
	.pread = epoll_pread,
	.wait = epoll_wait_turn,
	.dispatch = epoll_dispatch,
};
