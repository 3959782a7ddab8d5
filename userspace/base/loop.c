/* SPDX-License-Identifier: Apache-2.0 */
/* What both mechanisms share: the order of a turn, timers, posts and waking a sleeping loop.
 *
 * A post must never be lost between the loop's last look at the queue and its sleep. The loop sets
 * `asleep`, then looks at the queue; a poster pushes, then looks at `asleep`. Both are sequentially
 * consistent, so at least one of them sees the other, and only the poster that clears `asleep` pays
 * for the write to the eventfd.
 *
 * A post may run, and end the loop with all it stands on, while its poster still looks at `asleep`.
 * So a poster counts itself in before it pushes and out when it touches the loop no more, and
 * loop_free() waits for the count to be zero: some instructions and at most one write.
 */
#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/loop_impl.h"

static enum loop_kind kind_of_environment(void)
{
	const char *s = getenv("CAIRN_LOOP");

	if (!s || !*s || strcmp(s, "auto") == 0)
		return LOOP_AUTO;
	if (strcmp(s, "epoll") == 0)
		return LOOP_EPOLL;
	if (strcmp(s, "uring") == 0 || strcmp(s, "io_uring") == 0)
		return LOOP_URING;
	log_warn("loop", "CAIRN_LOOP is neither epoll nor uring; ignored", "value=%s", s);
	return LOOP_AUTO;
}

static int open_with(struct loop *l, const struct loop_mechanism *mech, struct err *err)
{
	l->mech = mech;
	return mech->open(l, err);
}

/* A daemon opens a dozen loops: it says once why none of them has a ring. */
static int open_ring_or_epoll(struct loop *l, struct err *err)
{
	static atomic_bool said;
	struct err why;

	if (open_with(l, &loop_uring, &why) == 0)
		return 0;
	if (!atomic_exchange(&said, true))
		log_info("loop", "no io_uring here, using epoll", "reason=\"%s\"", why.text);
	return open_with(l, &loop_epoll, err);
}

static int open_mechanism(struct loop *l, enum loop_kind kind, struct err *err)
{
	if (kind == LOOP_AUTO)
		kind = kind_of_environment();
	switch (kind) {
	case LOOP_URING:
		return open_with(l, &loop_uring, err);
	case LOOP_EPOLL:
		return open_with(l, &loop_epoll, err);
	default:
		return open_ring_or_epoll(l, err);
	}
}

struct loop *loop_new(enum loop_kind kind, struct err *err)
{
	struct loop *l = aligned_alloc(64, (sizeof(*l) + 63) / 64 * 64);

	if (!l) {
		err_set(err, -ENOMEM, "no memory for an event loop");
		return NULL;
	}
	memset(l, 0, sizeof(*l));
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->wake_fd < 0) {
		err_set(err, -errno, "cannot make an eventfd: %s", strerror(errno));
		goto out;
	}
	if (open_mechanism(l, kind, err) == 0)
		return l;
	close(l->wake_fd);
out:
	free(l);
	return NULL;
}

static void wait_for_posters(struct loop *l)
{
	while (atomic_load_explicit(&l->posters, memory_order_acquire) > 0)
		sched_yield();
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	assert(l->watch_count == 0 && l->timer_count == 0);
	wait_for_posters(l);
	l->mech->close(l);
	close(l->wake_fd);
	free(l->timers);
	free(l);
}

const char *loop_kind_name(struct loop *l)
{
	return l->mech->name;
}

/* Watches. */

struct loop_watch *loop_watch(struct loop *l, int fd, uint32_t events, loop_watch_fn *fn, void *arg)
{
	struct loop_watch *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return NULL;
	w->fd = fd;
	w->events = events;
	w->fn = fn;
	w->arg = arg;
	rc = l->mech->watch(l, w);
	if (rc < 0) {
		free(w);
		errno = -rc;
		return NULL;
	}
	l->watch_count++;
	return w;
}

