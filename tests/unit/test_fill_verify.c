/* SPDX-License-Identifier: Apache-2.0 */
/* What fills believe: bytes by their hashes, hashes by their tree, a blob that has changed, and a
 * store that somebody damaged. */
#include "fill_bed.h"

static void wrong_bytes_are_fetched_again_and_never_shown(void **state)
{
	(void)state;
	fake.corrupt_block = 20;
	fake.corrupt_times = 1;
	assert_int_equal(get(16 * STORE_BLOCK, 8 * STORE_BLOCK), 0);
	assert_int_equal(fake.requests, 2);
	assert_int_equal(fill_counters(bed->fill)->verify_failures, 1);
}

static void bytes_that_stay_wrong_fail_only_their_own_readers(void **state)
{
	struct wait bad, good;

	(void)state;
	fake.corrupt_block = 20;
	fake.corrupt_times = 1000;
	fake.delay_ms = 20;
	start(&bad, 16 * STORE_BLOCK, 8 * STORE_BLOCK);
	start(&good, 16 * STORE_BLOCK, 4 * STORE_BLOCK);
	assert_int_equal(finish(&bad), -EIO);
	assert_non_null(strstr(bad.why, "image test"));
	assert_non_null(strstr(bad.why, "block 20"));
	assert_int_equal(finish(&good), 0);
	assert_int_equal(object_resident(bed->source.object, 20 * STORE_BLOCK, 1), 0);
	fake.corrupt_times = 0; /* and it heals */
	assert_int_equal(get(16 * STORE_BLOCK, 8 * STORE_BLOCK), 0);
}

static void a_sealed_blob_with_a_new_etag_and_the_same_bytes_is_adopted(void **state)
{
	(void)state;
	fake.etag_changed = true;
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_string_equal(bed->adopted, "\"new\"");
}

static void a_sealed_blob_with_a_new_etag_and_other_bytes_is_refused(void **state)
{
	(void)state;
	fake.etag_changed = true;
	fake.corrupt_block = 0;
	fake.corrupt_times = 1000;
	assert_int_equal(get(0, 4096), -EIO);
	assert_string_equal(bed->adopted, "");
}

static void an_unsealed_blob_with_a_new_etag_is_refused(void **state)
{
	(void)state;
	bed_close();
	bed->sealed = false;
	scratch_free(bed->path);
	scratch_new(bed->path);
	bed_open(GIB, 64 * MIB, 20000);
	assert_int_equal(get(0, 4096), 0);
	fake.etag_changed = true;
	assert_int_equal(get(STORE_EXTENT, 4096), -ESTALE);
}

static void damage(uint64_t off)
{
	uint8_t b;

	assert_int_equal(pread(bed->source.object->data_fd, &b, 1, (off_t)off), 1);
	b ^= 1;
	assert_int_equal(pwrite(bed->source.object->data_fd, &b, 1, (off_t)off), 1);
}

static void suspect_blocks_are_rechecked_and_damaged_ones_fetched_again(void **state)
{
	uint64_t before;

	(void)state;
	assert_int_equal(get(0, STORE_EXTENT), 0);
	damage(3 * STORE_BLOCK + 9);
	bed_crash();
	bed_open(GIB, 64 * MIB, 20000);
	before = fake.bytes_sent;
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_int_equal(fake.bytes_sent - before, STORE_BLOCK);
	assert_int_equal(store_counters(bed->store)->recheck_failures, 1);
	assert_int_equal(store_counters(bed->store)->rechecked_blocks,
			 62); /* less damaged, less zeros */
}

static void an_unsealed_image_rechecks_against_hashes_of_its_own(void **state)
{
	uint64_t before;

	(void)state;
	bed_close();
	bed->sealed = false;
	scratch_free(bed->path);
	scratch_new(bed->path);
	bed_open(GIB, 64 * MIB, 20000);
	assert_int_equal(get(0, STORE_EXTENT), 0);
	damage(3 * STORE_BLOCK + 9);
	bed_crash();
	bed_open(GIB, 64 * MIB, 20000);
	before = fake.bytes_sent;
	assert_int_equal(get(STORE_BLOCK, 5 * STORE_BLOCK), 0);
	assert_int_equal(fake.bytes_sent - before, STORE_BLOCK);
}

static void a_truncated_store_file_costs_a_fetch_and_no_wrong_byte(void **state)
{
	(void)state;
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_int_equal(ftruncate(bed->source.object->data_fd, 1000), 0);
	assert_int_equal(get(0, STORE_EXTENT), 0);
}

static void hashes_come_from_a_tree_that_is_filled_itself(void **state)
{
	(void)state;
	bed->has_tree = true;
	assert_int_equal(get(0, STORE_EXTENT), 0);
	assert_int_equal(object_resident(bed->tree.object, 0, STORE_BLOCK), STORE_BLOCK);
	assert_int_equal(get(2 * STORE_EXTENT, STORE_EXTENT), 0);
}

static void a_tree_that_does_not_match_its_root_fails_reads(void **state)
{
	struct wait w;

	(void)state;
	bed->has_tree = true;
	bed->tree_sum[0] ^= 1;
	start(&w, 0, 4096);
	assert_int_equal(finish(&w), -EIO);
	bed->tree_sum[0] ^= 1;
	assert_int_equal(get(0, 4096), 0);
}

static void hashes_that_go_bad_in_the_store_are_learned_anew(void **state)
{
	uint8_t junk[BLOCKS * SHA256_LEN];

	(void)state;
	bed->has_tree = true;
	bed->hole_block = 9;
	assert_int_equal(get(0, 4096), 0);
	memset(junk, 7, sizeof(junk));
	assert_int_equal(pwrite(bed->tree.object->data_fd, junk, sizeof(junk), 0), sizeof(junk));
	assert_int_equal(get(9 * STORE_BLOCK, 4096), 0);
	assert_int_equal(pwrite(bed->tree.object->data_fd, junk, sizeof(junk), 0), sizeof(junk));
	assert_int_equal(get(STORE_EXTENT, STORE_EXTENT), 0);
	assert_int_equal(get(0, STORE_EXTENT), 0);
}

static void a_hole_is_believed_only_when_its_hash_agrees(void **state)
{
	(void)state;
	bed->hole_block = 9;
	assert_int_equal(get(9 * STORE_BLOCK, 4096), 0);
	bed->hole_block = 10;
	assert_int_equal(get(10 * STORE_BLOCK, 4096), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(wrong_bytes_are_fetched_again_and_never_shown),
		T(bytes_that_stay_wrong_fail_only_their_own_readers),
		T(a_sealed_blob_with_a_new_etag_and_the_same_bytes_is_adopted),
		T(a_sealed_blob_with_a_new_etag_and_other_bytes_is_refused),
		T(an_unsealed_blob_with_a_new_etag_is_refused),
		T(suspect_blocks_are_rechecked_and_damaged_ones_fetched_again),
		T(an_unsealed_image_rechecks_against_hashes_of_its_own),
		T(a_truncated_store_file_costs_a_fetch_and_no_wrong_byte),
		T(hashes_come_from_a_tree_that_is_filled_itself),
		T(a_tree_that_does_not_match_its_root_fails_reads),
		T(hashes_that_go_bad_in_the_store_are_learned_anew),
		T(a_hole_is_believed_only_when_its_hash_agrees),
	};

	return cmocka_run_group_tests_name("fill_verify", tests, NULL, NULL);
}
