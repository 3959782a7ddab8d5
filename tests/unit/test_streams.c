/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "observe/streams.h"

#define NOW (1000 * STREAMS_AGE_NS)

static int setup(void **state)
{
	*state = calloc(1, sizeof(struct streams));
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void put(struct streams *t, uint64_t ino, uint32_t slot, uint64_t ns)
{
	struct observe_window w = {.ino = ino, .slot = slot, .generation = 1, .pid = 5, .ns = ns};

	streams_put(t, &w);
}

static void the_newest_are_given_when_there_are_more_than_asked(void **state)
{
	struct streams *t = *state;
	struct observe_window out[10];

	for (uint64_t i = 0; i < 200; i++)
		put(t, i, 3, NOW - 1000 + i * 7 % 200);
	assert_int_equal(streams_of(t, 3, 1, NOW, out, 10), 10);
	for (int i = 0; i < 10; i++)
		assert_int_equal(out[i].ns, NOW - 1000 + 199 - i);
}

static void only_one_watch_of_one_slot_is_given(void **state)
{
	struct streams *t = *state;
	struct observe_window out[4];

	put(t, 1, 3, NOW);
	put(t, 2, 4, NOW);
	assert_int_equal(streams_of(t, 3, 1, NOW, out, 4), 1);
	assert_int_equal(out[0].ino, 1);
	assert_int_equal(streams_of(t, 3, 2, NOW, out, 4), 0);
}

static void when_it_is_full_the_longest_silent_makes_room(void **state)
{
	struct streams *t = *state;
	static struct observe_window out[STREAMS_SETS * STREAMS_WAYS];
	size_t n;

	for (uint64_t i = 1; i <= 20 * STREAMS_SETS * STREAMS_WAYS; i++)
		put(t, i, 3, NOW - 100000 + i);
	n = streams_of(t, 3, 1, NOW, out, STREAMS_SETS * STREAMS_WAYS);
	assert_int_equal(n, STREAMS_SETS * STREAMS_WAYS);
	/* the last of all is there, and none of the first half */
	assert_int_equal(out[0].ino, 20 * STREAMS_SETS * STREAMS_WAYS);
	assert_true(out[n - 1].ino > 10 * STREAMS_SETS * STREAMS_WAYS);
}

static void a_silent_stream_is_not_told_of(void **state)
{
	struct streams *t = *state;
	struct observe_window out;

	put(t, 1, 3, NOW - STREAMS_AGE_NS - 1);
	assert_int_equal(streams_of(t, 3, 1, NOW, &out, 1), 0);
	put(t, 1, 3, NOW - STREAMS_AGE_NS);
	assert_int_equal(streams_of(t, 3, 1, NOW, &out, 1), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(the_newest_are_given_when_there_are_more_than_asked),
		T(only_one_watch_of_one_slot_is_given),
		T(when_it_is_full_the_longest_silent_makes_room),
		T(a_silent_stream_is_not_told_of),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
