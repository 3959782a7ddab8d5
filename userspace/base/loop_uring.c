/* SPDX-License-Identifier: Apache-2.0 */
/* The loop on io_uring: polls, their removal, and reads.
 *
 * A poll that is in the ring has a `struct poll`, whose address is its user_data. A watch has one
 * poll at a time. A poll whose watch went away or changed its events is an orphan: it is removed
 * from the ring and recycled once both it and its removal have completed, so that a late completion
 * never names memory that means something else by then.
 *
 * Level-triggered: a poll that includes EPOLLIN is one-shot and armed again after its callback;
 * arming looks at the descriptor, so what was not drained is seen in the same system call that
 * waits. Without EPOLLIN that would spin: the kernel adds EPOLLRDHUP to every poll, and a peer that
 * has shut down its side would end each one at once. Those polls are multishot, which report a
 * change only, and are replaced after a callback.
 *
 * SQEs are made just before the wait, from lists: one enter a turn, and a watch that comes and goes
 * within a turn costs none.
 */
#include "base/loop_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/ring.h"

#define SQ_ENTRIES    256
#define CQ_ENTRIES    1024
#define CQES_A_TURN   256
#define POLLS_A_CHUNK 64

/* The low bits of user_data; NULL is the poll of the wake-up eventfd. */
enum tag { TAG_POLL, TAG_REMOVE, TAG_READ, TAG_MASK = 7 };

struct poll {
	struct loop_watch *w; /* NULL: an orphan */
	struct poll *next;    /* in `changed` or `spare` */
	uint32_t events;      /* asked of the kernel when armed */
	bool changed;	      /* on the list */
	bool armed;	      /* in the ring; its last completion is to come */
	bool removing;	      /* its removal is in the ring */
};

struct poll_chunk {
	struct poll_chunk *next;
	struct poll polls[POLLS_A_CHUNK];
};

struct uring_state {
	struct io_uring ring;
	bool enabled;
	bool wake_armed;
	bool backlog; /* the ring took not all SQEs: don't sleep */
	unsigned ready;
	uint32_t in_ring; /* polls and removals */
	struct poll *changed;
	struct poll *spare;
	struct poll_chunk *chunks;
	struct loop_read *reads, **reads_last;
	struct io_uring_cqe *cqes[CQES_A_TURN];
};

/* Polls. */

static void poll_recycle(struct uring_state *s, struct poll *p)
{
	p->next = s->spare;
	s->spare = p;
}

/* Like a timer, a poll can't be refused: its watch would be deaf. */
static void polls_grow(struct uring_state *s)
{
	struct poll_chunk *c = calloc(1, sizeof(*c));

	if (!c) {
		log_error("loop", "no memory for polls", "count=%d", POLLS_A_CHUNK);
		abort();
	}
	c->next = s->chunks;
	s->chunks = c;
	for (int i = 0; i < POLLS_A_CHUNK; i++)
		poll_recycle(s, &c->polls[i]);
}

static void poll_changed(struct uring_state *s, struct poll *p)
{
	if (p->changed)
		return;
	p->changed = true;
	p->next = s->changed;
	s->changed = p;
}

static void poll_give(struct uring_state *s, struct loop_watch *w)
{
	struct poll *p;

	if (!s->spare)
		polls_grow(s);
	p = s->spare;
	s->spare = p->next;
	*p = (struct poll){.w = w};
	w->poll = p;
	poll_changed(s, p);
}

static void poll_orphan(struct uring_state *s, struct loop_watch *w)
{
	w->poll->w = NULL;
	poll_changed(s, w->poll);
	w->poll = NULL;
}

/* SQEs. */

/* NULL when the kernel takes no more before completions are reaped. */
static struct io_uring_sqe *sqe_get(struct uring_state *s)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);

	if (!sqe && io_uring_submit(&s->ring) > 0)
		sqe = io_uring_get_sqe(&s->ring);
	return sqe;
}

static void sqe_name(struct io_uring_sqe *sqe, void *what, enum tag tag)
{
	io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)what | tag);
}

static bool poll_arm(struct uring_state *s, struct poll *p)
{
	struct io_uring_sqe *sqe = sqe_get(s);

	if (!sqe)
		return false;
	p->events = p->w->events;
	if (p->events & (EPOLLIN | EPOLLRDHUP))
		io_uring_prep_poll_add(sqe, p->w->fd, p->events);
	else
		io_uring_prep_poll_multishot(sqe, p->w->fd, p->events);
	sqe_name(sqe, p, TAG_POLL);
	p->armed = true;
	s->in_ring++;
	return true;
}

