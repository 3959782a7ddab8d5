/* SPDX-License-Identifier: Apache-2.0 */
/* The verdict on traces of windows as the kernel gives them. */
#include "check.h"

#include <stream.h>

#define KIB	1024U
#define MIB	(1024U * KIB)
#define MIN_RUN 4

static uint32_t random_next(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

static void note_run(struct stream *s, uint64_t off, uint32_t len, int n)
{
	for (int i = 0; i < n; i++)
		stream_note(s, off + (uint64_t)i * len, len, MIN_RUN);
}

static void a_file_read_through_is_sequential(void **state)
{
	struct stream s = {0};

	(void)state;
	note_run(&s, 0, 128 * KIB, MIN_RUN - 1);
	assert_int_equal(s.verdict, STREAM_NEW);
	note_run(&s, (MIN_RUN - 1) * 128 * KIB, 128 * KIB, 1);
	assert_int_equal(s.verdict, STREAM_SEQUENTIAL);
	note_run(&s, MIN_RUN * 128 * KIB, 128 * KIB, 60);
	assert_int_equal(s.verdict, STREAM_SEQUENTIAL);
	assert_int_equal(stream_run(&s), 64);
	assert_int_equal(s.windows, 64);
	assert_int_equal(s.bytes, 64 * 128 * KIB);
}

static void windows_that_grow_or_skip_a_little_are_sequential(void **state)
{
	struct stream s = {0};
	uint64_t off = 0;

	(void)state;
	for (uint32_t len = 16 * KIB; len <= MIB; len *= 2) {
		stream_note(&s, off, len, MIN_RUN);
		off += len + 4 * KIB * (len > 64 * KIB);
	}
	assert_int_equal(s.verdict, STREAM_SEQUENTIAL);
	assert_int_equal(s.run, 7);
}

static void a_part_of_the_last_window_is_no_news(void **state)
{
	struct stream s = {0};

	(void)state;
	assert_int_equal(stream_note(&s, MIB, 128 * KIB, MIN_RUN), 1);
	assert_int_equal(stream_note(&s, MIB, 128 * KIB, MIN_RUN), 0);
	assert_int_equal(stream_note(&s, MIB + 64 * KIB, 64 * KIB, MIN_RUN), 0);
	assert_int_equal(s.windows, 1);
	assert_int_equal(s.bytes, 128 * KIB);
}

static void equal_steps_are_a_stride(void **state)
{
	struct stream s = {0};

	(void)state;
	for (uint64_t i = 0; i < 20; i++) {
		assert_int_equal(stream_note(&s, i * 256 * KIB, 4 * KIB, MIN_RUN), 1);
		assert_int_equal(s.verdict, i < MIN_RUN ? STREAM_NEW : STREAM_STRIDE);
	}
	assert_int_equal(s.stride, 256 * KIB);
	assert_int_equal(stream_run(&s), 19);
}

static void a_stride_of_several_windows_each_is_a_stride(void **state)
{
	struct stream s = {0};

	(void)state;
	for (uint64_t i = 0; i < 12; i++)
		note_run(&s, i * MIB, 64 * KIB, 3);
	assert_int_equal(s.verdict, STREAM_STRIDE);
	assert_int_equal(s.stride, MIB);
}

static void reading_backwards_is_a_stride_of_minus_one_window(void **state)
{
	struct stream s = {0};

	(void)state;
	for (int i = 40; i > 0; i--)
		stream_note(&s, (uint64_t)i * 64 * KIB, 64 * KIB, MIN_RUN);
	assert_int_equal(s.verdict, STREAM_STRIDE);
	assert_int_equal(s.stride, -64 * (int64_t)KIB);
}

static void random_places_are_random_with_runs_of_one(void **state)
{
	struct stream s = {0};
	uint32_t seed = 42;

	(void)state;
	for (int i = 0; i < 500; i++) {
		stream_note(&s, (uint64_t)(random_next(&seed) % 100000) * 4 * KIB, 4 * KIB,
			    MIN_RUN);
		if (i > 20)
			assert_int_equal(s.verdict, STREAM_RANDOM);
	}
	assert_int_equal(stream_run(&s), 1);
}

static void two_places_read_in_turn_are_sequential(void **state)
{
	struct stream s = {0};

	(void)state;
	for (uint64_t i = 0; i < 20; i++) {
		stream_note(&s, i * 128 * KIB, 128 * KIB, MIN_RUN);
		stream_note(&s, 64 * (uint64_t)MIB + i * 64 * KIB, 64 * KIB, MIN_RUN);
	}
	assert_int_equal(s.verdict, STREAM_SEQUENTIAL);
	assert_int_equal(s.run, 39);
}

/* Samples of @windows windows in random order; the verdict is not asked while it forms. */
static void shuffled(struct stream *s, int windows)
{
	uint32_t seed = 7;

	for (int i = 0; i < 300; i++) {
		note_run(s, (uint64_t)(random_next(&seed) % 5000) * MIB, 64 * KIB, windows);
		if (i > 30)
			assert_int_equal(s->verdict, STREAM_RANDOM);
	}
}

static void shuffled_samples_are_random_with_the_length_of_a_sample(void **state)
{
	(void)state;
	for (int windows = 1; windows < MIN_RUN; windows++) {
		struct stream s = {0};

		shuffled(&s, windows);
		assert_int_equal(stream_run(&s), windows);
	}
}

static void samples_some_of_which_are_a_little_longer_stay_random(void **state)
{
	struct stream s = {0};
	uint32_t seed = 11;

	(void)state;
	shuffled(&s, 2);
	for (int i = 0; i < 300; i++) {
		note_run(&s, (uint64_t)(random_next(&seed) % 5000) * MIB, 64 * KIB,
			 1 + (int)(random_next(&seed) % (2 * MIN_RUN - 1)));
		assert_int_equal(s.verdict, STREAM_RANDOM);
	}
}

static void a_stride_after_an_odd_step_is_never_called_random(void **state)
{
	struct stream s = {0};

	(void)state;
	stream_note(&s, 77 * (uint64_t)MIB, 4 * KIB, MIN_RUN);
	for (uint64_t i = 0; i < 10; i++) {
		stream_note(&s, i * 256 * KIB, 4 * KIB, MIN_RUN);
		assert_int_not_equal(s.verdict, STREAM_RANDOM);
	}
	assert_int_equal(s.verdict, STREAM_STRIDE);
}

static void a_jump_now_and_then_does_not_change_the_verdict(void **state)
{
	struct stream s = {0};
	uint32_t seed = 3;

	(void)state;
	note_run(&s, 0, 128 * KIB, 10);
	for (int i = 0; i < 50; i++) {
		note_run(&s, (uint64_t)(random_next(&seed) % 1000) * 64 * MIB, 128 * KIB, 30);
		assert_int_equal(s.verdict, STREAM_SEQUENTIAL);
	}
}

static void a_reader_that_changes_its_way_gets_the_new_verdict(void **state)
{
	struct stream s = {0};
	uint32_t seed = 9;

	(void)state;
	note_run(&s, 0, 128 * KIB, 50);
	assert_int_equal(s.verdict, STREAM_SEQUENTIAL);
	for (int i = 0; i < 2 * MIN_RUN; i++)
		stream_note(&s, (uint64_t)random_next(&seed) * 64 * KIB, 4 * KIB, MIN_RUN);
	assert_int_equal(s.verdict, STREAM_RANDOM);
	note_run(&s, 1ULL << 50, 128 * KIB, 2 * MIN_RUN);
	assert_int_equal(s.verdict, STREAM_SEQUENTIAL);
}

static void a_longer_min_run_waits_longer(void **state)
{
	struct stream s = {0};

	(void)state;
	for (uint64_t i = 0; i < 32; i++) {
		assert_int_equal(s.verdict, STREAM_NEW);
		stream_note(&s, i * 4 * KIB, 4 * KIB, 32);
	}
	assert_int_equal(s.verdict, STREAM_SEQUENTIAL);
}

static void single_pages_become_windows(void **state)
{
	struct stream s = {0};
	int news = 0;

	(void)state;
	for (uint64_t i = 0; i < 256; i++)
		news += stream_note_page(&s, i * 4 * KIB, 4 * KIB, 128 * KIB, MIN_RUN);
	assert_int_equal(news, 8);
	assert_int_equal(s.windows, 8);
	assert_int_equal(s.bytes, MIB);
	assert_int_equal(s.verdict, STREAM_SEQUENTIAL);
}

static void offsets_at_the_end_of_the_world_are_survived(void **state)
{
	struct stream s = {0};
	uint32_t seed = 1;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		uint64_t off = (uint64_t)random_next(&seed) << 40 | random_next(&seed);

		stream_note(&s, i % 3 ? UINT64_MAX - off : off, random_next(&seed) << 8, 1);
		stream_note_page(&s, UINT64_MAX, UINT32_MAX, UINT32_MAX, 0);
		assert_in_range(s.verdict, STREAM_NEW, STREAM_RANDOM);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_read_through_is_sequential),
		cmocka_unit_test(windows_that_grow_or_skip_a_little_are_sequential),
		cmocka_unit_test(a_part_of_the_last_window_is_no_news),
		cmocka_unit_test(equal_steps_are_a_stride),
		cmocka_unit_test(a_stride_of_several_windows_each_is_a_stride),
		cmocka_unit_test(reading_backwards_is_a_stride_of_minus_one_window),
		cmocka_unit_test(random_places_are_random_with_runs_of_one),
		cmocka_unit_test(two_places_read_in_turn_are_sequential),
		cmocka_unit_test(shuffled_samples_are_random_with_the_length_of_a_sample),
		cmocka_unit_test(samples_some_of_which_are_a_little_longer_stay_random),
		cmocka_unit_test(a_stride_after_an_odd_step_is_never_called_random),
		cmocka_unit_test(a_jump_now_and_then_does_not_change_the_verdict),
		cmocka_unit_test(a_reader_that_changes_its_way_gets_the_new_verdict),
		cmocka_unit_test(a_longer_min_run_waits_longer),
		cmocka_unit_test(single_pages_become_windows),
		cmocka_unit_test(offsets_at_the_end_of_the_world_are_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
