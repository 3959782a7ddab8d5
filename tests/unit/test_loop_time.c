/* SPDX-License-Identifier: Apache-2.0 */
/* Timers, timeouts, hooks and the sleep of an idle loop. */
#include "loop_bed.h"

#include <pthread.h>

/* Timers. */

struct tick {
	struct loop_timer t;
	struct loop *l;
	int *clock;	     /* counts fired timers */
	int fired;	     /* its value when this one fired; 0 = not yet */
	struct tick *cancel; /* to be cancelled when this one fires */
	int again;
};

static void on_tick(struct loop_timer *t)
{
	struct tick *k = (struct tick *)t;

	k->fired = ++*k->clock;
	assert_true(clock_now_ns() >= t->at_ns);
	if (k->cancel)
		loop_timer_cancel(k->l, &k->cancel->t);
	if (k->again-- > 0)
		loop_timer_set(k->l, t, 0);
}

static void tick_init(struct bed *bed, struct tick *k, int *clock)
{
	*k = (struct tick){.t = {.fn = on_tick}, .l = bed->l, .clock = clock};
}

#define TICKS 200

static void timers_fire_in_order_of_time(void **state)
{
	struct bed *bed = bed_of(state);
	struct tick k[TICKS];
	int clock = 0;
	uint64_t now = clock_now_ns();

	for (int i = 0; i < TICKS; i++) {
		tick_init(bed, &k[i], &clock);
		loop_timer_set(bed->l, &k[i].t, now + (uint64_t)(i * 77 % TICKS) * 50000);
	}
	turns_until(bed, &clock, TICKS);
	for (int i = 0; i < TICKS; i++)
		assert_int_equal(k[i].fired, i * 77 % TICKS + 1);
}

static void timer_set_again_moves(void **state)
{
	struct bed *bed = bed_of(state);
	struct tick k[3];
	int clock = 0;
	uint64_t now = clock_now_ns();

	for (int i = 0; i < 3; i++) {
		tick_init(bed, &k[i], &clock);
		loop_timer_set(bed->l, &k[i].t, now + (uint64_t)(i + 1) * 2 * NSEC_PER_MSEC);
	}
	loop_timer_set(bed->l, &k[0].t, now + 9 * NSEC_PER_MSEC); /* later */
	loop_timer_set(bed->l, &k[2].t, now + 1 * NSEC_PER_MSEC); /* earlier */
	turns_until(bed, &clock, 3);
	assert_int_equal(k[2].fired, 1);
	assert_int_equal(k[1].fired, 2);
	assert_int_equal(k[0].fired, 3);
}

static void cancelled_timers_never_fire_and_the_rest_do(void **state)
{
	struct bed *bed = bed_of(state);
	struct tick k[TICKS];
	int clock = 0, left = 0;
	uint64_t now = clock_now_ns();

	for (int i = 0; i < TICKS; i++) {
		tick_init(bed, &k[i], &clock);
		loop_timer_set(bed->l, &k[i].t, now + (uint64_t)(i * 131 % TICKS) * 50000);
	}
	for (int i = 0; i < TICKS; i += 3)
		loop_timer_cancel(bed->l, &k[i].t);
	for (int i = 0; i < TICKS; i++)
		left += k[i].t.slot != 0;
	turns_until(bed, &clock, left);
	turns(bed, 2);
	assert_int_equal(clock, left);
	for (int i = 0; i < TICKS; i += 3)
		assert_int_equal(k[i].fired, 0);
}

static void timer_cancelled_by_one_that_is_due_with_it_does_not_fire(void **state)
{
	struct bed *bed = bed_of(state);
	struct tick k[2];
	int clock = 0;

	tick_init(bed, &k[0], &clock);
	tick_init(bed, &k[1], &clock);
	k[0].cancel = &k[1];
	k[1].cancel = &k[0];
	loop_timer_set(bed->l, &k[0].t, 1);
	loop_timer_set(bed->l, &k[1].t, 1);
	turns(bed, 3);
	assert_int_equal(clock, 1);
}

