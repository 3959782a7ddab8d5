/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "origin/azure_sign.h"

/* As Microsoft's JavaScript client sorts them (its SharedKeyComparator was the oracle). */
static const char *const sorted[] = {
	"x-ms-blob-content-type", "x-ms-blobtype",	"x-ms-blob-type",
	"x-ms-client-request-id", "x-ms-date",		"x-ms-meta-a!b",
	"x-ms-meta-a.b",	  "x-ms-meta-a+b",	"x-ms-meta-a9b",
	"x-ms-meta-ab",		  "x-ms-meta-a-b",	"x-ms-meta-a-c",
	"x-ms-meta-coop",	  "x-ms-meta-coo-p",	"x-ms-meta-co-op",
	"x-ms-meta-foo",	  "x-ms-meta-foo_bar",	"x-ms-meta-foo2",
	"x-ms-meta-foo-2",	  "x-ms-meta-foo2_bar", "x-ms-meta-i_",
	"x-ms-meta-i0",		  "x-ms-meta-z",	"x-ms-meta-z'",
	"x-ms-meta-z-",		  "x-ms-range",		"x-ms-version",
};

static void header_names_are_ordered_as_azure_orders_them(void **state)
{
	size_t n = sizeof(sorted) / sizeof(*sorted);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < n; j++) {
			int cmp = azure_header_cmp(sorted[i], sorted[j]);

			assert_int_equal((cmp > 0) - (cmp < 0), (i > j) - (i < j));
		}
	}
}

static const char emulator_key[] =
	"Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

static void assert_signature(const struct azure_string *s, const char *expected)
{
	char sig[AZURE_SIGNATURE_LEN];
	uint8_t key[64];
	size_t len;

	assert_int_equal(base64_decode(emulator_key, key, sizeof(key), &len), 0);
	assert_int_equal(len, 64);
	assert_int_equal(azure_sign(s, key, len, sig), 0);
	assert_string_equal(sig, expected);
}

static void a_range_read_of_the_emulator_signs_the_account_twice(void **state)
{
	struct azure_string s = {
		.method = "GET",
		.account = "devstoreaccount1",
		.path = "/devstoreaccount1/c/a%20b",
		.query = "",
		.if_match = "\"0x1\"",
		.headers = {{"x-ms-version", "2021-12-02"},
			    {"x-ms-range", "bytes=0-4095"},
			    {"x-ms-date", "Sun, 06 Nov 1994 08:49:37 GMT"}},
		.nheaders = 3,
	};
	char *text = azure_string_to_sign(&s);

	(void)state;
	assert_non_null(text);
	assert_string_equal(text,
			    "GET\n\n\n\n\n\n\n\n\"0x1\"\n\n\n\n"
			    "x-ms-date:Sun, 06 Nov 1994 08:49:37 GMT\nx-ms-range:bytes=0-4095\n"
			    "x-ms-version:2021-12-02\n"
			    "/devstoreaccount1/devstoreaccount1/c/a%20b");
	free(text);
	assert_signature(&s, "K5vlr/tPC6sSuVWbPW1Ed6gnt4WRvU1zjbcSTf/qkMw=");
}

static void query_parameters_are_decoded_and_sorted_and_the_length_counts(void **state)
{
	struct azure_string s = {
		.method = "PUT",
		.account = "acct",
		.path = "/c/n",
		.query = "comp=block&blockid=MDA%3D&Timeout=30",
		.content_length = 11,
		.content_type = "application/xml",
		.if_none_match = "*",
		.headers = {{"x-ms-version", "2021-12-02"},
			    {"x-ms-date", "Sun, 06 Nov 1994 08:49:37 GMT"},
			    {"x-ms-blob-content-type", "application/octet-stream"}},
		.nheaders = 3,
	};

	(void)state;
	assert_signature(&s, "zseYWcthKkUeDrvWyFTdywiS7Pf5L1tIk1fQBuqY/n0=");
}

static void an_empty_body_signs_an_empty_length(void **state)
{
	struct azure_string s = {.method = "PUT", .account = "a", .path = "/c/n", .query = ""};
	char *text = azure_string_to_sign(&s);

	(void)state;
	assert_string_equal(text, "PUT\n\n\n\n\n\n\n\n\n\n\n\n/a/c/n");
	free(text);
}

static void more_parameters_than_are_signed_is_refused(void **state)
{
	struct azure_string s = {.method = "GET",
				 .account = "a",
				 .path = "/c/n",
				 .query = "a=1&b=1&c=1&d=1&e=1&f=1&g=1&h=1&i=1"};

	(void)state;
	assert_null(azure_string_to_sign(&s));
}

static void dates_are_written_as_http_wants_them(void **state)
{
	char date[30];

	(void)state;
	azure_date(784111777, date);
	assert_string_equal(date, "Sun, 06 Nov 1994 08:49:37 GMT");
}

static void what_is_not_base64_is_refused(void **state)
{
	static const char *const bad[] = {"", "a", "ab==c", "a b=", "ab=c", "====", "abc\n"};
	uint8_t out[8];
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(base64_decode(bad[i], out, sizeof(out), &len), -EINVAL);
	assert_int_equal(base64_decode("AAAAAAAAAAAAAAAA", out, sizeof(out), &len), -EINVAL);
	assert_int_equal(base64_decode("Zm9vYmE=", out, sizeof(out), &len), 0);
	assert_int_equal(len, 5);
	assert_memory_equal(out, "fooba", 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(header_names_are_ordered_as_azure_orders_them),
		cmocka_unit_test(a_range_read_of_the_emulator_signs_the_account_twice),
		cmocka_unit_test(query_parameters_are_decoded_and_sorted_and_the_length_counts),
		cmocka_unit_test(an_empty_body_signs_an_empty_length),
		cmocka_unit_test(more_parameters_than_are_signed_is_refused),
		cmocka_unit_test(dates_are_written_as_http_wants_them),
		cmocka_unit_test(what_is_not_base64_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
