/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/bytes.h"
#include "fill/readahead.h"

#define SIZE (64 * GIB)

/* Note a read; how many bytes it asks to be fetched ahead. */
static uint64_t note_when(struct readahead *ra, uint64_t off, uint32_t len, bool missed)
{
	uint64_t from, to, wake;
	uint32_t stream;

	if (!readahead_note(ra, off, len, missed, &from, &to, &wake, &stream))
		return 0;
	assert_true(from < to && to <= ra->size && stream < READAHEAD_STREAMS);
	return to - from;
}

static uint64_t note(struct readahead *ra, uint64_t off, uint32_t len)
{
	return note_when(ra, off, len, true);
}

static void random_reads_fetch_nothing_ahead(void **state)
{
	struct readahead ra = {.size = SIZE, .max = 32 * MIB};
	uint64_t rng = 88172645463325252ULL, ahead = 0;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
		ahead += note(&ra, rng % (SIZE / 4096) * 4096, 4096);
	}
	assert_int_equal(ahead, 0);
	for (int i = 0; i < 100000; i++) {
		rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
		ahead += note(&ra, rng % (SIZE / 131072) * 131072, 131072);
	}
	/* 4 MiB of slack at eight places of 64 GiB: chance meets a stream now and then. */
	assert_true(ahead < 100000ULL * 131072 / 100);
}

static void a_sequential_reader_is_ahead_of_all_its_reads(void **state)
{
	struct readahead ra = {.size = SIZE, .max = 32 * MIB};
	uint64_t ahead = 0;

	(void)state;
	for (uint64_t off = 0; off < 256 * MIB; off += MIB)
		ahead += note(&ra, off, MIB);
	assert_true(ahead >= 256 * MIB && ahead <= (256 + 32) * MIB);
}

static void the_window_grows_up_to_its_limit(void **state)
{
	struct readahead ra = {.size = SIZE, .max = 8 * MIB};
	uint64_t off = 0, n;

	(void)state;
	for (; !(n = note(&ra, off, 128 * KIB)); off += 128 * KIB)
		assert_true(off < 2 * MIB);
	assert_true(n <= 2 * MIB);
	for (; off < 64 * MIB; off += 128 * KIB) {
		note(&ra, off, 128 * KIB);
		for (int i = 0; i < READAHEAD_STREAMS; i++)
			assert_true(ra.streams[i].issued <= off + 8 * MIB + 128 * KIB ||
				    !ra.streams[i].issued);
	}
}

static uint64_t issued(const struct readahead *ra)
{
	uint64_t most = 0;

	for (int i = 0; i < READAHEAD_STREAMS; i++)
		if (ra->streams[i].issued > most)
			most = ra->streams[i].issued;
	return most;
}

static void a_window_whose_bytes_come_in_time_stays_as_it_is(void **state)
{
	struct readahead ra = {.size = SIZE, .max = 64 * MIB};
	uint64_t off = 0;

	(void)state;
	for (; off < 8 * MIB; off += MIB)
		note(&ra, off, MIB);
	for (; off < 256 * MIB; off += MIB) {
		note_when(&ra, off, MIB, false);
		assert_true(issued(&ra) > off + MIB && issued(&ra) <= off + MIB + 16 * MIB);
	}
	for (; off < 300 * MIB; off += MIB)
		note(&ra, off, MIB);
	assert_true(issued(&ra) >= off + 60 * MIB);
}

static void reads_of_a_queue_may_come_out_of_order(void **state)
{
	struct readahead ra = {.size = SIZE, .max = 32 * MIB};
	uint64_t ahead = 0;

	(void)state;
	for (uint64_t off = 0; off < 64 * MIB; off += 4 * MIB)
		for (uint64_t i = 4; i-- > 0;)
			ahead += note(&ra, off + i * MIB, MIB);
	assert_true(ahead >= 32 * MIB);
}

static void streams_do_not_disturb_each_other(void **state)
{
	struct readahead ra = {.size = SIZE, .max = 4 * MIB};
	uint64_t ahead[4] = {0};

	(void)state;
	for (uint64_t off = 0; off < 32 * MIB; off += 128 * KIB)
		for (uint64_t s = 0; s < 4; s++)
			ahead[s] += note(&ra, s * 16 * GIB + off, 128 * KIB);
	for (int s = 0; s < 4; s++)
		assert_true(ahead[s] >= 32 * MIB);
}

static void nothing_is_fetched_beyond_the_end(void **state)
{
	struct readahead ra = {.size = 10 * MIB, .max = 32 * MIB};
	uint64_t ahead = 0;

	(void)state;
	for (uint64_t off = 0; off < 10 * MIB; off += MIB)
		ahead += note(&ra, off, MIB);
	assert_true(ahead > 0 && ahead <= 10 * MIB);
}

static void a_limit_of_zero_switches_it_off(void **state)
{
	struct readahead ra = {.size = SIZE, .max = 0};

	(void)state;
	for (uint64_t off = 0; off < 64 * MIB; off += MIB)
		assert_int_equal(note(&ra, off, MIB), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_reads_fetch_nothing_ahead),
		cmocka_unit_test(a_sequential_reader_is_ahead_of_all_its_reads),
		cmocka_unit_test(the_window_grows_up_to_its_limit),
		cmocka_unit_test(a_window_whose_bytes_come_in_time_stays_as_it_is),
		cmocka_unit_test(reads_of_a_queue_may_come_out_of_order),
		cmocka_unit_test(streams_do_not_disturb_each_other),
		cmocka_unit_test(nothing_is_fetched_beyond_the_end),
		cmocka_unit_test(a_limit_of_zero_switches_it_off),
	};

	return cmocka_run_group_tests_name("readahead", tests, NULL, NULL);
}
