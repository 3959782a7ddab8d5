/* SPDX-License-Identifier: Apache-2.0 */
/* The ring reader on a ring made by hand, as the kernel lays it out. */
#include "check.h"

#include <linux/bpf.h>

#include "observe/ring.h"

#define SIZE 4096U

struct bed {
	uint64_t consumer, producer;
	uint8_t data[2 * SIZE];
	struct observe_ring ring;
	size_t n, lens[600];
	uint64_t seen[600]; /* the first 8 bytes of each */
};

static int setup(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	b->ring = (struct observe_ring){
		.consumer = &b->consumer, .producer = &b->producer, .data = b->data, .size = SIZE};
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

/* A byte of the ring, which is there twice. */
static void poke(struct bed *b, uint64_t at, const void *src, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		b->data[(at + i) % SIZE] = ((const uint8_t *)src)[i];
		b->data[(at + i) % SIZE + SIZE] = ((const uint8_t *)src)[i];
	}
}

/* The program's side: a record of @len bytes that begins with @mark; its place. */
static uint64_t produce(struct bed *b, uint64_t mark, uint32_t len, uint32_t flags)
{
	uint64_t at = b->producer;
	uint32_t header[2] = {len | flags, 0};

	poke(b, at, header, sizeof(header));
	poke(b, at + 8, &mark, len < 8 ? len : 8);
	b->producer += (len + 8 + 7) / 8 * 8;
	return at;
}

static void see(void *arg, const void *rec, size_t len)
{
	struct bed *b = arg;

	assert_true(b->n < 600);
	b->lens[b->n] = len;
	b->seen[b->n] = 0;
	memcpy(&b->seen[b->n++], rec, len < 8 ? len : 8);
}

static void an_empty_ring_gives_nothing(void **state)
{
	struct bed *b = *state;

	assert_int_equal(observe_ring_drain(&b->ring, see, b), 0);
	assert_int_equal(b->consumer, 0);
}

static void records_come_in_order_with_their_lengths(void **state)
{
	struct bed *b = *state;

	produce(b, 1, 96, 0);
	produce(b, 2, 13, 0);
	produce(b, 3, 8, 0);
	assert_int_equal(observe_ring_drain(&b->ring, see, b), 3);
	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(b->seen[i], i + 1);
	assert_int_equal(b->lens[1], 13);
	assert_int_equal(b->consumer, b->producer);
	assert_int_equal(observe_ring_drain(&b->ring, see, b), 0);
}

static void a_record_still_being_written_ends_the_round(void **state)
{
	struct bed *b = *state;
	uint32_t done = 96;
	uint64_t at;

	produce(b, 1, 96, 0);
	at = produce(b, 2, 96, BPF_RINGBUF_BUSY_BIT);
	produce(b, 3, 96, 0);
	assert_int_equal(observe_ring_drain(&b->ring, see, b), 1);
	assert_int_equal(b->consumer, at);
	assert_int_equal(observe_ring_drain(&b->ring, see, b), 0);
	poke(b, at, &done, 4);
	assert_int_equal(observe_ring_drain(&b->ring, see, b), 2);
	assert_int_equal(b->seen[1], 2);
	assert_int_equal(b->seen[2], 3);
}

static void what_was_discarded_is_passed_over(void **state)
{
	struct bed *b = *state;

	produce(b, 1, 96, 0);
	produce(b, 2, 40, BPF_RINGBUF_DISCARD_BIT);
	produce(b, 3, 96, 0);
	assert_int_equal(observe_ring_drain(&b->ring, see, b), 2);
	assert_int_equal(b->seen[1], 3);
	assert_int_equal(b->consumer, b->producer);
}

static void a_record_across_the_end_is_read_whole(void **state)
{
	struct bed *b = *state;
	uint64_t mark = 0;

	for (int round = 0; round < 500; round++) {
		uint32_t len = 8 + (uint32_t)(mark * 37 % 300);

		produce(b, ++mark, len, 0);
		b->n = 0;
		assert_int_equal(observe_ring_drain(&b->ring, see, b), 1);
		assert_int_equal(b->seen[0], mark);
		assert_int_equal(b->lens[0], len);
	}
	assert_true(b->producer > 10 * SIZE);
}

static void a_full_ring_is_read_whole(void **state)
{
	struct bed *b = *state;

	for (uint64_t i = 0; i < SIZE / 64; i++)
		produce(b, i, 56, 0);
	assert_int_equal(observe_ring_drain(&b->ring, see, b), SIZE / 64);
	assert_int_equal(b->consumer, b->producer);
}

static void positions_that_make_no_sense_are_skipped(void **state)
{
	struct bed *b = *state;

	b->producer = 10 * SIZE;
	assert_int_equal(observe_ring_drain(&b->ring, see, b), 0);
	assert_int_equal(b->consumer, b->producer);
	b->consumer = b->producer + 64;
	assert_int_equal(observe_ring_drain(&b->ring, see, b), 0);
	assert_int_equal(b->consumer, b->producer);
}

static void a_length_over_the_ring_is_not_followed(void **state)
{
	struct bed *b = *state;
	uint32_t header[2] = {SIZE, 0};

	poke(b, 0, header, sizeof(header));
	b->producer = 64;
	assert_int_equal(observe_ring_drain(&b->ring, see, b), 0);
	header[0] = 200; /* past what was produced */
	poke(b, 0, header, sizeof(header));
	assert_int_equal(observe_ring_drain(&b->ring, see, b), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(an_empty_ring_gives_nothing),
		T(records_come_in_order_with_their_lengths),
		T(a_record_still_being_written_ends_the_round),
		T(what_was_discarded_is_passed_over),
		T(a_record_across_the_end_is_read_whole),
		T(a_full_ring_is_read_whole),
		T(positions_that_make_no_sense_are_skipped),
		T(a_length_over_the_ring_is_not_followed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
