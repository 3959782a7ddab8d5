/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <heat.h>

#define MS 1000000ULL

static void a_read_adds_one_and_an_idle_half_life_halves(void **state)
{
	uint32_t cell = 0, epoch = 7;

	(void)state;
	for (int i = 0; i < 8; i++)
		cell = heat_add(cell, epoch, 1);
	assert_int_equal(heat_now(cell, epoch), 8);
	assert_int_equal(heat_now(cell, epoch + 1), 4);
	assert_int_equal(heat_now(cell, epoch + 3), 1);
	assert_int_equal(heat_now(cell, epoch + 4), 0);
	cell = heat_add(cell, epoch + 1, 1);
	assert_int_equal(heat_now(cell, epoch + 1), 5);
}

static void a_cell_never_touched_is_cold_at_every_epoch(void **state)
{
	(void)state;
	for (uint32_t epoch = 0; epoch <= HEAT_EPOCH_MASK; epoch++) {
		assert_int_equal(heat_now(0, epoch), 0);
		assert_false(heat_is_stale(0, epoch));
	}
}

static void the_count_saturates_and_leaves_the_epoch_alone(void **state)
{
	uint32_t cell = heat_add(0, 5, HEAT_COUNT_MAX - 1);

	(void)state;
	cell = heat_add(cell, 5, 1);
	assert_int_equal(heat_now(cell, 5), HEAT_COUNT_MAX);
	cell = heat_add(cell, 5, HEAT_COUNT_MAX);
	assert_int_equal(heat_now(cell, 5), HEAT_COUNT_MAX);
	assert_int_equal(heat_age(cell, 5), 0);
}

static void the_epoch_wraps_without_a_jump(void **state)
{
	uint32_t cell = heat_add(0, HEAT_EPOCH_MASK, 16);

	(void)state;
	assert_int_equal(heat_now(cell, HEAT_EPOCH_MASK), 16);
	assert_int_equal(heat_now(cell, 0), 8);
	assert_int_equal(heat_now(cell, 1), 4);
}

static void a_cell_is_stale_after_many_half_lives_and_before_it_looks_fresh(void **state)
{
	uint32_t cell = heat_add(0, 100, 3);

	(void)state;
	assert_false(heat_is_stale(cell, 100 + HEAT_STALE_EPOCHS - 1));
	assert_true(heat_is_stale(cell, 100 + HEAT_STALE_EPOCHS));
	assert_true(heat_is_stale(cell, (100 + HEAT_EPOCH_MASK) & HEAT_EPOCH_MASK));
}

static void the_epoch_moves_on_once_a_half_life(void **state)
{
	(void)state;
	assert_int_equal(heat_epoch(0, 30000), 0);
	assert_int_equal(heat_epoch(30000 * MS - 1, 30000), 0);
	assert_int_equal(heat_epoch(30000 * MS, 30000), 1);
	assert_int_equal(heat_epoch(1000 * MS * 4097, 1000), 1);
}

static void the_granule_doubles_so_that_the_cells_stay_bounded(void **state)
{
	static const uint64_t lens[] = {
		4096, 1ULL << 22, 1ULL << 40, 1ULL << 44, (1ULL << 44) + 1, 1ULL << 50, UINT64_MAX};

	(void)state;
	assert_int_equal(heat_shift(4096), HEAT_EXTENT_SHIFT);
	assert_int_equal(heat_shift(1ULL << 44), HEAT_EXTENT_SHIFT);
	assert_int_equal(heat_shift((1ULL << 44) + 1), HEAT_EXTENT_SHIFT + 1);
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
		assert_true(((lens[i] - 1) >> heat_shift(lens[i])) < HEAT_CELLS_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_read_adds_one_and_an_idle_half_life_halves),
		cmocka_unit_test(a_cell_never_touched_is_cold_at_every_epoch),
		cmocka_unit_test(the_count_saturates_and_leaves_the_epoch_alone),
		cmocka_unit_test(the_epoch_wraps_without_a_jump),
		cmocka_unit_test(a_cell_is_stale_after_many_half_lives_and_before_it_looks_fresh),
		cmocka_unit_test(the_epoch_moves_on_once_a_half_life),
		cmocka_unit_test(the_granule_doubles_so_that_the_cells_stay_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
