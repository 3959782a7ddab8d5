/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets what when all want it, without a thread or a clock. */
#include "check.h"

#include <stdio.h>

#include "base/bucket.h"
#include "base/bytes.h"
#include "base/drr.h"

/* An export that keeps @depth requests of @size waiting. */
struct reader {
	struct drr_flow flow;
	struct drr_item *items;
	uint32_t depth;
	uint64_t size, got;
};

static void reader_begin(struct drr *d, struct reader *r, enum drr_class class, uint32_t depth,
			 uint64_t size)
{
	drr_flow_init(&r->flow, class);
	r->items = calloc(depth, sizeof(*r->items));
	r->depth = depth;
	r->size = size;
	r->got = 0;
	for (uint32_t i = 0; i < depth; i++)
		drr_push(d, &r->flow, &r->items[i], size);
}

static void reader_end(struct drr *d, struct reader *r)
{
	for (uint32_t i = 0; i < r->depth; i++)
		if (r->items[i].flow)
			drr_remove(d, &r->items[i]);
	free(r->items);
}

/* @grants one after the other; who got one asks again at once. */
static void grant(struct drr *d, int grants)
{
	while (grants--) {
		struct drr_item *i = drr_peek(d, NULL, NULL);
		struct reader *r;

		assert_non_null(i);
		r = (struct reader *)((char *)i->flow - offsetof(struct reader, flow));
		drr_take(d, i);
		r->got += i->cost;
		drr_push(d, &r->flow, i, r->size);
	}
}

static void one_reader_gets_as_much_as_sixty_four(void **state)
{
	static const uint64_t sizes[] = {4 * KIB, 64 * KIB, MIB, 4 * MIB};

	(void)state;
	for (int i = 0; i < 4; i++) {
		struct reader many, one;
		struct drr d;

		drr_init(&d, 64 * KIB);
		reader_begin(&d, &many, DRR_DEMAND, 64, 128 * KIB);
		reader_begin(&d, &one, DRR_DEMAND, 1, 128 * KIB);
		many.size = one.size = sizes[i];
		grant(&d, 20000);
		/* it is gone between its requests, and so may lose a part of its turn */
		assert_in_range(one.got * 1000 / (one.got + many.got), i ? 450 : 50, 550);
		reader_end(&d, &many);
		reader_end(&d, &one);
	}
}

/* Two deep is always waiting, so it takes its whole half. */
static void two_who_always_wait_get_halves(void **state)
{
	struct reader many, two;
	struct drr d;

	(void)state;
	drr_init(&d, MIB);
	reader_begin(&d, &many, DRR_DEMAND, 64, 64 * KIB);
	reader_begin(&d, &two, DRR_DEMAND, 2, 64 * KIB);
	grant(&d, 4096);
	assert_in_range(two.got * 1000 / (two.got + many.got), 480, 520);
	reader_end(&d, &many);
	reader_end(&d, &two);
}

static void large_requests_get_no_more_than_small_ones(void **state)
{
	struct reader large, small;
	struct drr d;

	(void)state;
	drr_init(&d, MIB);
	reader_begin(&d, &large, DRR_DEMAND, 8, 32 * MIB);
	reader_begin(&d, &small, DRR_DEMAND, 8, 4 * KIB);
	grant(&d, 200000);
	assert_in_range(small.got * 1000 / (small.got + large.got), 440, 560);
	reader_end(&d, &large);
	reader_end(&d, &small);
}

static void a_thousand_owners_get_the_same(void **state)
{
	static struct reader readers[1000];
	struct drr d;

	(void)state;
	drr_init(&d, 64 * KIB);
	for (int i = 0; i < 1000; i++)
		reader_begin(&d, &readers[i], DRR_DEMAND, 2 + (uint32_t)i % 7, 64 * KIB);
	grant(&d, 10000);
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(readers[i].got, 10 * 64 * KIB);
		reader_end(&d, &readers[i]);
	}
	assert_true(drr_is_empty(&d));
}

static void whoever_is_alone_gets_all(void **state)
{
	struct reader one;
	struct drr d;

	(void)state;
	drr_init(&d, KIB); /* a cost of many turns */
	reader_begin(&d, &one, DRR_DEMAND, 3, 32 * MIB);
	grant(&d, 100);
	assert_int_equal(one.got, 3200 * MIB);
	reader_end(&d, &one);
	assert_null(drr_peek(&d, NULL, NULL));
}

static void demand_goes_before_prefetch_which_is_not_starved(void **state)
{
	struct reader demand, ahead;
	struct drr d;

	(void)state;
	drr_init(&d, MIB);
	reader_begin(&d, &ahead, DRR_PREFETCH, 64, 4 * MIB);
	reader_begin(&d, &demand, DRR_DEMAND, 64, 4 * MIB);
	grant(&d, DRR_PATIENCE - 1);
	assert_int_equal(ahead.got, 0);
	grant(&d, 1600 - (DRR_PATIENCE - 1));
	assert_int_equal(ahead.got / (4 * MIB), 1600 / DRR_PATIENCE);
	reader_end(&d, &demand);
	grant(&d, 10);
	assert_int_equal(ahead.got / (4 * MIB), 1600 / DRR_PATIENCE + 10);
	reader_end(&d, &ahead);
}

static bool is_not_of(void *arg, const struct drr_item *i)
{
	return i->flow != arg;
}

