/* SPDX-License-Identifier: Apache-2.0 */
/* Posts from other threads, wake-ups and the end of a run. */
#include "loop_bed.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

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

struct chain { /* posts itself again from its own callback */
	struct loop_post post;
	struct loop *l;
	int left;
	int ran;
};

static void on_chain(struct loop_post *p)
{
	struct chain *c = (struct chain *)p;

	c->ran++;
	if (--c->left > 0)
		loop_post(c->l, p);
}

static void post_from_a_callback_runs_by_the_next_turn(void **state)
{
	struct bed *bed = bed_of(state);
	struct chain c = {{NULL, on_chain}, bed->l, 10, 0};

	loop_post(bed->l, &c.post);
	for (int i = 1; i <= 10; i++) {
		loop_run_once(bed->l, -1); /* hangs if the wake-up is lost */
		assert_true(c.ran >= i);
	}
}

static void before_posts(void *arg)
{
	struct chain *c = arg;

	if (c->left > 0)
		loop_post(c->l, &c->post);
}

static void post_from_a_hook_before_the_sleep_is_not_slept_over(void **state)
{
	struct bed *bed = bed_of(state);
	struct chain c = {{NULL, on_chain}, bed->l, 1, 0};

	loop_on_turn(bed->l, before_posts, NULL, &c);
	loop_run_once(bed->l, -1);
	assert_int_equal(c.ran, 1);
}

#define POSTERS	   4
#define POSTS_EACH 100000

struct poster {
	struct loop *l;
	struct counted_post *posts;
	pthread_t thread;
	int next; /* the order expected on the loop */
};

static void *poster_main(void *arg)
{
	struct poster *p = arg;

	for (int i = 0; i < POSTS_EACH; i++) {
		p->posts[i] = (struct counted_post){{NULL, on_post_in_order}, &p->next, i};
		loop_post(p->l, &p->posts[i].post);
		if (i % 1000 == 0)
			usleep(100); /* let the loop fall asleep */
	}
	return NULL;
}

static bool posters_done(const struct poster *p)
{
	for (int i = 0; i < POSTERS; i++)
		if (p[i].next < POSTS_EACH)
			return false;
	return true;
}

static void posts_of_four_threads_all_run_each_in_order(void **state)
{
	struct bed *bed = bed_of(state);
	struct poster p[POSTERS];

	for (int i = 0; i < POSTERS; i++) {
		p[i] = (struct poster){.l = bed->l};
		p[i].posts = malloc(POSTS_EACH * sizeof(*p[i].posts));
		pthread_create(&p[i].thread, NULL, poster_main, &p[i]);
	}
	while (!posters_done(p))
		loop_run_once(bed->l, -1); /* for ever: a lost wake-up ends in SIGALRM */
	for (int i = 0; i < POSTERS; i++) {
		pthread_join(p[i].thread, NULL);
		free(p[i].posts);
	}
}

/* Ping-pong with another loop sleeps and wakes at every step. */
struct pong {
	struct loop_post post;
	struct loop *here, *there;
	int left;
};

static void on_pong(struct loop_post *p)
{
	struct pong *g = (struct pong *)p;
	struct loop *next = g->there;

	if (g->left-- == 0) {
		loop_stop(g->here);
		loop_stop(g->there);
		return;
	}
	g->there = g->here;
	g->here = next;
	loop_post(next, p);
}

static void *run_main(void *arg)
{
	loop_run(arg);
	return NULL;
}

static void two_loops_wake_each_other_every_time(void **state)
{
	struct bed *bed = bed_of(state);
	struct loop *other = loop_new(bed->kind, NULL);
	struct pong g = {{NULL, on_pong}, bed->l, other, 20000};
	pthread_t t;

	pthread_create(&t, NULL, run_main, other);
	loop_post(bed->l, &g.post);
	loop_run(bed->l);
	pthread_join(t, NULL);
	loop_free(other);
}

/* Stopping. */

static struct loop *signalled;

