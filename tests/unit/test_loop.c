/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop's watches, each test run on both mechanisms. */
#include "loop_bed.h"

#include <errno.h>
#include <sys/eventfd.h>

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

static void watch_for_writing_is_called_while_there_is_room(void **state)
{
	struct bed *bed = bed_of(state);

	watch(bed, EPOLLOUT, on_count);
	turns(bed, 6);
	assert_true(bed->calls >= 3);
	assert_int_equal(bed->seen, EPOLLOUT);
}

static void fill_socket(struct bed *bed)
{
	static char buf[65536];

	while (write(bed->sp[0], buf, sizeof(buf)) > 0)
		;
}

static void empty_socket(struct bed *bed)
{
	static char buf[65536];

	while (read(bed->sp[1], buf, sizeof(buf)) > 0)
		;
}

static void watch_for_writing_waits_for_room_though_the_peer_shut_down(void **state)
{
	struct bed *bed = bed_of(state);

	fill_socket(bed);
	shutdown(bed->sp[1], SHUT_WR);
	watch(bed, EPOLLOUT, on_count);
	turns(bed, 2);
	assert_true(longest_wait(bed, 20) >= 19 * NSEC_PER_MSEC); /* no spin */
	assert_int_equal(bed->calls, 0);
	empty_socket(bed);
	turns_until(bed, &bed->calls, 1);
	assert_int_equal(bed->seen, EPOLLOUT);
}

static void watch_for_nothing_sleeps_until_the_peer_is_gone(void **state)
{
	struct bed *bed = bed_of(state);

	watch(bed, 0, on_count);
	poke(bed);
	shutdown(bed->sp[1], SHUT_WR);
	turns(bed, 5);
	assert_int_equal(bed->calls, 0);
	close(bed->sp[1]);
	bed->sp[1] = -1;
	turns_until(bed, &bed->calls, 1);
	assert_true(bed->seen & EPOLLHUP);
}

static void peer_that_shuts_down_is_reported_when_asked_for(void **state)
{
	struct bed *bed = bed_of(state);

	watch(bed, EPOLLRDHUP, on_count);
	turns(bed, 2);
	assert_int_equal(bed->calls, 0);
	shutdown(bed->sp[1], SHUT_WR);
	turns_until(bed, &bed->calls, 1);
	assert_int_equal(bed->seen, EPOLLRDHUP);
}

static void rewatch_changes_what_is_reported(void **state)
{
	struct bed *bed = bed_of(state);

	watch(bed, EPOLLIN, on_count);
	poke(bed);
	turns_until(bed, &bed->calls, 1);
	loop_rewatch(bed->l, bed->w, 0);
	turns(bed, 5);
	assert_int_equal(bed->calls, 1);
	loop_rewatch(bed->l, bed->w, EPOLLOUT);
	turns_until(bed, &bed->calls, 2);
	assert_int_equal(bed->seen, EPOLLIN | EPOLLOUT);
	loop_rewatch(bed->l, bed->w, 0);
	loop_rewatch(bed->l, bed->w, EPOLLIN);
	loop_rewatch(bed->l, bed->w, EPOLLIN | EPOLLOUT);
	turns_until(bed, &bed->calls, 3);
}

static void on_toggle(void *arg, uint32_t events)
{
	struct bed *bed = arg;

	bed->calls++;
	if (bed->calls % 2)
		assert_true(events & EPOLLIN);
	else
		assert_int_equal(events, EPOLLOUT);
	loop_rewatch(bed->l, bed->w, bed->calls % 2 ? EPOLLOUT : EPOLLIN);
}

static void rewatch_inside_the_callback_holds_from_then_on(void **state)
{
	struct bed *bed = bed_of(state);

	watch(bed, EPOLLIN, on_toggle);
	poke(bed);
	turns_until(bed, &bed->calls, 100);
}

static void on_unwatch_self(void *arg, uint32_t events)
{
	struct bed *bed = arg;

	on_count(bed, events);
	loop_unwatch(bed->l, bed->w);
	bed->w = NULL;
}

static void unwatch_inside_its_own_callback_is_the_last_call(void **state)
{
	struct bed *bed = bed_of(state);

	for (int i = 0; i < 2; i++) { /* one-shot and multishot polls */
		bed->calls = 0;
		watch(bed, i ? EPOLLOUT : EPOLLIN, on_unwatch_self);
		poke(bed);
		turns(bed, 5);
		assert_int_equal(bed->calls, 1);
	}
}

/* Two descriptors, both ready; whichever callback comes first unwatches the other. */
struct rivals {
	struct loop *l;
	struct loop_watch *w[2];
	int calls;
};

static void rival_called(struct rivals *r, int me)
{
	r->calls++;
	loop_unwatch(r->l, r->w[!me]);
	r->w[!me] = NULL;
}

static void on_rival_0(void *arg, uint32_t events)
{
	(void)events;
	rival_called(arg, 0);
}

