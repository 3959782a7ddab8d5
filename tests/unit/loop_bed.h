/* SPDX-License-Identifier: Apache-2.0 */
/* What the loop's tests share: a loop with a connected pair of sockets, set up for each mechanism.
 */
#ifndef TESTS_LOOP_BED_H
#define TESTS_LOOP_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"

#define MANY 3000 /* more than a completion queue and a batch hold */

struct bed {
	struct loop *l;
	enum loop_kind kind;
	int sp[2]; /* a connected pair: sp[0] is watched, sp[1] is the other side */
	struct loop_watch *w;
	int calls;
	uint32_t seen; /* all events given so far */
};

static inline int bed_setup(void **state, enum loop_kind kind)
{
	struct bed *bed = calloc(1, sizeof(*bed));
	struct err err = {0};

	bed->kind = kind;
	bed->l = loop_new(kind, &err);
	if (!bed->l)
		print_message("skipped: %s\n", err.text);
	*state = bed;
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, bed->sp);
}

static inline int setup_epoll(void **state)
{
	return bed_setup(state, LOOP_EPOLL);
}

static inline int setup_uring(void **state)
{
	return bed_setup(state, LOOP_URING);
}

static inline int teardown(void **state)
{
	struct bed *bed = *state;

	if (bed->l)
		loop_unwatch(bed->l, bed->w);
	loop_free(bed->l);
	close(bed->sp[0]);
	close(bed->sp[1]);
	free(bed);
	return 0;
}

static inline struct bed *bed_of(void **state)
{
	struct bed *bed = *state;

	if (!bed->l)
		skip();
	return bed;
}

/* One byte to the watched side. */
static inline void poke(struct bed *bed)
{
	assert_int_equal(write(bed->sp[1], "x", 1), 1);
}

static inline void drain(struct bed *bed)
{
	char buf[64];

	while (read(bed->sp[0], buf, sizeof(buf)) > 0)
		;
}

static inline void on_count(void *arg, uint32_t events)
{
	struct bed *bed = arg;

	bed->calls++;
	bed->seen |= events;
}

static inline void on_drain(void *arg, uint32_t events)
{
	on_count(arg, events);
	drain(arg);
}

static inline void watch(struct bed *bed, uint32_t events, loop_watch_fn *fn)
{
	bed->w = loop_watch(bed->l, bed->sp[0], events, fn, bed);
	assert_non_null(bed->w);
}

static inline void turns(struct bed *bed, int n)
{
	while (n-- > 0)
		loop_run_once(bed->l, 10);
}

/* Turns until @counter is @want, for at most five seconds. */
static inline void turns_until(struct bed *bed, const int *counter, int want)
{
	uint64_t end = clock_now_ns() + 5 * NSEC_PER_SEC;

	while (*counter < want && clock_now_ns() < end)
		loop_run_once(bed->l, 100);
	assert_int_equal(*counter, want);
}

/* Of five waits, since one may end early: the exit of an earlier test's ring interrupts the thread
 * for a while (-EINTR without a signal). */
static inline uint64_t longest_wait(struct bed *bed, int timeout_ms)
{
	uint64_t longest = 0;

	for (int i = 0; i < 5; i++) {
		uint64_t t0 = clock_now_ns(), ns;

		loop_run_once(bed->l, timeout_ms);
		ns = clock_now_ns() - t0;
		longest = ns > longest ? ns : longest;
	}
	return longest;
}

/* Both mechanisms must pass every test; io_uring's skip where it is refused. */
#define BOTH(test)                                                                                 \
	{#test " (epoll)", test, setup_epoll, teardown, NULL},                                     \
	{                                                                                          \
#test " (io_uring)", test, setup_uring, teardown, NULL                             \
	}

static inline void allow_many_descriptors(void)
{
	struct rlimit lim;

	getrlimit(RLIMIT_NOFILE, &lim);
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
}

/* A lost wake-up must fail, not hang. */
static inline void bed_alarm(void)
{
	alarm(120);
}

#endif
