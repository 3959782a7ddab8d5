/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <policy.h>

static void assert_is_default(struct policy p)
{
	assert_int_equal(p.half_life_ms, POLICY_HALF_LIFE_DEFAULT_MS);
	assert_int_equal(p.min_run, POLICY_MIN_RUN_DEFAULT);
	assert_int_equal(p.ring_sampling, POLICY_SAMPLING_DEFAULT);
}

static void zeros_are_the_defaults(void **state)
{
	struct policy p = policy_sane((struct policy){0});

	(void)state;
	assert_is_default(p);
	assert_int_equal(p.flags, 0);
}

static void what_is_in_range_is_kept(void **state)
{
	struct policy set = {.flags = POLICY_SET | POLICY_DISABLED,
			     .half_life_ms = 1000,
			     .min_run = 1024,
			     .ring_sampling = 65536};
	struct policy p = policy_sane(set);

	(void)state;
	assert_memory_equal(&p, &set, sizeof(p));
}

static void without_the_set_flag_nothing_counts(void **state)
{
	struct policy p = policy_sane((struct policy){
		.flags = POLICY_DISABLED, .half_life_ms = 1000, .min_run = 9, .ring_sampling = 9});

	(void)state;
	assert_is_default(p);
	assert_int_equal(p.flags, 0);
}

static void a_field_out_of_range_is_its_default_and_the_others_stay(void **state)
{
	struct policy p = {
		.flags = POLICY_SET, .half_life_ms = 999, .min_run = 9, .ring_sampling = 9};

	(void)state;
	p = policy_sane(p);
	assert_int_equal(p.half_life_ms, POLICY_HALF_LIFE_DEFAULT_MS);
	assert_int_equal(p.min_run, 9);
	assert_int_equal(p.ring_sampling, 9);
	p.min_run = POLICY_MIN_RUN_MAX + 1;
	p.ring_sampling = 0;
	assert_is_default(policy_sane(p));
}

static void every_bit_pattern_becomes_sane_and_stays_so(void **state)
{
	uint32_t words[sizeof(struct policy) / 4], seed = 1;
	struct policy p, again;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		for (size_t w = 0; w < sizeof(words) / 4; w++)
			words[w] = (seed = seed * 1664525 + 1013904223) >> ((w * 3 + (size_t)i) % 25);
		memcpy(&p, words, sizeof(p));
		p = policy_sane(p);
		assert_in_range(p.half_life_ms, POLICY_HALF_LIFE_MIN_MS, POLICY_HALF_LIFE_MAX_MS);
		assert_in_range(p.min_run, 1, POLICY_MIN_RUN_MAX);
		assert_in_range(p.ring_sampling, 1, POLICY_SAMPLING_MAX);
		assert_int_equal(p.flags & ~(POLICY_SET | POLICY_DISABLED), 0);
		again = policy_sane(p);
		assert_memory_equal(&again, &p, sizeof(p));
	}
}

static void a_cgroup_is_looked_for_in_its_own_part_of_the_array(void **state)
{
	(void)state;
	for (uint64_t id = 0; id < 5000; id++) {
		for (uint32_t a = 0; a < POLICY_PROBES; a++) {
			uint32_t entry = policy_cgroup_entry(id * id * id, a);

			assert_in_range(entry, OBSERVE_DEVICES, POLICY_HEAD - 1);
			for (uint32_t b = 0; b < a; b++)
				assert_int_not_equal(entry, policy_cgroup_entry(id * id * id, b));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zeros_are_the_defaults),
		cmocka_unit_test(what_is_in_range_is_kept),
		cmocka_unit_test(without_the_set_flag_nothing_counts),
		cmocka_unit_test(a_field_out_of_range_is_its_default_and_the_others_stay),
		cmocka_unit_test(every_bit_pattern_becomes_sane_and_stays_so),
		cmocka_unit_test(a_cgroup_is_looked_for_in_its_own_part_of_the_array),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