static void on_signal(int sig)
{
	(void)sig;
	loop_stop(signalled);
}

static void *kill_main(void *arg)
{
	usleep(20000);
	pthread_kill(*(pthread_t *)arg, SIGUSR1);
	return NULL;
}

static void stop_in_a_signal_handler_ends_the_sleep(void **state)
{
	struct bed *bed = bed_of(state);
	pthread_t self = pthread_self(), t;

	signalled = bed->l;
	signal(SIGUSR1, on_signal);
	for (int i = 0; i < 5; i++) {
		pthread_create(&t, NULL, kill_main, &self);
		loop_run(bed->l);
		pthread_join(t, NULL);
	}
}

static void stop_before_run_is_kept(void **state)
{
	struct bed *bed = bed_of(state);

	loop_stop(bed->l);
	loop_run(bed->l);
}

static void on_drain_stop(void *arg, uint32_t events)
{
	on_drain(arg, events);
	loop_stop(((struct bed *)arg)->l);
}

static void loop_runs_on_another_thread_than_the_one_that_made_it(void **state)
{
	struct bed *bed = bed_of(state);
	pthread_t t;

	watch(bed, EPOLLIN, on_drain_stop);
	pthread_create(&t, NULL, run_main, bed->l);
	poke(bed);
	pthread_join(t, NULL);
	assert_int_equal(bed->calls, 1);
}

/* The end of a loop, while the thread that asked for it may still be inside the call that did. */

#define ENDS 3000

struct ender {
	_Atomic(struct loop *) l; /* the next one to end */
	void (*end)(struct loop *l);
	pthread_t thread;
};

static void *ender_main(void *arg)
{
	struct ender *e = arg;

	for (int i = 0; i < ENDS; i++) {
		struct loop *l;

		while (!(l = atomic_exchange(&e->l, NULL)))
			sched_yield();
		e->end(l);
	}
	return NULL;
}

/* The loop never sleeps, so that it may be freed before its ender looks whether to wake it. */
static void end_many_loops(enum loop_kind kind, void (*end)(struct loop *l))
{
	struct ender e = {.end = end};

	pthread_create(&e.thread, NULL, ender_main, &e);
	for (int i = 0; i < ENDS; i++) {
		struct loop *l = loop_new(kind, NULL);
		struct chain spin = {{NULL, on_chain}, l, INT32_MAX, 0};

		loop_post(l, &spin.post);
		atomic_store(&e.l, l);
		loop_run(l);
		loop_free(l);
	}
	pthread_join(e.thread, NULL);
}

struct last_post {
	struct loop_post post;
	struct loop *l;
};

static void on_last_post(struct loop_post *p)
{
	loop_stop(((struct last_post *)p)->l);
}

static void end_by_post(struct loop *l)
{
	static struct last_post last; /* of one ender, and run before the next */

	last = (struct last_post){{NULL, on_last_post}, l};
	loop_post(l, &last.post);
}

static void freeing_waits_for_a_poster_whose_post_ended_the_loop(void **state)
{
	end_many_loops(bed_of(state)->kind, end_by_post);
}

static void freeing_waits_for_a_stopper_that_ended_the_loop(void **state)
{
	end_many_loops(bed_of(state)->kind, loop_stop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(posts_run_in_order_of_posting),
		BOTH(post_from_a_callback_runs_by_the_next_turn),
		BOTH(post_from_a_hook_before_the_sleep_is_not_slept_over),
		BOTH(posts_of_four_threads_all_run_each_in_order),
		BOTH(two_loops_wake_each_other_every_time),
		BOTH(stop_in_a_signal_handler_ends_the_sleep),
		BOTH(stop_before_run_is_kept),
		BOTH(loop_runs_on_another_thread_than_the_one_that_made_it),
		BOTH(freeing_waits_for_a_poster_whose_post_ended_the_loop),
		BOTH(freeing_waits_for_a_stopper_that_ended_the_loop),
	};

	bed_alarm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
