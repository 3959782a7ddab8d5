/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <pthread.h>

#include "base/histogram.h"

#define US 1000ULL

static struct histogram_view view_of(const struct histogram *h)
{
	struct histogram_view v = {0};

	histogram_merge(h, &v);
	return v;
}

static void buckets_join_without_gap_or_overlap(void **state)
{
	uint64_t from = 0;

	(void)state;
	for (uint32_t b = 0; b < HISTOGRAM_BUCKETS - 1; b++) {
		uint64_t end = histogram_bucket_end_ns(b);

		assert_true(end > from);
		assert_int_equal(histogram_bucket(from), b);
		assert_int_equal(histogram_bucket(end - 1), b);
		from = end;
	}
	assert_int_equal(from, (1ULL << HISTOGRAM_OCTAVES) * US);
	assert_int_equal(histogram_bucket(from), HISTOGRAM_BUCKETS - 1);
	assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
	assert_int_equal(histogram_bucket_end_ns(HISTOGRAM_BUCKETS - 1), UINT64_MAX);
}

static void no_bucket_above_a_microsecond_is_wider_than_a_quarter_of_its_start(void **state)
{
	(void)state;
	for (uint32_t b = 4; b < HISTOGRAM_BUCKETS - 1; b++) {
		uint64_t from = histogram_bucket_end_ns(b - 1), end = histogram_bucket_end_ns(b);

		assert_true((end - from) * 4 <= from);
	}
}

static void a_quantile_is_right_to_a_bucket(void **state)
{
	static struct histogram h;
	struct histogram_view v;

	(void)state;
	for (uint64_t i = 1; i <= 1000; i++)
		histogram_add(&h, i * 10 * US, 1); /* 10 us .. 10 ms, evenly */
	v = view_of(&h);
	assert_int_equal(v.count, 1000);
	assert_int_equal(v.max_ns, 10000 * US);
	assert_in_range(histogram_quantile_ns(&v, 0.5), 5000 * US, 6250 * US);
	assert_in_range(histogram_quantile_ns(&v, 0.99), 9900 * US, 10000 * US);
	assert_int_equal(histogram_quantile_ns(&v, 1), 10000 * US);
	assert_in_range(histogram_quantile_ns(&v, 0), 10 * US, 13 * US);
}

static void a_quantile_never_exceeds_the_maximum(void **state)
{
	static struct histogram h;
	struct histogram_view v;

	(void)state;
	histogram_add(&h, 1025 * US, 7);
	v = view_of(&h);
	assert_int_equal(histogram_quantile_ns(&v, 0.5), 1025 * US);
	assert_int_equal(v.sum_ns, 7 * 1025 * US);
}

static void an_empty_one_has_zeros(void **state)
{
	struct histogram_view v = {0};

	(void)state;
	assert_int_equal(histogram_quantile_ns(&v, 0.5), 0);
	assert_int_equal(histogram_below(&v, HISTOGRAM_OCTAVES), 0);
}

static void what_took_longer_than_all_buckets_is_in_the_last(void **state)
{
	static struct histogram h;
	struct histogram_view v;

	(void)state;
	histogram_add(&h, 3600ULL * 1000000 * US, 2);
	histogram_add(&h, 5 * US, 2);
	v = view_of(&h);
	assert_int_equal(v.bucket[HISTOGRAM_BUCKETS - 1], 2);
	assert_int_equal(histogram_below(&v, HISTOGRAM_OCTAVES), 2);
	assert_int_equal(histogram_quantile_ns(&v, 1), 3600ULL * 1000000 * US);
}

static void below_counts_whole_octaves(void **state)
{
	static struct histogram h;
	struct histogram_view v;

	(void)state;
	histogram_add(&h, 0, 1);
	histogram_add(&h, US - 1, 1);
	histogram_add(&h, US, 1);
	histogram_add(&h, 2 * US - 1, 1);
	histogram_add(&h, 2 * US, 1);
	v = view_of(&h);
	assert_int_equal(histogram_below(&v, 0), 2);
	assert_int_equal(histogram_below(&v, 1), 4);
	assert_int_equal(histogram_below(&v, 2), 5);
}

static struct histogram shared;

static void *adds(void *arg)
{
	for (uint64_t i = 0; i < 10000; i++)
		histogram_add(&shared, (uintptr_t)arg * US, 1);
	return NULL;
}

static void nothing_that_threads_add_at_once_is_lost(void **state)
{
	pthread_t t[2 * HISTOGRAM_STRIPES]; /* so that some share a stripe */
	struct histogram_view v;
	uint64_t sum = 0;

	(void)state;
	for (uintptr_t i = 0; i < 2 * HISTOGRAM_STRIPES; i++) {
		sum += (i + 1) * US * 10000;
		assert_int_equal(pthread_create(&t[i], NULL, adds, (void *)(i + 1)), 0);
	}
	for (int i = 0; i < 2 * HISTOGRAM_STRIPES; i++)
		pthread_join(t[i], NULL);
	v = view_of(&shared);
	assert_int_equal(v.count, 2 * HISTOGRAM_STRIPES * 10000);
	assert_int_equal(v.sum_ns, sum);
	assert_int_equal(v.max_ns, 2 * HISTOGRAM_STRIPES * US);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buckets_join_without_gap_or_overlap),
		cmocka_unit_test(
			no_bucket_above_a_microsecond_is_wider_than_a_quarter_of_its_start),
		cmocka_unit_test(a_quantile_is_right_to_a_bucket),
		cmocka_unit_test(a_quantile_never_exceeds_the_maximum),
		cmocka_unit_test(an_empty_one_has_zeros),
		cmocka_unit_test(what_took_longer_than_all_buckets_is_in_the_last),
		cmocka_unit_test(below_counts_whole_octaves),
		cmocka_unit_test(nothing_that_threads_add_at_once_is_lost),
	};

	return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