static void timer_set_to_the_past_again_and_again_lets_others_run(void **state)
{
	struct bed *bed = bed_of(state);
	struct tick k;
	int clock = 0;

	tick_init(bed, &k, &clock);
	k.again = 1000;
	loop_timer_set(bed->l, &k.t, 0);
	watch(bed, EPOLLIN, on_drain);
	poke(bed);
	turns_until(bed, &bed->calls, 1);
	assert_true(clock < 10);
	loop_timer_cancel(bed->l, &k.t);
}

static void timer_wakes_the_loop_on_time(void **state)
{
	struct bed *bed = bed_of(state);
	struct tick k;
	int clock = 0;
	uint64_t t0 = clock_now_ns(), took;

	tick_init(bed, &k, &clock);
	loop_timer_set(bed->l, &k.t, t0 + 20 * NSEC_PER_MSEC);
	while (clock == 0)
		loop_run_once(bed->l, -1);
	took = clock_now_ns() - t0;
	assert_true(took >= 20 * NSEC_PER_MSEC);
	assert_true(took < 500 * NSEC_PER_MSEC);
}

static void run_once_returns_after_its_timeout(void **state)
{
	struct bed *bed = bed_of(state);
	uint64_t t0;

	turns(bed, 2);
	t0 = clock_now_ns();
	loop_run_once(bed->l, 0);
	assert_true(clock_now_ns() - t0 < 15 * NSEC_PER_MSEC);
	assert_true(longest_wait(bed, 20) >= 19 * NSEC_PER_MSEC);
}

/* Turns. */

struct around {
	int before, after;
};

static void on_before(void *arg)
{
	struct around *a = arg;

	assert_int_equal(a->before++, a->after);
}

static void on_after(void *arg)
{
	struct around *a = arg;

	assert_int_equal(++a->after, a->before);
}

static void hooks_run_around_every_sleep(void **state)
{
	struct bed *bed = bed_of(state);
	struct around a = {0, 0};

	loop_on_turn(bed->l, on_before, on_after, &a);
	watch(bed, EPOLLIN, on_count);
	poke(bed);
	turns(bed, 7);
	assert_int_equal(a.before, 7);
	assert_int_equal(a.after, 7);
}

static void *stop_later_main(void *arg)
{
	usleep(50000);
	loop_stop(arg);
	return NULL;
}

static void idle_loop_sleeps(void **state)
{
	struct bed *bed = bed_of(state);
	struct around a = {0, 0};
	pthread_t t;

	watch(bed, EPOLLIN, on_drain);
	poke(bed);
	turns(bed, 3);
	loop_on_turn(bed->l, on_before, on_after, &a);
	pthread_create(&t, NULL, stop_later_main, bed->l);
	loop_run(bed->l);
	pthread_join(t, NULL);
	assert_true(a.before <= 3);
}

static void environment_chooses_the_mechanism(void **state)
{
	struct bed *bed = bed_of(state);
	bool epoll = bed->kind == LOOP_EPOLL;
	struct loop *l;

	setenv("CAIRN_LOOP", epoll ? "epoll" : "uring", 1);
	l = loop_new(LOOP_AUTO, NULL);
	assert_string_equal(loop_kind_name(l), epoll ? "epoll" : "io_uring");
	loop_free(l);
	unsetenv("CAIRN_LOOP");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(timers_fire_in_order_of_time),
		BOTH(timer_set_again_moves),
		BOTH(cancelled_timers_never_fire_and_the_rest_do),
		BOTH(timer_cancelled_by_one_that_is_due_with_it_does_not_fire),
		BOTH(timer_set_to_the_past_again_and_again_lets_others_run),
		BOTH(timer_wakes_the_loop_on_time),
		BOTH(run_once_returns_after_its_timeout),
		BOTH(hooks_run_around_every_sleep),
		BOTH(idle_loop_sleeps),
		BOTH(environment_chooses_the_mechanism),
	};

	bed_alarm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