static void on_rival_1(void *arg, uint32_t events)
{
	(void)events;
	rival_called(arg, 1);
}

static void unwatch_of_another_with_an_event_at_hand_silences_it(void **state)
{
	struct bed *bed = bed_of(state);
	struct rivals r = {.l = bed->l};
	int fds[2] = {eventfd(1, EFD_NONBLOCK), eventfd(1, EFD_NONBLOCK)};

	r.w[0] = loop_watch(bed->l, fds[0], EPOLLIN, on_rival_0, &r);
	r.w[1] = loop_watch(bed->l, fds[1], EPOLLIN, on_rival_1, &r);
	loop_run_once(bed->l, 1000);
	assert_int_equal(r.calls, 1);
	assert_int_equal(!r.w[0] + !r.w[1], 1);
	loop_unwatch(bed->l, r.w[0]);
	loop_unwatch(bed->l, r.w[1]);
	close(fds[0]);
	close(fds[1]);
}

static void descriptor_number_used_again_reports_to_the_new_watch_only(void **state)
{
	struct bed *bed = bed_of(state);
	struct bed old = {.l = bed->l};
	struct loop_watch *w;
	int fd = eventfd(0, EFD_NONBLOCK), again;

	w = loop_watch(bed->l, fd, EPOLLIN, on_count, &old);
	turns(bed, 2);
	loop_unwatch(bed->l, w);
	close(fd);
	again = eventfd(1, EFD_NONBLOCK);
	assert_int_equal(again, fd);
	w = loop_watch(bed->l, again, EPOLLIN, on_count, bed);
	turns_until(bed, &bed->calls, 1);
	assert_int_equal(old.calls, 0);
	loop_unwatch(bed->l, w);
	close(again);
}

static void peer_sees_the_end_in_the_turn_after_unwatch_and_close(void **state)
{
	struct bed *bed = bed_of(state);
	char c;

	watch(bed, EPOLLIN, on_count);
	turns(bed, 2);
	loop_unwatch(bed->l, bed->w);
	bed->w = NULL;
	close(bed->sp[0]);
	bed->sp[0] = -1;
	loop_run_once(bed->l, 0);
	assert_int_equal(read(bed->sp[1], &c, 1), 0);
}

static void closed_descriptor_is_refused(void **state)
{
	struct bed *bed = bed_of(state);

	errno = 0;
	assert_null(loop_watch(bed->l, 987654, EPOLLIN, on_count, bed));
	assert_int_equal(errno, EBADF);
}

static void on_eventfd(void *arg, uint32_t events)
{
	uint64_t n;

	assert_int_equal(events, EPOLLIN);
	assert_int_equal(read(((int *)arg)[0], &n, sizeof(n)), sizeof(n));
	((int *)arg)[1]++;
}

static void more_ready_descriptors_than_the_queue_holds_are_all_served(void **state)
{
	static int fds[MANY][2];
	static struct loop_watch *w[MANY];
	struct bed *bed = bed_of(state);
	uint64_t one = 1;

	for (int i = 0; i < MANY; i++) {
		fds[i][0] = eventfd(0, EFD_NONBLOCK);
		fds[i][1] = 0;
		w[i] = loop_watch(bed->l, fds[i][0], EPOLLIN, on_eventfd, fds[i]);
		assert_non_null(w[i]);
	}
	for (int round = 1; round <= 3; round++) {
		turns(bed, 2);
		for (int i = 0; i < MANY; i++)
			assert_int_equal(write(fds[i][0], &one, sizeof(one)), sizeof(one));
		for (int i = 0; i < MANY; i++)
			turns_until(bed, &fds[i][1], round);
	}
	for (int i = 0; i < MANY; i++) {
		loop_unwatch(bed->l, w[i]);
		close(fds[i][0]);
	}
	turns(bed, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(watch_that_does_not_drain_is_called_again),
		BOTH(watch_that_drains_is_called_once),
		BOTH(watch_for_writing_is_called_while_there_is_room),
		BOTH(watch_for_writing_waits_for_room_though_the_peer_shut_down),
		BOTH(watch_for_nothing_sleeps_until_the_peer_is_gone),
		BOTH(peer_that_shuts_down_is_reported_when_asked_for),
		BOTH(rewatch_changes_what_is_reported),
		BOTH(rewatch_inside_the_callback_holds_from_then_on),
		BOTH(unwatch_inside_its_own_callback_is_the_last_call),
		BOTH(unwatch_of_another_with_an_event_at_hand_silences_it),
		BOTH(descriptor_number_used_again_reports_to_the_new_watch_only),
		BOTH(peer_sees_the_end_in_the_turn_after_unwatch_and_close),
		BOTH(closed_descriptor_is_refused),
		BOTH(more_ready_descriptors_than_the_queue_holds_are_all_served),
	};

	allow_many_descriptors();
	bed_alarm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