void loop_rewatch(struct loop *l, struct loop_watch *w, uint32_t events)
{
	if (w->events == events)
		return;
	w->events = events;
	l->mech->rewatch(l, w);
}

void loop_unwatch(struct loop *l, struct loop_watch *w)
{
	if (!w)
		return;
	l->watch_count--;
	l->mech->unwatch(l, w);
}

/* Timers: slot i of the heap is named i + 1 in its timer, so that 0 means "not armed". */

static void timer_put(struct loop *l, uint32_t i, struct loop_timer *t)
{
	l->timers[i] = t;
	t->slot = i + 1;
}

static void timer_sift_up(struct loop *l, uint32_t i, struct loop_timer *t)
{
	for (; i > 0; i = (i - 1) / 2) {
		struct loop_timer *parent = l->timers[(i - 1) / 2];

		if (parent->at_ns <= t->at_ns)
			break;
		timer_put(l, i, parent);
	}
	timer_put(l, i, t);
}

static void timer_sift_down(struct loop *l, uint32_t i, struct loop_timer *t)
{
	for (;;) {
		uint32_t child = 2 * i + 1;

		if (child + 1 < l->timer_count &&
		    l->timers[child + 1]->at_ns < l->timers[child]->at_ns)
			child++;
		if (child >= l->timer_count || t->at_ns <= l->timers[child]->at_ns)
			break;
		timer_put(l, i, l->timers[child]);
		i = child;
	}
	timer_put(l, i, t);
}

static void timer_place(struct loop *l, uint32_t i, struct loop_timer *t)
{
	if (i > 0 && t->at_ns < l->timers[(i - 1) / 2]->at_ns)
		timer_sift_up(l, i, t);
	else
		timer_sift_down(l, i, t);
}

/* A timer can't be refused: its owner would wait for ever. */
static void timers_grow(struct loop *l)
{
	l->timer_room = l->timer_room ? 2 * l->timer_room : 64;
	l->timers = realloc(l->timers, l->timer_room * sizeof(struct loop_timer *));
	if (!l->timers) {
		log_error("loop", "no memory for timers", "count=%u", l->timer_room);
		abort();
	}
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns)
{
	t->at_ns = at_ns;
	if (t->slot == 0) {
		if (l->timer_count == l->timer_room)
			timers_grow(l);
		timer_sift_up(l, l->timer_count++, t);
	} else {
		timer_place(l, t->slot - 1, t);
	}
}

void loop_timer_cancel(struct loop *l, struct loop_timer *t)
{
	uint32_t i = t->slot - 1;
	struct loop_timer *last;

	if (t->slot == 0)
		return;
	t->slot = 0;
	last = l->timers[--l->timer_count];
	if (last != t)
		timer_place(l, i, last);
}

/* At most as many as there are now: a timer that sets itself to the past can't hold the turn. */
static void run_timers(struct loop *l)
{
	uint64_t now;

	if (l->timer_count == 0)
		return;
	now = clock_now_ns();
	for (uint32_t n = l->timer_count; n > 0 && l->timer_count > 0; n--) {
		struct loop_timer *t = l->timers[0];

		if (t->at_ns > now)
			return;
		loop_timer_cancel(l, t);
		t->fn(t);
	}
}

/* Posts and finished reads. */

static void wake_write(struct loop *l)
{
	uint64_t one = 1;

	/* Refused only when 2^64 - 2 wake-ups are unread, and then the loop is awake anyway. */
	if (write(l->wake_fd, &one, sizeof(one)) < 0)
		return;
}

static void wake_if_asleep(struct loop *l)
{
	if (atomic_load(&l->asleep) && atomic_exchange(&l->asleep, false))
		wake_write(l);
}

static void poster_enters(struct loop *l)
{
	atomic_fetch_add_explicit(&l->posters, 1, memory_order_relaxed); /* the push orders it */
}

static void poster_leaves(struct loop *l)
{
	atomic_fetch_sub_explicit(&l->posters, 1, memory_order_release);
}

