/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "store/evict.h"

#define N 512

/* Two sets, of which what was stored and not evicted is remembered. */
struct bed {
	struct evict evict;
	_Atomic uint64_t stored[2][N], use[2][N];
	_Atomic uint32_t pins[2][N], kept[2];
	struct evict_set set[2];
};

static int bed_new(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	evict_init(&b->evict);
	for (int s = 0; s < 2; s++) {
		b->set[s] = (struct evict_set){.extents = N,
					       .stored = b->stored[s],
					       .use = b->use[s],
					       .pins = b->pins[s],
					       .kept = &b->kept[s]};
		assert_int_equal(evict_add(&b->evict, &b->set[s]), 0);
	}
	*state = b;
	return 0;
}

static int bed_free(void **state)
{
	struct bed *b = *state;

	evict_free(&b->evict);
	free(b);
	return 0;
}

static void store_one(struct bed *b, int s, uint64_t extent)
{
	b->stored[s][extent] = 1;
	evict_stored(&b->evict, &b->set[s], extent);
}

static void store_some(struct bed *b, int s, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		store_one(b, s, i);
}

/* The set of the victim, whose extent is in @extent; -1 = none. */
static int evict_one(struct bed *b, int only, uint64_t *extent)
{
	struct evict_set *set;

	if (!evict_next(&b->evict, only < 0 ? NULL : &b->set[only], &set, extent))
		return -1;
	assert_int_not_equal(set->stored[*extent], 0);
	b->stored[set->number][*extent] = 0;
	return (int)set->number;
}

static void each_stored_extent_goes_once_and_then_there_is_none(void **state)
{
	struct bed *b = *state;
	uint64_t extent;

	assert_int_equal(evict_one(b, -1, &extent), -1);
	store_some(b, 0, 100);
	store_some(b, 1, 50);
	for (int i = 0; i < 150; i++)
		assert_true(evict_one(b, -1, &extent) >= 0);
	assert_int_equal(evict_one(b, -1, &extent), -1);
	assert_int_equal(b->evict.nlisted, 0);
}

static void what_is_pinned_stays(void **state)
{
	struct bed *b = *state;
	uint64_t extent;

	store_some(b, 0, N);
	for (int i = 0; i < N; i++)
		b->pins[0][i] = i != 77;
	assert_int_equal(evict_one(b, -1, &extent), 0);
	assert_int_equal(extent, 77);
	assert_int_equal(evict_one(b, -1, &extent), -1);
	b->pins[0][5] = 0;
	assert_int_equal(evict_one(b, -1, &extent), 0);
	assert_int_equal(extent, 5);
}

static void a_kept_set_stays(void **state)
{
	struct bed *b = *state;
	uint64_t extent;

	store_some(b, 0, 100);
	store_some(b, 1, 100);
	b->kept[0] = 1;
	for (int i = 0; i < 100; i++)
		assert_int_equal(evict_one(b, -1, &extent), 1);
	assert_int_equal(evict_one(b, -1, &extent), -1);
}

static void of_one_set_alone_when_asked(void **state)
{
	struct bed *b = *state;
	uint64_t extent;

	store_some(b, 0, 100);
	store_some(b, 1, 10);
	for (int i = 0; i < 10; i++)
		assert_int_equal(evict_one(b, 1, &extent), 1);
	assert_int_equal(evict_one(b, 1, &extent), -1);
	assert_int_equal(evict_one(b, -1, &extent), 0);
}

static void a_victim_that_was_not_evicted_is_found_again(void **state)
{
	struct bed *b = *state;
	uint64_t extent;

	store_one(b, 0, 9);
	assert_int_equal(evict_one(b, -1, &extent), 0);
	assert_int_equal(evict_one(b, -1, &extent), -1);
	store_one(b, 0, 9);
	assert_int_equal(evict_one(b, -1, &extent), 0);
	assert_int_equal(extent, 9);
}

static void an_extent_that_is_being_read_goes_last(void **state)
{
	struct bed *b = *state;
	uint64_t extent;

	store_some(b, 0, 20);
	b->evict.tick_reads = 100;
	for (uint64_t i = 0; i < 19; i++)
		evict_touch(&b->evict, &b->set[0], i, true);
	b->evict.now++;
	evict_touch(&b->evict, &b->set[0], 19, true);
	for (int i = 0; i < 19; i++) {
		assert_int_equal(evict_one(b, -1, &extent), 0);
		assert_int_not_equal(extent, 19);
	}
	assert_int_equal(evict_one(b, -1, &extent), 0);
	assert_int_equal(extent, 19);
}

static void what_was_brought_ahead_of_need_has_a_while_and_then_goes_first(void **state)
{
	struct bed *b = *state;
	uint64_t extent;

	b->evict.now = 100;
	store_some(b, 0, 20); /* nobody read them */
	b->evict.now = 102;
	for (uint64_t i = 0; i < 5; i++) {
		evict_touch(&b->evict, &b->set[1], i, false);
		store_one(b, 1, i);
	}
	b->evict.now = 105;
	for (int i = 0; i < 5; i++)
		assert_int_equal(evict_one(b, -1, &extent), 1);
	for (uint64_t i = 0; i < 5; i++) {
		evict_touch(&b->evict, &b->set[1], i, false);
		store_one(b, 1, i);
	}
	evict_touch(&b->evict, &b->set[0], 7, true); /* now it is like any other */
	b->evict.now = 110;
	for (int i = 0; i < 19; i++) {
		assert_int_equal(evict_one(b, -1, &extent), 0);
		assert_int_not_equal(extent, 7);
	}
}