static void who_may_not_go_on_is_passed_over_and_keeps_its_place(void **state)
{
	struct reader barred, other;
	struct drr_item *i;
	struct drr d;

	(void)state;
	drr_init(&d, MIB);
	reader_begin(&d, &barred, DRR_DEMAND, 4, KIB);
	assert_null(drr_peek(&d, is_not_of, &barred.flow));
	reader_begin(&d, &other, DRR_DEMAND, 4, KIB);
	i = drr_peek(&d, is_not_of, &barred.flow);
	assert_ptr_equal(i, &other.items[0]);
	drr_take(&d, i);
	reader_end(&d, &other);
	assert_ptr_equal(drr_peek(&d, NULL, NULL), &barred.items[0]);
	reader_end(&d, &barred);
}

/* The choice stands while the large one waits for room. */
static void the_next_stays_the_next_while_others_arrive(void **state)
{
	struct reader large, small[20];
	struct drr_item *next;
	struct drr d;

	(void)state;
	drr_init(&d, 64 * KIB);
	reader_begin(&d, &large, DRR_DEMAND, 1, 32 * MIB);
	next = drr_peek(&d, NULL, NULL);
	for (int i = 0; i < 20; i++) {
		reader_begin(&d, &small[i], DRR_DEMAND, 1, KIB);
		assert_ptr_equal(drr_peek(&d, NULL, NULL), next);
	}
	for (int i = 0; i < 20; i++)
		reader_end(&d, &small[i]);
	reader_end(&d, &large);
}

static void first_come_is_first_served_unless_put_ahead(void **state)
{
	struct drr_item a = {0}, b = {0}, c = {0};
	struct drr_flow f;
	struct drr d;

	(void)state;
	drr_init(&d, MIB);
	drr_flow_init(&f, DRR_DEMAND);
	drr_push(&d, &f, &a, 1);
	drr_push(&d, &f, &b, 1);
	drr_push_front(&d, &f, &c, 1);
	assert_ptr_equal(drr_peek(&d, NULL, NULL), &c);
	drr_take(&d, &c);
	assert_null(c.flow);
	drr_remove(&d, &a);
	assert_ptr_equal(drr_peek(&d, NULL, NULL), &b);
	drr_take(&d, &b);
	assert_true(drr_is_empty(&d));
}

/* ---- the bucket ---- */

#define SECOND 1000000000ULL

/* Bytes that pass within @ns, asked for in pieces of @piece as soon as each may. */
static uint64_t passed(struct bucket *b, uint64_t *now, uint64_t ns, uint64_t piece)
{
	uint64_t end = *now + ns, bytes = 0, wait;

	while (*now < end) {
		wait = bucket_wait_ns(b, *now);
		if (wait) {
			*now += wait;
			continue;
		}
		bucket_take(b, piece);
		bytes += piece;
	}
	return bytes;
}

static void a_bucket_holds_its_rate_for_pieces_of_any_size(void **state)
{
	static const uint64_t pieces[] = {512, 64 * KIB, 4 * MIB};
	struct bucket b;

	(void)state;
	for (int i = 0; i < 3; i++) {
		uint64_t now = 77 * SECOND, bytes;

		bucket_set(&b, 10 * MIB, now);
		bytes = passed(&b, &now, 100 * SECOND, pieces[i]);
		/* and the second's worth that it began with */
		assert_in_range(bytes, 1000 * MIB, 1010 * MIB + 2 * pieces[i]);
	}
}

static void a_bucket_saves_up_one_second_and_no_more(void **state)
{
	uint64_t now = SECOND;
	struct bucket b;

	(void)state;
	bucket_set(&b, MIB, now);
	bucket_take(&b, MIB);
	assert_int_not_equal(bucket_wait_ns(&b, now), 0);
	now += 3600 * SECOND;
	assert_int_equal(bucket_wait_ns(&b, now), 0);
	assert_int_equal(b.tokens, MIB);
}

static void a_bucket_of_a_byte_a_second_moves_however_often_it_is_asked(void **state)
{
	uint64_t now = SECOND;
	struct bucket b;

	(void)state;
	bucket_set(&b, 1, now);
	bucket_take(&b, 1);
	for (int i = 0; i < 2000; i++)
		bucket_wait_ns(&b, now += SECOND / 1000);
	assert_int_equal(bucket_wait_ns(&b, now), 0);
}

static void no_rate_is_no_limit(void **state)
{
	struct bucket b = {0};

	(void)state;
	bucket_take(&b, UINT64_MAX / 2);
	assert_int_equal(bucket_wait_ns(&b, 5), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_reader_gets_as_much_as_sixty_four),
		cmocka_unit_test(two_who_always_wait_get_halves),
		cmocka_unit_test(large_requests_get_no_more_than_small_ones),
		cmocka_unit_test(a_thousand_owners_get_the_same),
		cmocka_unit_test(whoever_is_alone_gets_all),
		cmocka_unit_test(demand_goes_before_prefetch_which_is_not_starved),
		cmocka_unit_test(who_may_not_go_on_is_passed_over_and_keeps_its_place),
		cmocka_unit_test(the_next_stays_the_next_while_others_arrive),
		cmocka_unit_test(first_come_is_first_served_unless_put_ahead),
		cmocka_unit_test(a_bucket_holds_its_rate_for_pieces_of_any_size),
		cmocka_unit_test(a_bucket_saves_up_one_second_and_no_more),
		cmocka_unit_test(a_bucket_of_a_byte_a_second_moves_however_often_it_is_asked),
		cmocka_unit_test(no_rate_is_no_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