void loop_post(struct loop *l, struct loop_post *p)
{
	poster_enters(l);
	p->next = atomic_load_explicit(&l->posts, memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&l->posts, &p->next, p))
		;
	wake_if_asleep(l);
	poster_leaves(l);
}

void loop_read_finish(struct loop *l, struct loop_read *r, int res)
{
	r->res = res;
	r->next = atomic_load_explicit(&l->reads_done, memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&l->reads_done, &r->next, r))
		;
	wake_if_asleep(l);
}

static void run_posts(struct loop *l)
{
	struct loop_post *p, *next, *first = NULL;

	if (!atomic_load_explicit(&l->posts, memory_order_relaxed))
		return;
	for (p = atomic_exchange(&l->posts, NULL); p; p = next) { /* newest first: turn round */
		next = p->next;
		p->next = first;
		first = p;
	}
	for (p = first; p; p = next) {
		next = p->next;
		p->fn(p);
	}
}

static void run_reads_done(struct loop *l)
{
	struct loop_read *r, *next;

	if (!atomic_load_explicit(&l->reads_done, memory_order_relaxed))
		return;
	for (r = atomic_exchange(&l->reads_done, NULL); r; r = next) {
		next = r->next;
		r->done(r, r->res);
	}
}

void loop_pread(struct loop *l, struct loop_read *r)
{
	l->mech->pread(l, r);
}

void loop_stop(struct loop *l)
{
	int saved = errno; /* a signal handler must leave it alone */

	poster_enters(l);
	atomic_store(&l->stop, true);
	wake_write(l);
	poster_leaves(l);
	errno = saved;
}

/* The turn. */

void loop_on_turn(struct loop *l, void (*before)(void *), void (*after)(void *), void *arg)
{
	assert(l->hook_count < LOOP_HOOKS_MAX);
	l->hooks[l->hook_count++] = (struct loop_hook){before, after, arg};
}

static void run_before(struct loop *l)
{
	for (uint32_t i = 0; i < l->hook_count; i++)
		if (l->hooks[i].before)
			l->hooks[i].before(l->hooks[i].arg);
}

static void run_after(struct loop *l)
{
	for (uint32_t i = 0; i < l->hook_count; i++)
		if (l->hooks[i].after)
			l->hooks[i].after(l->hooks[i].arg);
}

static bool has_work(struct loop *l)
{
	return atomic_load(&l->posts) || atomic_load(&l->reads_done) || atomic_load(&l->stop);
}

static uint64_t time_to_sleep(struct loop *l, uint64_t most_ns)
{
	uint64_t now, at;

	if (l->timer_count == 0)
		return most_ns;
	now = clock_now_ns();
	at = l->timers[0]->at_ns;
	if (at <= now)
		return 0;
	return at - now < most_ns ? at - now : most_ns;
}

static void sleep_or_poll(struct loop *l, uint64_t most_ns)
{
	uint64_t ns = has_work(l) ? 0 : time_to_sleep(l, most_ns);

	if (ns > 0) {
		atomic_store(&l->asleep, true);
		if (has_work(l))
			ns = 0;
	}
	l->mech->wait(l, ns);
	atomic_store_explicit(&l->asleep, false, memory_order_relaxed);
}

static void turn(struct loop *l, uint64_t most_ns)
{
	run_before(l);
	sleep_or_poll(l, most_ns);
	run_after(l);
	l->mech->dispatch(l);
	run_reads_done(l);
	run_posts(l);
	run_timers(l);
}

void loop_run(struct loop *l)
{
	while (!atomic_load_explicit(&l->stop, memory_order_acquire)) /* it shows posters too */
		turn(l, LOOP_FOREVER);
	atomic_store(&l->stop, false);
}

void loop_run_once(struct loop *l, int timeout_ms)
{
	turn(l, timeout_ms < 0 ? LOOP_FOREVER : (uint64_t)timeout_ms * NSEC_PER_MSEC);
	atomic_store(&l->stop, false);
}