static void only_hits_after_the_first_read_count_as_read_again(void **state)
{
	uint64_t use = use_brought(0, 10) | USE_PLACE;

	(void)state;
	use = use_read(use, 11, true);
	assert_int_equal(use_again(use), 0);
	use = use_read(use, 12, false);
	assert_int_equal(use_again(use), 0);
	use = use_read(use, 13, true);
	assert_int_equal(use_again(use), 1);
	for (uint32_t i = 0; i < 20; i++)
		use = use_read(use, 14 + i, true);
	assert_int_equal(use_again(use), USE_AGAIN_MAX);
	assert_int_equal(use_place(use), 1);
	assert_in_range(use_often(use, 33), 22 * USE_READ, 23 * USE_READ);
}

static void a_second_touch_in_a_tick_is_free(void **state)
{
	struct bed *b = *state;
	uint64_t use;

	b->evict.tick_reads = 100;
	evict_touch(&b->evict, &b->set[0], 3, true);
	use = b->use[0][3];
	for (int i = 0; i < 1000; i++)
		evict_touch(&b->evict, &b->set[0], 3, true);
	assert_int_equal(b->use[0][3], use);
	assert_int_equal(b->evict.noted, 1);
	assert_int_equal(b->evict.head, 1);
}

static void a_frequency_halves_and_has_a_limit(void **state)
{
	uint64_t use = 0;

	(void)state;
	for (int i = 0; i < 10000; i++)
		use = use_read(use, 1, true);
	assert_int_equal(use_often(use, 1), 0xffff);
	assert_int_equal(use_often(use, 1 + USE_HALF_LIFE), 0x7fff);
	assert_in_range(use_often(use, 1 + USE_HALF_LIFE / 2), 0xbf00, 0xc000);
	assert_int_equal(use_often(use, 1 + 16 * USE_HALF_LIFE), 0);
}

static void the_tick_may_wrap(void **state)
{
	uint64_t use = use_read(0, USE_TICKS, true);

	(void)state;
	assert_int_equal(use_age(use, USE_TICKS + 3U), 3);
	assert_true(use_worth(EVICT_RECENT, use, USE_TICKS + 3U) <
		    use_worth(EVICT_RECENT, use_read(0, USE_TICKS + 2U, true), USE_TICKS + 3U));
}

/* What each expert lets go first, of an old hot extent, an old cold one and a newcomer. */
static void experts_differ(void **state)
{
	uint64_t hot = USE_PLACE, cold = USE_PLACE, newcomer = USE_PLACE;
	uint32_t now = 100;

	(void)state;
	for (uint32_t t = 1; t < 50; t++)
		hot = use_read(hot, t, true);
	cold = use_read(use_read(cold, 60, true), 61, true);
	newcomer = use_read(0, 99, true) | USE_PLACE;
	assert_true(use_worth(EVICT_RECENT, hot, now) < use_worth(EVICT_RECENT, cold, now));
	assert_true(use_worth(EVICT_RECENT, cold, now) < use_worth(EVICT_RECENT, newcomer, now));
	assert_true(use_worth(EVICT_OFTEN, newcomer, now) < use_worth(EVICT_OFTEN, cold, now));
	assert_true(use_worth(EVICT_OFTEN, cold, now) < use_worth(EVICT_OFTEN, hot, now));
	assert_true(use_worth(EVICT_KEEP, newcomer, now) < use_worth(EVICT_KEEP, cold, now));
	assert_true(use_worth(EVICT_KEEP, cold, now) < use_worth(EVICT_KEEP, hot, now));
	assert_int_equal(use_worth(EVICT_KEEP, hot, 50 + USE_FORGOTTEN), 0);
}

static void shadow_round(struct evict_shadows *s, const uint64_t *names, uint32_t n, uint32_t *now)
{
	for (uint32_t i = 0; i < n; i++, ++*now)
		shadows_read(s, names[i], use_read(0, *now, true), *now);
}

static void a_cycle_that_does_not_fit_is_for_those_who_keep(void **state)
{
	struct evict_shadows s;
	uint64_t names[100];
	uint32_t now = 1;

	(void)state;
	shadows_init(&s);
	s.chosen = EVICT_RECENT;
	shadows_resize(&s, 50, false);
	for (uint32_t i = 0; i < 100; i++)
		names[i] = i;
	for (int i = 0; i < 5; i++)
		shadow_round(&s, names, 100, &now);
	assert_int_equal(s.chosen, EVICT_KEEP);
}

static void a_set_that_moves_is_for_those_who_look_at_the_time(void **state)
{
	struct evict_shadows s;
	uint64_t names[40];
	uint32_t now = 1;

	(void)state;
	shadows_init(&s);
	shadows_resize(&s, 50, false);
	for (uint64_t i = 0; i < 300; i++) { /* each name is read 20 times, then never again */
		for (uint64_t k = 0; k < 40; k++)
			names[k] = i * 2 + k;
		shadow_round(&s, names, 40, &now);
	}
	assert_int_equal(s.chosen, EVICT_RECENT);
}

#define T(name) cmocka_unit_test_setup_teardown(name, bed_new, bed_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(each_stored_extent_goes_once_and_then_there_is_none),
		T(what_is_pinned_stays),
		T(a_kept_set_stays),
		T(of_one_set_alone_when_asked),
		T(a_victim_that_was_not_evicted_is_found_again),
		T(an_extent_that_is_being_read_goes_last),
		T(what_was_brought_ahead_of_need_has_a_while_and_then_goes_first),
		T(only_hits_after_the_first_read_count_as_read_again),
		T(a_second_touch_in_a_tick_is_free),
		T(a_frequency_halves_and_has_a_limit),
		T(the_tick_may_wrap),
		T(experts_differ),
		T(a_cycle_that_does_not_fit_is_for_those_who_keep),
		T(a_set_that_moves_is_for_those_who_look_at_the_time),
	};

	return cmocka_run_group_tests_name("evict", tests, NULL, NULL);
}
