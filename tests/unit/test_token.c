/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/clock.h"
#include "origin/token.h"
#include "token_bed.h"

/* One who takes tokens, on a loop of its own. */
struct taker {
	struct token_waiter waiter;
	struct token_source *source;
	struct loop *loop;
	struct token token;
	struct err err;
	int wakes;
};

static struct bad_server server;
static struct token_source *source;
static struct taker one;

static void on_wake(struct token_waiter *w)
{
	((struct taker *)w)->wakes++;
}

static void taker_up(struct taker *t)
{
	memset(t, 0, sizeof(*t));
	t->source = source;
	t->loop = loop_new(LOOP_AUTO, &t->err);
	assert_non_null(t->loop);
	t->waiter.loop = t->loop;
	t->waiter.wake = on_wake;
}

static void taker_down(struct taker *t)
{
	token_leave(&t->waiter);
	loop_free(t->loop);
}

static int bed_up(void **state)
{
	struct identity id;
	struct err err;

	(void)state;
	bad_server_start(&server, NULL, 0);
	server_answers(&server, "{\"access_token\":\"first\",\"expires_in\":3600}");
	clear_environment();
	set_hosts(&server);
	assert_int_equal(identity_init(&id, IDENTITY_MANAGED, NULL, NULL, &err), 0);
	source = token_source_new(&id, &token_limits, &err);
	assert_non_null(source);
	taker_up(&one);
	return 0;
}

static int bed_down(void **state)
{
	(void)state;
	taker_down(&one);
	token_source_free(source);
	bad_server_stop(&server);
	return 0;
}

static int take_once(struct taker *t, uint64_t after)
{
	return token_take(t->source, after, &t->waiter, &t->token, &t->err);
}

/* As a request does: wait for each wake, take again. -ETIME after @ms. */
static int take_within(struct taker *t, uint64_t after, uint64_t ms)
{
	uint64_t end = clock_now_ns() + ms * NSEC_PER_MSEC;
	int rc;

	while ((rc = take_once(t, after)) == TOKEN_WAIT) {
		for (int was = t->wakes; t->wakes == was;) {
			if (clock_now_ns() > end)
				return -ETIME;
			loop_run_once(t->loop, 10);
		}
	}
	return rc;
}

static void assert_taken(const char *text)
{
	assert_int_equal(take_within(&one, 0, 5000), 0);
	assert_string_equal(one.token.text, text);
}

static void sleep_ms(unsigned ms)
{
	usleep(ms * 1000);
}

static void wait_for_requests(size_t n)
{
	for (int i = 0; server.requests < n; i++) {
		assert_true(i < 500);
		sleep_ms(10);
	}
}

static void nothing_is_fetched_until_one_is_taken(void **state)
{
	(void)state;
	sleep_ms(50);
	assert_int_equal(server.requests, 0);
}

static void a_token_is_kept(void **state)
{
	(void)state;
	for (int i = 0; i < 100; i++)
		assert_taken("first");
	assert_int_equal(one.token.generation, 1);
	assert_int_equal(server.requests, 1);
}

static void a_token_is_renewed_before_its_end_while_the_old_one_serves(void **state)
{
	(void)state;
	server_answers(&server, "{\"access_token\":\"first\",\"expires_in\":4}");
	assert_taken("first");
	server_answers(&server, "{\"access_token\":\"second\",\"expires_in\":3600}");
	server.delay_ms = 100;
	sleep_ms(1000);
	assert_int_equal(take_once(&one, 0), 0);
	sleep_ms(300);
	assert_int_equal(server.requests, 1); /* not due */
	sleep_ms(900);			      /* 2.2 s of 4 are over */
	for (int i = 0; i < 50; i++) {
		assert_int_equal(take_once(&one, 0), 0);
		assert_string_equal(one.token.text, "first");
	}
	wait_for_requests(2);
	sleep_ms(300);
	assert_int_equal(take_once(&one, 0), 0);
	assert_string_equal(one.token.text, "second");
	assert_int_equal(server.requests, 2);
}

static void refresh_in_says_when(void **state)
{
	(void)state;
	server_answers(&server,
		       "{\"access_token\":\"first\",\"expires_in\":\"3600\",\"refresh_in\":1}");
	assert_taken("first");
	assert_int_equal(take_once(&one, 0), 0);
	sleep_ms(1100);
	assert_int_equal(server.requests, 1);
	assert_int_equal(take_once(&one, 0), 0); /* this one begins it */
	wait_for_requests(2);
}

