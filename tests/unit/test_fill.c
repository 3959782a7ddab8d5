/* SPDX-License-Identifier: Apache-2.0 */
/* Fills: who asks, who waits, what is kept, and how they end. */
#include "fill_bed.h"

static void a_read_gets_the_origins_bytes_and_they_stay(void **state)
{
	(void)state;
	assert_int_equal(get(100000, 300000), 0);
	assert_true(fake.bytes_sent <= 6 * STORE_BLOCK);
	assert_int_equal(object_resident(bed->source.object, 100000, 300000), 300000);
	assert_int_equal(get(100000, 300000), 0);
	assert_int_equal(fake.requests, 1);
}

static void a_small_read_costs_one_block(void **state)
{
	(void)state;
	assert_int_equal(get(5 * STORE_BLOCK + 1, 10), 0);
	assert_int_equal(fake.bytes_sent, STORE_BLOCK);
}

static void the_end_of_the_image_is_padded_with_zeros(void **state)
{
	uint64_t end = bed->source.object->id.length;

	(void)state;
	assert_int_equal(get(end - 8192, 8192), 0);
	assert_int_equal(get(3 * STORE_EXTENT, (uint32_t)(end - 3 * STORE_EXTENT)), 0);
}

static void many_readers_of_an_extent_cost_one_request(void **state)
{
	struct wait w[50];

	(void)state;
	fake.hang = true;
	for (int i = 0; i < 50; i++)
		start(&w[i], STORE_EXTENT, STORE_EXTENT);
	while (fill_counters(bed->fill)->joined < 49)
		usleep(200);
	fake.hang = false;
	for (int i = 0; i < 50; i++)
		assert_int_equal(finish(&w[i]), 0);
	assert_int_equal(fake.requests, 1);
	assert_int_equal(fill_counters(bed->fill)->joined, 49);
}

static void a_block_stored_twice_takes_space_once(void **state)
{
	uint8_t *block = fake.bytes + 5 * STORE_BLOCK;

	(void)state;
	assert_int_equal(get(5 * STORE_BLOCK, STORE_BLOCK), 0);
	object_pin(bed->source.object, 0);
	assert_int_equal(object_publish(bed->source.object, 5, 1, block, &bed->sums[5]), 0);
	object_unpin(bed->source.object, 0);
	assert_int_equal(store_counters(bed->store)->used, STORE_BLOCK);
	assert_int_equal(bed->source.object->stored_blocks, 1);
}

static void an_origin_that_answers_at_once_is_asked_once(void **state)
{
	struct fill_read ahead = {
		.source = &bed->source, .len = STORE_EXTENT, .class = FILL_PREFETCH};
	struct wait demand;

	(void)state;
	fake.at_once = true;
	start(&demand, STORE_BLOCK, 3 * STORE_BLOCK);
	ahead.done = ahead_done;
	fill_submit(bed->fill, &ahead);
	assert_int_equal(finish(&demand), 0);
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_int_equal(fake.bytes_sent, STORE_EXTENT - STORE_BLOCK); /* but for the zeros */
}

static void zeros_are_neither_fetched_nor_stored(void **state)
{
	(void)state;
	assert_int_equal(get(9 * STORE_BLOCK, STORE_BLOCK), 0);
	assert_int_equal(fake.requests, 0);
	assert_int_equal(store_counters(bed->store)->used, 0);
	assert_int_equal(object_resident(bed->source.object, 9 * STORE_BLOCK, STORE_BLOCK),
			 STORE_BLOCK);
}

static void an_origin_error_is_told_and_the_next_read_asks_again(void **state)
{
	struct wait w;

	(void)state;
	fake.fail_times = 1;
	fake.fail_rc = -EACCES;
	start(&w, 0, 4096);
	assert_int_equal(finish(&w), -EACCES);
	assert_non_null(strstr(w.why, "told to fail"));
	assert_int_equal(get(0, 4096), 0);
}

static void a_store_smaller_than_the_image_serves_all_of_it(void **state)
{
	(void)state;
	bed_close();
	bed_open(6 * MIB, 64 * MIB, 20000);
	for (int round = 0; round < 3; round++) {
		for (uint64_t e = 0; e < 3; e++) {
			assert_int_equal(get(e * STORE_EXTENT, STORE_EXTENT), 0);
			assert_true(store_counters(bed->store)->used <= 6 * MIB);
		}
	}
}

static void a_store_that_takes_nothing_costs_no_reader(void **state)
{
	(void)state;
	bed_close();
	bed_open(STORE_BLOCK, 64 * MIB, 20000); /* room for one block */
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_true(fill_counters(bed->fill)->unstored_blocks > 0);
}

static void little_memory_is_slow_and_not_stuck(void **state)
{
	struct wait w[40];

	(void)state;
	bed_close();
	bed_open(GIB, 2 * STORE_BLOCK, 20000);
	fake.delay_ms = 1;
	for (uint64_t i = 0; i < 40; i++)
		start(&w[i], i % 3 * STORE_EXTENT + i * STORE_BLOCK, STORE_BLOCK);
	for (int i = 0; i < 40; i++)
		assert_int_equal(finish(&w[i]), 0);
	assert_int_equal(get(0, STORE_EXTENT), 0);
}

static void an_origin_that_never_answers_ends_in_a_timeout(void **state)
{
	uint64_t t0;

	(void)state;
	bed_close();
	bed_open(GIB, 64 * MIB, 300);
	fake.hang = true;
	t0 = clock_now_ns();
	assert_int_equal(get(0, 4096), -ETIMEDOUT);
	assert_true(clock_now_ns() - t0 < 5 * NSEC_PER_SEC);
}

