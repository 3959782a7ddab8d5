/* SPDX-License-Identifier: Apache-2.0 */
/* Two runs of memory hashed at once have the hashes that they have alone. */
#include "check.h"

#include <stdlib.h>

#include "base/bytes.h"

#define LEN 65536

static void assert_pair_is_as_alone(const uint8_t *a, const uint8_t *b, size_t len)
{
	uint8_t want_a[SHA256_LEN], want_b[SHA256_LEN], got_a[SHA256_LEN], got_b[SHA256_LEN];

	sha256(a, len, want_a);
	sha256(b, len, want_b);
	sha256_pair(a, b, len, got_a, got_b);
	assert_memory_equal(got_a, want_a, SHA256_LEN);
	assert_memory_equal(got_b, want_b, SHA256_LEN);
}

static void a_pair_has_the_hashes_of_each_alone(void **state)
{
	uint8_t *a = malloc(LEN), *b = malloc(LEN);

	(void)state;
	for (uint32_t i = 0; i < LEN; i++) {
		a[i] = (uint8_t)(i * 2654435761u >> 24);
		b[i] = (uint8_t)(i * 40503u >> 7);
	}
	for (size_t len = 0; len <= 1000; len++)
		assert_pair_is_as_alone(a, b, len);
	assert_pair_is_as_alone(a, b, LEN);
	assert_pair_is_as_alone(a, a, LEN);
	for (size_t at = 1; at < 64; at++) /* wherever they lie */
		assert_pair_is_as_alone(a + at, b + 64 - at, LEN - 64);
	free(a);
	free(b);
}

static void one_bit_changes_its_own_hash_only(void **state)
{
	uint8_t *a = calloc(1, LEN), *b = calloc(1, LEN);
	uint8_t zero[SHA256_LEN], got_a[SHA256_LEN], got_b[SHA256_LEN];

	(void)state;
	sha256(a, LEN, zero);
	for (size_t at = 0; at < LEN; at += 509) {
		a[at] ^= 1;
		sha256_pair(a, b, LEN, got_a, got_b);
		assert_memory_not_equal(got_a, zero, SHA256_LEN);
		assert_memory_equal(got_b, zero, SHA256_LEN);
		sha256_pair(b, a, LEN, got_b, got_a);
		assert_memory_not_equal(got_a, zero, SHA256_LEN);
		assert_memory_equal(got_b, zero, SHA256_LEN);
		a[at] ^= 1;
	}
	free(a);
	free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pair_has_the_hashes_of_each_alone),
		cmocka_unit_test(one_bit_changes_its_own_hash_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