static void a_renewal_comes_five_minutes_or_half_a_short_life_before_the_end(void **state)
{
	(void)state;
	assert_int_equal(token_renewal_margin(86400, 0), 300);
	assert_int_equal(token_renewal_margin(600, 0), 300);
	assert_int_equal(token_renewal_margin(100, 0), 50);
	assert_int_equal(token_renewal_margin(86400, 43200), 43200);
	assert_int_equal(token_renewal_margin(60, 100), 30);
}

static void a_renewal_that_fails_keeps_the_old_token_until_its_end(void **state)
{
	(void)state;
	server_answers(&server, "{\"access_token\":\"first\",\"expires_in\":2}");
	server_script(&server, GOOD, STATUS + 400, STATUS + 400, STATUS + 400);
	assert_taken("first");
	sleep_ms(1100);
	assert_int_equal(take_once(&one, 0), 0);
	wait_for_requests(2);
	sleep_ms(100);
	assert_int_equal(take_once(&one, 0), 0);
	assert_string_equal(one.token.text, "first");
	assert_int_equal(server.requests, 2); /* a pause before the next */
	sleep_ms(900);
	assert_int_equal(take_once(&one, 0), TOKEN_WAIT); /* it ended */
}

static void an_identity_that_worked_once_is_waited_for(void **state)
{
	(void)state;
	server_answers(&server, "{\"access_token\":\"first\",\"expires_in\":1}");
	server_script(&server, GOOD, STATUS + 400, GOOD);
	assert_taken("first");
	server_answers(&server, "{\"access_token\":\"second\",\"expires_in\":60}");
	sleep_ms(1050);
	assert_taken("second"); /* over the failure and its pause of 1 s */
	assert_int_equal(server.requests, 3);
}

static void an_identity_that_never_worked_fails_at_once_and_asks_no_more_for_a_while(void **state)
{
	(void)state;
	server.sorry = "{\"error\":\"invalid_request\",\"error_description\":\"none here\"}";
	server_script(&server, STATUS + 400, STATUS + 400);
	assert_int_equal(take_within(&one, 0, 5000), -EACCES);
	assert_non_null(strstr(one.err.text, "none here"));
	for (int i = 0; i < 100; i++)
		assert_int_equal(take_once(&one, 0), -EACCES);
	assert_int_equal(server.requests, 1);
	sleep_ms(1050);
	assert_int_equal(take_within(&one, 0, 5000), -EACCES);
	assert_int_equal(server.requests, 2);
	sleep_ms(1050); /* the pause has doubled */
	assert_int_equal(take_once(&one, 0), -EACCES);
	assert_int_equal(server.requests, 2);
	sleep_ms(1050);
	assert_taken("first");
}

static void imds_that_hangs_is_an_error_and_not_a_hang(void **state)
{
	uint64_t start = clock_now_ns();

	(void)state;
	server_script(&server, STALL, STALL, STALL, STALL, STALL, STALL);
	assert_int_equal(take_within(&one, 0, 5000), -ETIMEDOUT);
	assert_true(clock_now_ns() - start < 3 * NSEC_PER_SEC);
	assert_non_null(strstr(one.err.text, "no byte for"));
}

static void who_leaves_while_a_fetch_hangs_is_not_woken(void **state)
{
	(void)state;
	server_script(&server, STALL);
	assert_int_equal(take_once(&one, 0), TOKEN_WAIT);
	token_leave(&one.waiter);
	sleep_ms(300);
	loop_run_once(one.loop, 10);
	assert_int_equal(one.wakes, 0);
}

static void a_source_can_be_freed_while_its_fetch_hangs(void **state)
{
	uint64_t start = clock_now_ns();
	struct identity id;

	(void)state;
	server_script(&server, STALL);
	assert_int_equal(identity_init(&id, IDENTITY_MANAGED, NULL, NULL, &one.err), 0);
	one.source = token_source_new(&id, NULL, &one.err); /* with the long limits */
	assert_int_equal(take_once(&one, 0), TOKEN_WAIT);
	wait_for_requests(1);
	token_leave(&one.waiter);
	token_source_free(one.source);
	assert_true(clock_now_ns() - start < 2 * NSEC_PER_SEC);
	memset(&one.waiter, 0, sizeof(one.waiter));
}

