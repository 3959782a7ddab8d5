/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "store/evict.h"

#define N 8

struct bed {
	_Atomic uint64_t stored[2][N];
	_Atomic uint8_t heat[2][N];
	_Atomic uint32_t pins[2][N], kept[2];
	struct evict_set set[2];
	struct evict_set *sets[2];
	struct evict_hand hand;
};

static int bed_new(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	for (int s = 0; s < 2; s++) {
		for (int i = 0; i < N; i++)
			b->stored[s][i] = 1;
		b->set[s] =
			(struct evict_set){N, b->stored[s], b->heat[s], b->pins[s], &b->kept[s]};
		b->sets[s] = &b->set[s];
	}
	*state = b;
	return 0;
}

static int bed_free(void **state)
{
	free(*state);
	return 0;
}

static void evict_one(struct bed *b, uint64_t want_set, uint64_t want_extent)
{
	uint64_t set, extent;

	assert_true(evict_next(&b->hand, b->sets, 2, &set, &extent));
	assert_int_equal(set, want_set);
	assert_int_equal(extent, want_extent);
	b->stored[set][extent] = 0;
}

static void cold_extents_go_in_order(void **state)
{
	for (uint64_t i = 0; i < 2 * N; i++)
		evict_one(*state, i / N, i % N);
}

static void a_hot_extent_outlives_cold_ones(void **state)
{
	struct bed *b = *state;

	evict_touch(&b->heat[0][0]);
	for (uint64_t i = 1; i < 2 * N; i++)
		evict_one(b, i / N, i % N);
	evict_one(b, 0, 0);
}

static void heat_has_a_limit(void **state)
{
	struct bed *b = *state;

	for (int i = 0; i < 100; i++)
		evict_touch(&b->heat[0][0]);
	assert_int_equal(b->heat[0][0], EVICT_HEAT_MAX);
}

static void pinned_extents_stay(void **state)
{
	struct bed *b = *state;
	uint64_t set, extent;

	b->pins[0][0] = 1;
	for (int i = 0; i < N; i++)
		b->pins[1][i] = 1;
	for (uint64_t i = 1; i < N; i++)
		evict_one(b, 0, i);
	assert_false(evict_next(&b->hand, b->sets, 2, &set, &extent));
	b->pins[0][0] = 0;
	evict_one(b, 0, 0);
}

static void an_empty_store_has_no_victim(void **state)
{
	struct bed *b = *state;
	uint64_t set, extent;

	memset((void *)b->stored, 0, sizeof(b->stored));
	assert_false(evict_next(&b->hand, b->sets, 2, &set, &extent));
	assert_false(evict_next(&b->hand, b->sets, 0, &set, &extent));
}

static void everything_hot_still_yields_a_victim(void **state)
{
	struct bed *b = *state;

	memset((void *)b->heat, EVICT_HEAT_MAX, sizeof(b->heat));
	evict_one(b, 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(cold_extents_go_in_order, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(a_hot_extent_outlives_cold_ones, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(heat_has_a_limit, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(pinned_extents_stay, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(an_empty_store_has_no_victim, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(everything_hot_still_yields_a_victim, bed_new,
						bed_free),
	};

	return cmocka_run_group_tests_name("evict", tests, NULL, NULL);
}
