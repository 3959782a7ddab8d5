/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "origin/window.h"

static void all_connections_are_used_until_the_origin_is_busy(void **state)
{
	struct window w;

	(void)state;
	window_init(&w, 16);
	for (int i = 0; i < 100; i++)
		window_good(&w);
	assert_int_equal(w.limit, 16);
}

static void a_busy_origin_halves_it_once_for_all_that_was_under_way(void **state)
{
	struct window w;

	(void)state;
	window_init(&w, 16);
	assert_true(window_busy(&w, 100, 200));
	for (uint64_t began = 50; began <= 200; began += 10)
		assert_false(window_busy(&w, began, 300));
	assert_int_equal(w.limit, 8);
	assert_true(window_busy(&w, 201, 400));
	assert_int_equal(w.limit, 4);
}

static void one_request_is_always_allowed(void **state)
{
	struct window w;

	(void)state;
	window_init(&w, 5);
	for (uint64_t at = 1; at < 100; at++)
		window_busy(&w, at * 10, at * 10 + 5);
	assert_int_equal(w.limit, 1);
}

static void good_answers_widen_it_by_one_a_round(void **state)
{
	struct window w;

	(void)state;
	window_init(&w, 16);
	window_busy(&w, 1, 2);
	for (int i = 0; i < 7; i++)
		window_good(&w);
	assert_int_equal(w.limit, 8);
	window_good(&w);
	assert_int_equal(w.limit, 9);
	for (int i = 0; i < 9 + 10; i++)
		window_good(&w);
	assert_int_equal(w.limit, 11);
	for (int i = 0; i < 1000; i++)
		window_good(&w);
	assert_int_equal(w.limit, 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_connections_are_used_until_the_origin_is_busy),
		cmocka_unit_test(a_busy_origin_halves_it_once_for_all_that_was_under_way),
		cmocka_unit_test(one_request_is_always_allowed),
		cmocka_unit_test(good_answers_widen_it_by_one_a_round),
	};

	return cmocka_run_group_tests_name("window", tests, NULL, NULL);
}
