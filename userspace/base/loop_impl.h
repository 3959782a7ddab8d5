/* SPDX-License-Identifier: Apache-2.0 */
/* Between loop.c, which owns timers, posts, hooks and the order of a turn, and the two mechanisms
 * that wait for descriptors and read files. Nobody else includes this.
 *
 * A turn: before-hooks, wait, after-hooks, ready watches, reads that are done, posts, timers.
 */
#ifndef BASE_LOOP_IMPL_H
#define BASE_LOOP_IMPL_H

#include <stdatomic.h>
#include <sys/epoll.h>

#include "base/loop.h"

#define LOOP_HOOKS_MAX 4
#define LOOP_FOREVER   UINT64_MAX

struct poll; /* io_uring's */

struct loop_watch {
	loop_watch_fn *fn;
	void *arg;
	struct poll *poll;	 /* io_uring's */
	struct loop_watch *next; /* epoll's, of dead ones */
	uint32_t events;
	int fd;
	bool dead; /* epoll's: unwatched, but an event at hand may name it */
};

struct loop_mechanism {
	const char *name;
	int (*open)(struct loop *l, struct err *err);
	void (*close)(struct loop *l);
	int (*watch)(struct loop *l, struct loop_watch *w); /* 0 or a negative errno */
	void (*rewatch)(struct loop *l, struct loop_watch *w);
	void (*unwatch)(struct loop *l, struct loop_watch *w); /* takes @w */
	void (*pread)(struct loop *l, struct loop_read *r);
	/* Wait until something is ready, at most @timeout_ns; then dispatch() calls the watches. */
	void (*wait)(struct loop *l, uint64_t timeout_ns);
	void (*dispatch)(struct loop *l);
};

extern const struct loop_mechanism loop_epoll;
extern const struct loop_mechanism loop_uring;

struct loop_hook {
	void (*before)(void *arg);
	void (*after)(void *arg);
	void *arg;
};

struct loop {
	const struct loop_mechanism *mech;
	void *state; /* the mechanism's */
	struct loop_hook hooks[LOOP_HOOKS_MAX];
	uint32_t hook_count;
	uint32_t watch_count;

	struct loop_timer **timers; /* a binary heap, the earliest first */
	uint32_t timer_count;
	uint32_t timer_room;

	/* An eventfd that is never read: the mechanisms watch it edge-triggered, so that a wake-up
	 * costs the loop no system call of its own. */
	int wake_fd;

	/* Written by other threads: kept off the lines above. Both are stacks, taken whole. */
	_Alignas(64) _Atomic(struct loop_post *) posts;
	_Atomic(struct loop_read *) reads_done;
	atomic_bool asleep;
	atomic_bool stop;
	_Atomic uint32_t posters; /* threads inside loop_post() and loop_stop() */
};

/* Hand a finished read to its loop. Any thread. */
void loop_read_finish(struct loop *l, struct loop_read *r, int res);

#endif