static bool poll_remove(struct uring_state *s, struct poll *p)
{
	struct io_uring_sqe *sqe = sqe_get(s);

	if (!sqe)
		return false;
	io_uring_prep_poll_remove(sqe, (uint64_t)(uintptr_t)p);
	sqe_name(sqe, p, TAG_REMOVE);
	p->removing = true;
	s->in_ring++;
	return true;
}

/* Bring the ring to what the watch wants; false when it takes no more now. A removal that came too
 * late or too early (-EALREADY, -ENOENT) leaves the poll armed, and this asks again. */
static bool poll_settle(struct uring_state *s, struct poll *p)
{
	if (p->w)
		return p->armed || poll_arm(s, p);
	if (p->removing)
		return true; /* listed again when the removal completes */
	if (p->armed)
		return poll_remove(s, p);
	poll_recycle(s, p);
	return true;
}

static bool settle_polls(struct uring_state *s)
{
	struct poll *p = s->changed, *next;

	for (s->changed = NULL; p; p = next) {
		next = p->next;
		p->changed = false;
		if (!poll_settle(s, p)) {
			p->changed = true; /* put the rest back */
			s->changed = p;
			return false;
		}
	}
	return true;
}

static bool arm_wake(struct loop *l, struct uring_state *s)
{
	struct io_uring_sqe *sqe;

	if (s->wake_armed)
		return true;
	sqe = sqe_get(s);
	if (!sqe)
		return false;
	io_uring_prep_poll_multishot(sqe, l->wake_fd, EPOLLIN);
	sqe_name(sqe, NULL, TAG_POLL);
	s->wake_armed = true;
	return true;
}

static bool submit_reads(struct uring_state *s)
{
	while (s->reads) {
		struct loop_read *r = s->reads;
		struct io_uring_sqe *sqe = sqe_get(s);
		uint32_t got = (uint32_t)r->res;

		if (!sqe)
			return false;
		io_uring_prep_read(sqe, r->fd, (char *)r->buf + got, r->len - got, r->off + got);
		sqe_name(sqe, r, TAG_READ);
		s->reads = r->next;
	}
	s->reads_last = &s->reads;
	return true;
}

/* Reads: r->res counts the bytes that are there. */

static void read_queue(struct uring_state *s, struct loop_read *r)
{
	r->next = NULL;
	*s->reads_last = r;
	s->reads_last = &r->next;
}

static void uring_pread(struct loop *l, struct loop_read *r)
{
	r->res = 0;
	read_queue(l->state, r);
}

static void read_completed(struct uring_state *s, struct loop_read *r, int res)
{
	if (res == -EINTR || res == -EAGAIN) {
		read_queue(s, r);
	} else if (res < 0) {
		r->done(r, res);
	} else {
		r->res += res;
		if (res == 0 || (uint32_t)r->res == r->len)
			r->done(r, r->res);
		else
			read_queue(s, r);
	}
}

/* Watches. */

static int uring_watch(struct loop *l, struct loop_watch *w)
{
	if (fcntl(w->fd, F_GETFD) < 0)
		return -errno;
	poll_give(l->state, w);
	return 0;
}

static void uring_rewatch(struct loop *l, struct loop_watch *w)
{
	struct uring_state *s = l->state;

	if (w->poll->armed) {
		poll_orphan(s, w);
		poll_give(s, w);
	} else {
		poll_changed(s, w->poll);
	}
}

/* Completions name polls, never watches, so the watch can go at once. */
static void uring_unwatch(struct loop *l, struct loop_watch *w)
{
	poll_orphan(l->state, w);
	free(w);
}

/* The kernel's answer as the watch asked for it; an fd that can't be polled is an error on it. */
static uint32_t events_wanted(const struct poll *p, int res)
{
	if (res == -ECANCELED)
		return 0;
	if (res < 0)
		return EPOLLERR;
	return (uint32_t)res & (p->events | EPOLLERR | EPOLLHUP);
}

static void poll_completed(struct loop *l, struct poll *p, int res, bool last)
{
	struct uring_state *s = l->state;
	uint32_t events;

	if (last) {
		p->armed = false;
		s->in_ring--;
	}
	events = p->w ? events_wanted(p, res) : 0;
	if (events)
		p->w->fn(p->w->arg, events);
	if (!p->w) {
		poll_changed(s, p);
	} else if (!p->armed) {
		if (res >= 0 || res == -ECANCELED)
			poll_changed(s, p);
	} else if (events) {
		struct loop_watch *w = p->w;

		poll_orphan(s, w);
		poll_give(s, w);
	}
}