static void stopping_ends_reads_that_wait(void **state)
{
	struct wait w;

	(void)state;
	fake.hang = true;
	start(&w, 0, 4096);
	usleep(50000);
	bed_close();
	assert_true(finish(&w) < 0);
}

static void after_a_cancel_no_read_waits(void **state)
{
	struct wait w;

	(void)state;
	fake.hang = true;
	start(&w, 0, 4096);
	usleep(20000);
	fill_cancel(bed->fill);
	assert_int_equal(finish(&w), -ESHUTDOWN);
	assert_int_equal(get(STORE_EXTENT, 4096), -ESHUTDOWN);
}

struct early {
	struct wait wait;
	uint32_t resident; /* bytes, when it was answered */
};

static void early_done(struct fill_read *r, int rc, const char *why)
{
	struct early *e = (struct early *)((char *)r - offsetof(struct early, wait.read));

	e->resident = object_resident(bed->source.object, STORE_EXTENT, STORE_EXTENT);
	read_done(r, rc, why);
}

static void a_reader_is_answered_before_the_store_writes(void **state)
{
	struct early e = {.wait.read = {.extent = 1, .len = STORE_EXTENT, .done = early_done}};

	(void)state;
	e.wait.dst = malloc(STORE_EXTENT);
	e.wait.read.dst = e.wait.dst;
	e.wait.read.source = &bed->source;
	fill_submit(bed->fill, &e.wait.read);
	assert_int_equal(finish(&e.wait), 0);
	assert_int_equal(e.resident, 0);
	flights_land();
	assert_int_equal(object_resident(bed->source.object, STORE_EXTENT, STORE_EXTENT),
			 STORE_EXTENT);
}

static void what_the_store_has_not_yet_comes_from_the_flight(void **state)
{
	struct fill_read ahead = {.source = &bed->source,
				  .extent = 1,
				  .len = 24 * STORE_BLOCK,
				  .class = FILL_PREFETCH,
				  .done = ahead_done};
	struct wait w;

	(void)state;
	fake.pause = true;
	fill_submit(bed->fill, &ahead);
	for (int i = 0; i < 3; i++) {
		start(&w, STORE_EXTENT + 1000, 5 * STORE_BLOCK);
		assert_int_equal(finish(&w), 0);
		assert_int_equal(object_resident(bed->source.object, STORE_EXTENT, 1), 0);
	}
	fake.pause = false;
	flights_land();
	assert_int_equal(fake.requests, 1);
	assert_int_equal(object_resident(bed->source.object, STORE_EXTENT, 24 * STORE_BLOCK),
			 24 * STORE_BLOCK);
}

/* Of nine blocks three have come: two are verified together, the third waits for the fourth. */
static void start_three_of_nine(struct fill_read *ahead)
{
	struct wait w;

	*ahead = (struct fill_read){.source = &bed->source,
				    .extent = 1,
				    .len = 9 * STORE_BLOCK,
				    .class = FILL_PREFETCH,
				    .done = ahead_done};
	fake.pause = true;
	fill_submit(bed->fill, ahead);
	start(&w, STORE_EXTENT, 2 * STORE_BLOCK);
	assert_int_equal(finish(&w), 0);
}

static void a_block_that_waits_for_its_next_is_had_at_once(void **state)
{
	struct fill_read ahead;
	struct wait w;

	(void)state;
	start_three_of_nine(&ahead);
	start(&w, STORE_EXTENT + 2 * STORE_BLOCK + 7, 1000);
	assert_int_equal(finish(&w), 0);
	assert_true(fake.pause);
	fake.pause = false;
	flights_land();
	assert_int_equal(fake.requests, 1);
}

static void a_block_that_waits_for_its_next_outlives_their_request(void **state)
{
	struct fill_read ahead;

	(void)state;
	start_three_of_nine(&ahead);
	fake.fail_rc = -EIO;
	fake.fail_times = 1;
	flights_land();
	fake.pause = false;
	assert_int_equal(object_resident(bed->source.object, STORE_EXTENT, 9 * STORE_BLOCK),
			 3 * STORE_BLOCK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_read_gets_the_origins_bytes_and_they_stay),
		T(a_small_read_costs_one_block),
		T(the_end_of_the_image_is_padded_with_zeros),
		T(many_readers_of_an_extent_cost_one_request),
		T(a_block_stored_twice_takes_space_once),
		T(an_origin_that_answers_at_once_is_asked_once),
		T(zeros_are_neither_fetched_nor_stored),
		T(an_origin_error_is_told_and_the_next_read_asks_again),
		T(a_store_smaller_than_the_image_serves_all_of_it),
		T(a_store_that_takes_nothing_costs_no_reader),
		T(little_memory_is_slow_and_not_stuck),
		T(an_origin_that_never_answers_ends_in_a_timeout),
		T(stopping_ends_reads_that_wait),
		T(after_a_cancel_no_read_waits),
		T(a_reader_is_answered_before_the_store_writes),
		T(what_the_store_has_not_yet_comes_from_the_flight),
		T(a_block_that_waits_for_its_next_is_had_at_once),
		T(a_block_that_waits_for_its_next_outlives_their_request),
	};

	return cmocka_run_group_tests_name("fill", tests, NULL, NULL);
}
