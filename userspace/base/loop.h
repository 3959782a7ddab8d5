/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: readiness of descriptors, timers, posts from other threads, and file reads that
 * must not block the thread.
 *
 * One loop belongs to one thread, which alone may call anything here except loop_post() and
 * loop_stop(). It may be made by another thread than the one that runs it. Two mechanisms stand
 * behind it: io_uring (polls and reads on the ring), and epoll with a small pool of reading
 * threads, for kernels and container runtimes without a ring.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct loop;
struct loop_watch;

enum loop_kind {
	LOOP_AUTO,  /* io_uring where it works, else epoll; $CAIRN_LOOP=epoll|uring overrides */
	LOOP_URING, /* io_uring or an error */
	LOOP_EPOLL,
};

/* @events are EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR, EPOLLRDHUP. Level-triggered in both kinds:
 * called again while the condition holds. */
typedef void loop_watch_fn(void *arg, uint32_t events);

struct loop *loop_new(enum loop_kind kind, struct err *err);
/* Watches, timers and reads must be gone. A thread whose post has run, or whose stop was heeded,
 * may still be inside that call: this waits for it. */
void loop_free(struct loop *l);
const char *loop_kind_name(struct loop *l); /* "io_uring" or "epoll" */

/* Until loop_stop(), also one that came before. loop_run_once: one wait (-1: for ever) and its
 * callbacks; it may return early. */
void loop_run(struct loop *l);
void loop_run_once(struct loop *l, int timeout_ms);
void loop_stop(struct loop *l); /* any thread, and signal-safe */

/* Watch @fd for @events (EPOLLIN|EPOLLOUT, 0 = errors only). NULL with errno when refused. The fd
 * stays the caller's; unwatch before closing it. One watch a descriptor. Unwatching inside any
 * callback is allowed, and no callback of that watch runs afterwards; the kernel may keep the file
 * open until the turn ends, so shut a socket down when its peer must know at once. */
struct loop_watch *loop_watch(struct loop *l, int fd, uint32_t events, loop_watch_fn *fn,
			      void *arg);
void loop_rewatch(struct loop *l, struct loop_watch *w, uint32_t events);
void loop_unwatch(struct loop *l, struct loop_watch *w);

/* A timer embedded in its owner; zero it before first use. CLOCK_MONOTONIC, fires once. Setting an
 * armed timer moves it. */
struct loop_timer {
	void (*fn)(struct loop_timer *t);
	uint64_t at_ns;
	uint32_t slot; /* heap place + 1; 0 = not armed */
};
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns);
void loop_timer_cancel(struct loop *l, struct loop_timer *t);

/* Run p->fn(p) on the loop's thread, in order of posting. Any thread; lock-free but for a wake-up
 * when the loop sleeps. @p belongs to the loop until fn is called. */
struct loop_post {
	struct loop_post *next;
	void (*fn)(struct loop_post *p);
};
void loop_post(struct loop *l, struct loop_post *p);

/* Read [off, off + len) of @fd into @buf without blocking the loop; done() gets the bytes read
 * (fewer only at end of file) or a negative errno. Never called from inside loop_pread(). */
struct loop_read {
	void (*done)(struct loop_read *r, int res);
	void *buf;
	uint64_t off;
	uint32_t len;
	int fd;
	struct loop_read *next; /* the loop's */
	int res;		/* the loop's */
};
void loop_pread(struct loop *l, struct loop_read *r);

/* Called on the loop's thread around its sleep: before(arg) when all ready callbacks of a turn ran,
 * after(arg) when it woke. Data threads flush replies and mark a quiescent state here. Each call
 * adds a pair, at most four. */
void loop_on_turn(struct loop *l, void (*before)(void *), void (*after)(void *), void *arg);

#endif
