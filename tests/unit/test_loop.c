/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop, each test run on both mechanisms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/loop.h"

struct bed {
	struct loop *l;
	enum loop_kind kind;
	int sp[2]; /* a connected pair: sp[0] is watched, sp[1] is the other side */
	struct loop_watch *w;
	int calls;
	uint32_t seen; /* all events given so far */
};

static int bed_setup(void **state, enum loop_kind kind)
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

static int setup_epoll(void **state)
{
	return bed_setup(state, LOOP_EPOLL);
}

static int setup_uring(void **state)
{
	return bed_setup(state, LOOP_URING);
}

static int teardown(void **state)
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

static struct bed *bed_of(void **state)
{
	struct bed *bed = *state;

	if (!bed->l)
		skip();
	return bed;
}

/* One byte to the watched side. */
static void poke(struct bed *bed)
{
	assert_int_equal(write(bed->sp[1], "x", 1), 1);
}

static void drain(struct bed *bed)
{
	char buf[64];

	while (read(bed->sp[0], buf, sizeof(buf)) > 0)
		;
}

static void on_count(void *arg, uint32_t events)
{
	struct bed *bed = arg;

	bed->calls++;
	bed->seen |= events;
}

static void on_drain(void *arg, uint32_t events)
{
	on_count(arg, events);
	drain(arg);
}

static void watch(struct bed *bed, uint32_t events, loop_watch_fn *fn)
{
	bed->w = loop_watch(bed->l, bed->sp[0], events, fn, bed);
	assert_non_null(bed->w);
}

static void turns(struct bed *bed, int n)
{
	while (n-- > 0)
		loop_run_once(bed->l, 10);
}

/* Watches. */

static void watch_that_does_not_drain_is_called_again(void **state)
{
	struct bed *bed = bed_of(state);

	watch(bed, EPOLLIN, on_count);
	poke(bed);
	turns(bed, 5);
	assert_true(bed->calls >= 3);
	assert_true(bed->seen & EPOLLIN);
}

static void watch_that_drains_is_called_once(void **state)
{
	struct bed *bed = bed_of(state);

	watch(bed, EPOLLIN, on_drain);
	poke(bed);
	turns(bed, 5);
	assert_int_equal(bed->calls, 1);
	poke(bed);
	turns(bed, 5);
	assert_int_equal(bed->calls, 2);
}

/* Posts. */

struct counted_post {
	struct loop_post post; /* first: cast */
	int *counter;
	int order;
};

static void on_post_in_order(struct loop_post *p)
{
	struct counted_post *c = (struct counted_post *)p;

	assert_int_equal((*c->counter)++, c->order);
}

static void posts_run_in_order_of_posting(void **state)
{
	struct bed *bed = bed_of(state);
	struct counted_post posts[50];
	int ran = 0;

	for (int i = 0; i < 50; i++) {
		posts[i] = (struct counted_post){{NULL, on_post_in_order}, &ran, i};
		loop_post(bed->l, &posts[i].post);
	}
	loop_run_once(bed->l, -1);
	assert_int_equal(ran, 50);
}

#define BOTH(test)                                                                                 \
	{#test " (epoll)", test, setup_epoll, teardown, NULL},                                     \
	{                                                                                          \
#test " (io_uring)", test, setup_uring, teardown, NULL                             \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(watch_that_does_not_drain_is_called_again),
		BOTH(watch_that_drains_is_called_once),
		BOTH(posts_run_in_order_of_posting),
	};

	alarm(120); /* a lost wake-up must fail, not hang */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
