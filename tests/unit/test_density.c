/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "fill/density.h"
#include "store/store.h"

#define MS NSEC_PER_MSEC

struct trace {
	struct density d;
	uint64_t now_ns, room, rng;
	uint64_t asked;	 /* extents */
	uint64_t images; /* how often the whole image */
};

static void begin(struct trace *t, uint64_t length)
{
	*t = (struct trace){.now_ns = 1, .room = UINT64_MAX, .rng = 88172645463325252ULL};
	density_init(&t->d, length);
}

static uint64_t below(struct trace *t, uint64_t n)
{
	t->rng ^= t->rng << 13, t->rng ^= t->rng >> 7, t->rng ^= t->rng << 17;
	return t->rng % n;
}

static void reads(struct trace *t, uint64_t off, uint32_t len, uint64_t ns)
{
	uint64_t first, n;

	t->now_ns += ns;
	if (!density_note(&t->d, t->now_ns, off, len, t->room, &first, &n))
		return;
	assert_true(first < t->d.extents && n > 0 && n <= t->d.extents);
	t->asked += n;
	t->images += n == t->d.extents;
}

static void small_reads_at_random_over_a_large_image_bring_in_nothing_else(void **state)
{
	static struct trace t;

	(void)state;
	begin(&t, 64 * GIB);
	for (int i = 0; i < 20000; i++)
		reads(&t, below(&t, 64 * GIB / 4096) * 4096, 4096, 20 * MS);
	assert_int_equal(t.asked, 0);
}

static void larger_reads_at_random_cost_a_tenth_more_at_most(void **state)
{
	static const uint64_t lengths[] = {2 * GIB, 8 * GIB, 64 * GIB, 1024 * GIB};
	static struct trace t;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		begin(&t, lengths[i]);
		t.room = 0;
		for (int n = 0; n < 20000; n++)
			reads(&t, below(&t, lengths[i] / 131072) * 131072, 131072, 2 * MS);
		assert_true(t.asked * STORE_EXTENT < 20000ULL * 131072 / 10);
	}
}

/* 80 files of about 110 KiB in a folder: read in an order of their own. */
static void reads_a_folder(struct trace *t, uint64_t at, uint64_t ns)
{
	bool done[80] = {false};

	for (int i = 0; i < 80; i++) {
		uint64_t k = below(t, 80);

		while (done[k])
			k = (k + 1) % 80;
		done[k] = true;
		reads(t, at + k * 112640, 110000, ns);
	}
}

static void files_of_a_folder_soon_come_as_whole_extents(void **state)
{
	static struct trace t;

	(void)state;
	begin(&t, 64 * GIB);
	t.room = 0;
	for (int i = 0; i < 10; i++)
		reads_a_folder(&t, (uint64_t)i * 6 * GIB, 20 * MS);
	/* A folder lies in three extents or four; each was asked for once. */
	assert_in_range(t.asked, 25, 45);
	assert_true(t.d.trust > 0);
}

static void trust_that_is_lost_stops_extents_at_first_visits(void **state)
{
	static struct trace t;
	uint64_t before;

	(void)state;
	begin(&t, 64 * GIB);
	t.room = 0;
	for (int i = 0; i < 10; i++)
		reads_a_folder(&t, (uint64_t)i * 6 * GIB, 20 * MS);
	before = t.asked;
	for (int i = 0; i < 20000; i++)
		reads(&t, below(&t, 64 * GIB / 4096) * 4096, 4096, 20 * MS);
	assert_in_range(t.asked - before, 0, 20);
	assert_int_equal(t.d.trust, 0);
}

static void a_small_image_that_is_read_all_over_is_wanted_whole(void **state)
{
	static struct trace t;
	int n = 0;

	(void)state;
	begin(&t, GIB);
	for (; !t.images && n < 8000; n++)
		reads(&t, below(&t, 8000) * 131072, 110000, 5 * MS);
	assert_int_equal(t.images, 1);
	assert_in_range(n, 64, 400);
	for (int i = 0; i < 8000; i++) /* once */
		reads(&t, below(&t, 8000) * 131072, 110000, 5 * MS);
	assert_int_equal(t.images, 1);
	density_restart(&t.d);
	for (int i = 0; i < 8000; i++) /* what the store lost since may come again */
		reads(&t, below(&t, 8000) * 131072, 110000, 5 * MS);
	assert_int_equal(t.images, 2);
}

static void an_image_is_not_wanted_whole_when_the_store_has_no_room(void **state)
{
	static struct trace t;

	(void)state;
	begin(&t, GIB);
	t.room = 2 * GIB - 1;
	for (int i = 0; i < 8000; i++)
		reads(&t, below(&t, 8000) * 131072, 110000, 5 * MS);
	assert_int_equal(t.images, 0);
}

static void an_image_is_not_wanted_whole_when_it_is_read_slowly(void **state)
{
	static struct trace t;

	(void)state;
	begin(&t, 64 * GIB);
	for (int i = 0; i < 40000; i++) /* 40 MB/s: half an hour for all of it */
		reads(&t, below(&t, 64 * GIB / 131072) * 131072, 131072, 3 * MS);
	assert_int_equal(t.images, 0);
}

static void one_long_read_is_one_visit(void **state)
{
	static struct trace t;

	(void)state;
	begin(&t, GIB);
	for (uint64_t off = 0; off < GIB; off += MIB) /* pairs come in the wrong order */
		reads(&t, off ^ MIB, MIB, MS);
	assert_int_equal(t.d.visits, 1);
	assert_int_equal(t.asked, 0);
}

static void a_hit_is_news_once_and_only_in_extents_that_are_watched(void **state)
{
	static struct trace t;

	(void)state;
	begin(&t, GIB);
	assert_false(density_is_news(&t.d, 0, 4096));
	reads(&t, 65536, 4096, MS);
	assert_true(density_is_news(&t.d, 0, 4096));
	assert_false(density_is_news(&t.d, 65536, 65536));
	assert_true(density_is_news(&t.d, 65536, 65537));
	reads(&t, 0, 4096, MS);
	assert_false(density_is_news(&t.d, 0, 4096));
	assert_false(density_is_news(&t.d, 5 * MIB, 4096));
}

static void the_last_extent_may_be_short(void **state)
{
	static struct trace t;
	uint64_t length = 9 * MIB + 4096;

	(void)state;
	begin(&t, length);
	assert_int_equal(t.d.extents, 3);
	assert_int_equal(t.d.blocks, 145);
	for (int i = 0; i < 5000; i++)
		reads(&t, below(&t, length / 4096) * 4096, 4096, MS);
	assert_true(t.d.touched <= 145);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_reads_at_random_over_a_large_image_bring_in_nothing_else),
		cmocka_unit_test(larger_reads_at_random_cost_a_tenth_more_at_most),
		cmocka_unit_test(files_of_a_folder_soon_come_as_whole_extents),
		cmocka_unit_test(trust_that_is_lost_stops_extents_at_first_visits),
		cmocka_unit_test(a_small_image_that_is_read_all_over_is_wanted_whole),
		cmocka_unit_test(an_image_is_not_wanted_whole_when_the_store_has_no_room),
		cmocka_unit_test(an_image_is_not_wanted_whole_when_it_is_read_slowly),
		cmocka_unit_test(one_long_read_is_one_visit),
		cmocka_unit_test(a_hit_is_news_once_and_only_in_extents_that_are_watched),
		cmocka_unit_test(the_last_extent_may_be_short),
	};

	return cmocka_run_group_tests_name("density", tests, NULL, NULL);
}