static void *taker_main(void *arg)
{
	struct taker *t = arg;

	t->err.code = take_within(t, 0, 5000);
	return NULL;
}

static void many_threads_wait_for_one_fetch(void **state)
{
	enum { THREADS = 12 };
	static struct taker takers[THREADS];
	pthread_t threads[THREADS];

	(void)state;
	server.delay_ms = 100;
	for (int i = 0; i < THREADS; i++) {
		taker_up(&takers[i]);
		assert_int_equal(pthread_create(&threads[i], NULL, taker_main, &takers[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(takers[i].err.code, 0);
		assert_string_equal(takers[i].token.text, "first");
		taker_down(&takers[i]);
	}
	assert_int_equal(server.requests, 1);
}

static void a_token_that_was_refused_is_fetched_once_more_and_no_oftener(void **state)
{
	(void)state;
	assert_taken("first");
	server_answers(&server, "{\"access_token\":\"second\",\"expires_in\":3600}");
	assert_true(token_may_change(source, 1));
	assert_int_equal(take_within(&one, 1, 5000), 0);
	assert_string_equal(one.token.text, "second");
	assert_int_equal(one.token.generation, 2);
	assert_true(token_may_change(source, 1));
	assert_false(token_may_change(source, 2));
	assert_int_equal(take_within(&one, 2, 5000), -EACCES);
	assert_int_equal(server.requests, 2);
	assert_taken("second"); /* it still serves others */
}

static void a_refused_token_serves_others_when_no_other_is_to_be_had(void **state)
{
	(void)state;
	server_script(&server, GOOD, STATUS + 400);
	assert_taken("first");
	assert_int_equal(take_within(&one, 1, 5000), -EACCES);
	assert_non_null(strstr(one.err.text, "HTTP 400"));
	assert_taken("first");
	assert_int_equal(server.requests, 2);
}

static void whose_a_token_is_can_be_told(void **state)
{
	char buf[128];

	(void)state;
	server_answers(&server, "{\"access_token\":\"t\",\"expires_in\":9,\"client_id\":\"ab-1\"}");
	assert_taken("t");
	token_whose(source, buf, sizeof(buf));
	assert_string_equal(buf, "client id ab-1");
}

static void the_shared_source_is_one_for_each_identity(void **state)
{
	struct err err;
	struct token_source *a, *b;

	(void)state;
	a = token_source_shared(IDENTITY_AUTO, NULL, NULL, &err);
	b = token_source_shared(IDENTITY_AUTO, "", NULL, &err);
	assert_non_null(a);
	assert_ptr_equal(a, b);
	assert_ptr_not_equal(a, token_source_shared(IDENTITY_AUTO, CLIENT, NULL, &err));
	assert_ptr_not_equal(a, token_source_shared(IDENTITY_MANAGED, NULL, NULL, &err));
}

#define bed_test(f) cmocka_unit_test_setup_teardown(f, bed_up, bed_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(nothing_is_fetched_until_one_is_taken),
		bed_test(a_token_is_kept),
		bed_test(a_token_is_renewed_before_its_end_while_the_old_one_serves),
		bed_test(refresh_in_says_when),
		bed_test(a_renewal_comes_five_minutes_or_half_a_short_life_before_the_end),
		bed_test(a_renewal_that_fails_keeps_the_old_token_until_its_end),
		bed_test(an_identity_that_worked_once_is_waited_for),
		bed_test(an_identity_that_never_worked_fails_at_once_and_asks_no_more_for_a_while),
		bed_test(imds_that_hangs_is_an_error_and_not_a_hang),
		bed_test(who_leaves_while_a_fetch_hangs_is_not_woken),
		bed_test(a_source_can_be_freed_while_its_fetch_hangs),
		bed_test(many_threads_wait_for_one_fetch),
		bed_test(a_token_that_was_refused_is_fetched_once_more_and_no_oftener),
		bed_test(a_refused_token_serves_others_when_no_other_is_to_be_had),
		bed_test(whose_a_token_is_can_be_told),
		bed_test(the_shared_source_is_one_for_each_identity),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