static void removal_completed(struct uring_state *s, struct poll *p)
{
	p->removing = false;
	s->in_ring--;
	poll_changed(s, p);
}

static void complete(struct loop *l, const struct io_uring_cqe *cqe)
{
	struct uring_state *s = l->state;
	bool last = !(cqe->flags & IORING_CQE_F_MORE);
	void *what = (void *)(uintptr_t)(cqe->user_data & ~(uint64_t)TAG_MASK);

	switch (cqe->user_data & TAG_MASK) {
	case TAG_READ:
		read_completed(s, what, cqe->res);
		break;
	case TAG_REMOVE:
		removal_completed(s, what);
		break;
	default:
		if (what)
			poll_completed(l, what, cqe->res, last);
		else if (last)
			s->wake_armed = false;
	}
}

static void uring_dispatch(struct loop *l)
{
	struct uring_state *s = l->state;

	for (unsigned i = 0; i < s->ready; i++)
		complete(l, s->cqes[i]);
	io_uring_cq_advance(&s->ring, s->ready);
	s->ready = 0;
}

/* The wait. */

/* The first turn enables the ring: its thread becomes the single issuer, and that need not be the
 * thread that made the loop. */
static void enable_once(struct uring_state *s)
{
	int rc;

	if (s->enabled)
		return;
	s->enabled = true;
	rc = ring_enable(&s->ring);
	if (rc < 0) { /* ring_open() saw it allowed */
		log_error("loop", "cannot enable the ring", "error=\"%s\"", strerror(-rc));
		abort();
	}
}

static void enter(struct uring_state *s, uint64_t ns)
{
	struct __kernel_timespec ts;
	struct io_uring_cqe *first;

	if (ns == 0) {
		io_uring_submit_and_get_events(&s->ring);
	} else if (ns == LOOP_FOREVER) {
		io_uring_submit_and_wait(&s->ring, 1);
	} else {
		ts.tv_sec = (int64_t)(ns / NSEC_PER_SEC);
		ts.tv_nsec = (long long)(ns % NSEC_PER_SEC);
		io_uring_submit_and_wait_timeout(&s->ring, &first, 1, &ts, NULL);
	}
}

/* Every result of enter() but completions is ignored: -ETIME, -EINTR, and -EBUSY while completions
 * overflow, which the peek reaps. SQEs that were not taken stay in the queue for the next one. */
static void uring_wait(struct loop *l, uint64_t ns)
{
	struct uring_state *s = l->state;

	enable_once(s);
	s->backlog = !(arm_wake(l, s) && settle_polls(s) && submit_reads(s));
	enter(s, s->backlog ? 0 : ns);
	s->ready = io_uring_peek_batch_cqe(&s->ring, s->cqes, CQES_A_TURN);
}

/* Opening and closing. */

static int uring_open(struct loop *l, struct err *err)
{
	struct uring_state *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "no memory for an event loop");
	rc = ring_open(&s->ring, SQ_ENTRIES, CQ_ENTRIES, err);
	if (rc < 0) {
		free(s);
		return rc;
	}
	s->reads_last = &s->reads;
	l->state = s;
	return 0;
}

/* A poll holds its file open: wait for the removals, so that what the caller closed is closed. The
 * ring of another thread refuses (-EEXIST), and the kernel does the same a moment after the exit.
 */
static void drain(struct loop *l)
{
	struct uring_state *s = l->state;

	for (int tries = 0; s->enabled && tries < 1000; tries++) {
		if (settle_polls(s) && s->in_ring == 0)
			return;
		if (io_uring_submit_and_wait(&s->ring, 1) < 0)
			return;
		s->ready = io_uring_peek_batch_cqe(&s->ring, s->cqes, CQES_A_TURN);
		uring_dispatch(l);
	}
}

static void uring_close(struct loop *l)
{
	struct uring_state *s = l->state;

	drain(l);
	io_uring_queue_exit(&s->ring);
	while (s->chunks) {
		struct poll_chunk *c = s->chunks;

		s->chunks = c->next;
		free(c);
	}
	free(s);
}

const struct loop_mechanism loop_uring = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.watch = uring_watch,
	.rewatch = uring_rewatch,
	.unwatch = uring_unwatch,
	.pread = uring_pread,
	.wait = uring_wait,
	.dispatch = uring_dispatch,
};
