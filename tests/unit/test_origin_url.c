/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "origin/url.h"

static struct url u;
static struct err err;

static void assert_azure(const char *url, const char *account, const char *base,
			 const char *container, const char *folder, const char *name)
{
	int rc = url_parse(url, NULL, &u, &err);

	if (rc)
		print_error("%s\n", err.text);
	assert_int_equal(rc, 0);
	assert_int_equal(u.kind, URL_AZURE);
	assert_string_equal(u.account, account);
	assert_string_equal(u.base, base);
	assert_string_equal(u.container, container);
	assert_string_equal(u.folder, folder);
	assert_string_equal(u.name, name);
}

static void each_form_of_an_azure_url_is_taken_apart(void **state)
{
	(void)state;
	assert_azure("az://acct/data/dir/a.img", "acct", "", "data", "dir/", "a.img");
	assert_azure("https://acct.blob.core.windows.net/data/a.img", "acct",
		     "https://acct.blob.core.windows.net", "data", "", "a.img");
	assert_azure("https://acct-secondary.blob.core.windows.net:443/data/x/y/a.img", "acct",
		     "https://acct-secondary.blob.core.windows.net:443", "data", "x/y/", "a.img");
	assert_azure("https://acct.z12.blob.storage.azure.net/data/a", "acct",
		     "https://acct.z12.blob.storage.azure.net", "data", "", "a");
	assert_azure("https://acct.blob.core.usgovcloudapi.net/data/a", "acct",
		     "https://acct.blob.core.usgovcloudapi.net", "data", "", "a");
	assert_azure("http://127.0.0.1:10000/devstoreaccount1/c/d/e", "devstoreaccount1",
		     "http://127.0.0.1:10000/devstoreaccount1", "c", "d/", "e");
	assert_azure("http://azurite:10000/devstoreaccount1/c/e", "devstoreaccount1",
		     "http://azurite:10000/devstoreaccount1", "c", "", "e");
}

static void a_sas_stays_as_it_was_written(void **state)
{
	(void)state;
	assert_azure(
		"https://acct.blob.core.windows.net/data/a.img?sv=2021-12-02&sr=b&sig=a%2Bb%3D",
		"acct", "https://acct.blob.core.windows.net", "data", "", "a.img");
	assert_string_equal(u.query, "sv=2021-12-02&sr=b&sig=a%2Bb%3D");
	assert_azure("az://acct/data/a.img?sv=1&sig=x", "acct", "", "data", "", "a.img");
	assert_string_equal(u.query, "sv=1&sig=x");
}

static void hints_make_a_path_style_url_azures(void **state)
{
	struct url_hints account = {.account = "mine"};
	struct url_hints endpoint = {.blob_endpoint = "http://store.example:8080/other"};
	struct url_hints suffix = {.suffix = "cloud.example"};

	(void)state;
	assert_int_equal(url_parse("http://127.0.0.1:9/mine/c/n", &account, &u, &err), 0);
	assert_int_equal(u.kind, URL_AZURE);
	assert_string_equal(u.account, "mine");
	assert_int_equal(url_parse("http://example.org/mine/c/n", &account, &u, &err), 0);
	assert_int_equal(u.kind, URL_HTTP);
	assert_int_equal(url_parse("http://store.example:8080/other/c/n", &endpoint, &u, &err), 0);
	assert_int_equal(u.kind, URL_AZURE);
	assert_string_equal(u.base, "http://store.example:8080/other");
	assert_string_equal(u.container, "c");
	assert_int_equal(url_parse("http://store.example:8080/otherwise/c/n", &endpoint, &u, &err),
			 0);
	assert_int_equal(u.kind, URL_HTTP);
	assert_int_equal(url_parse("https://a.blob.cloud.example/c/n", &suffix, &u, &err), 0);
	assert_int_equal(u.kind, URL_AZURE);
	assert_string_equal(u.account, "a");
}

static void a_lookalike_host_is_not_azures(void **state)
{
	(void)state;
	assert_int_equal(url_parse("https://blob.core.windows.net/c/n", NULL, &u, &err), 0);
	assert_int_equal(u.kind, URL_HTTP);
	assert_int_equal(
		url_parse("https://a.blob.core.windows.net.evil.example/c/n", NULL, &u, &err), 0);
	assert_int_equal(u.kind, URL_HTTP);
	assert_string_equal(u.account, "");
}

static void names_are_decoded(void **state)
{
	(void)state;
	assert_azure("az://a/ccc/dir%20x/a+b%25%C3%A9.img", "a", "", "ccc", "dir x/",
		     "a+b%\xc3\xa9.img");
	assert_azure("az://a/ccc/plain \xc3\xa9", "a", "", "ccc", "", "plain \xc3\xa9");
}

static void an_http_url_keeps_its_path_and_query(void **state)
{
	(void)state;
	assert_int_equal(url_parse("https://me:p%40ss@h.example:8443/a%2Fb/c d/x%20y.img?k=v", NULL,
				   &u, &err),
			 0);
	assert_int_equal(u.kind, URL_HTTP);
	assert_string_equal(u.base, "https://h.example:8443");
	assert_string_equal(u.userinfo, "me:p@ss");
	assert_string_equal(u.folder, "/a%2Fb/c d/");
	assert_string_equal(u.name, "x y.img");
	assert_string_equal(u.query, "k=v");
}

static void a_file_url_is_an_absolute_path(void **state)
{
	(void)state;
	assert_int_equal(url_parse("file:///srv/my%20images/a.img", NULL, &u, &err), 0);
	assert_int_equal(u.kind, URL_FILE);
	assert_string_equal(u.folder, "/srv/my images/");
	assert_string_equal(u.name, "a.img");
	assert_int_equal(url_parse("file://localhost/a.img", NULL, &u, &err), 0);
	assert_string_equal(u.folder, "/");
	assert_int_equal(url_parse("file://srv/a.img", NULL, &u, &err), -EINVAL);
}

static void what_is_no_blobs_url_is_refused_with_the_forms(void **state)
{
	static const char *const bad[] = {
		"",
		"/srv/a.img",
		"a.img",
		"ftp://h/x",
		"az://",
		"az://a",
		"az://a/c",
		"az://a/c/",
		"az:///c/n",
		"az://A_B/c/n",
		"az://a/C/n",
		"az://a/c/dir/",
		"az://a/c//n",
		"az://a/c/../n",
		"az://a/c/%2e%2e/n",
		"az://a/c/a%",
		"az://a/c/a%zz",
		"az://a/c/%00",
		"az://a/c/a%0ab",
		"az://a/c/n#x",
		"az://u@a/c/n",
		"https://",
		"https://h",
		"https://h/",
		"http://h/..",
		"file:///",
		"file:///srv/",
		"file:///srv/a?b",
		"az://a/c/n\n",
	};
	char url[ORIGIN_URL_MAX + 16];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		memset(&err, 0, sizeof(err));
		if (url_parse(bad[i], NULL, &u, &err) != -EINVAL)
			fail_msg("accepted: %s", bad[i]);
		assert_non_null(strstr(err.text, "az://ACCOUNT/CONTAINER/NAME"));
		assert_non_null(strstr(err.text, "file:///PATH"));
	}
	memset(url, 'a', sizeof(url));
	memcpy(url, "az://a/ccc/", 11);
	url[sizeof(url) - 1] = 0;
	assert_int_equal(url_parse(url, NULL, &u, &err), -EINVAL);
	url[11 + ORIGIN_NAME_MAX + 1] = 0;
	assert_int_equal(url_parse(url, NULL, &u, &err), -EINVAL);
	url[11 + ORIGIN_NAME_MAX] = 0;
	assert_int_equal(url_parse(url, NULL, &u, &err), 0);
}

static void a_sas_that_the_shell_cut_is_refused_with_the_reason(void **state)
{
	(void)state;
	assert_int_equal(url_parse("https://a.blob.core.windows.net/c/n?sv=2021", NULL, &u, &err),
			 -EINVAL);
	assert_non_null(strstr(err.text, "quotes"));
}

static void encoding_then_decoding_gives_the_same_bytes(void **state)
{
	char all[256], enc[800], dec[256];

	(void)state;
	for (int i = 1; i < 256; i++)
		all[i - 1] = (char)i;
	all[255] = 0;
	assert_true(url_encode(all, "/", enc, sizeof(enc)) < sizeof(enc));
	assert_int_equal(url_decode(enc, strlen(enc), dec, sizeof(dec)), 0);
	assert_string_equal(dec, all);
	assert_int_equal(url_encode("a b", "", enc, 3), 5);
	assert_string_equal(enc, "a");
}

static void assert_redacted(const char *url, const char *expected)
{
	char buf[512];

	assert_string_equal(origin_redact_url(url, buf, sizeof(buf)), expected);
}

static void secrets_are_masked_whatever_was_typed(void **state)
{
	char small[8];

	(void)state;
	assert_redacted("az://a/c/n", "az://a/c/n");
	assert_redacted("https://a.blob.core.windows.net/c/n?sv=2021&SIG=abc%3D&se=2024",
			"https://a.blob.core.windows.net/c/n?sv=2021&SIG=***&se=2024");
	assert_redacted("https://me:pass@h/x", "https://***@h/x");
	assert_redacted("https://h/x?X-Amz-Signature=abc", "https://h/x?X-Amz-Signature=***");
	assert_redacted("https://h/x?bare", "https://h/x?***");
	assert_redacted("sv=1&sig=abc", "sv=1&sig=***");
	assert_redacted("AccountName=a;AccountKey=abc==;EndpointSuffix=x",
			"AccountName=a;AccountKey=***;EndpointSuffix=x");
	assert_redacted("https://h/login%3Fsv%3D1%26sig%3Dabc",
			"https://h/login%3Fsv%3D1%26sig%3D***");
	assert_redacted("", "");
	assert_string_equal(origin_redact_url("az://account", small, sizeof(small)), "az://ac");
}

static void an_error_text_never_shows_a_signature(void **state)
{
	(void)state;
	assert_int_equal(
		url_parse("https://a.blob.core.windows.net/c?sv=1&sig=SECRET", NULL, &u, &err),
		-EINVAL);
	assert_null(strstr(err.text, "SECRET"));
	assert_int_equal(url_parse("ftp://me:SECRET@h/x", NULL, &u, &err), -EINVAL);
	assert_null(strstr(err.text, "SECRET"));
}

static void an_endpoints_account_is_found(void **state)
{
	char account[AZURE_ACCOUNT_MAX + 1];

	(void)state;
	assert_int_equal(url_endpoint_account("https://a.blob.core.windows.net/", NULL, account),
			 0);
	assert_string_equal(account, "a");
	assert_int_equal(
		url_endpoint_account("http://127.0.0.1:10000/devstoreaccount1", NULL, account), 0);
	assert_string_equal(account, "devstoreaccount1");
	assert_int_equal(url_endpoint_account("nonsense", NULL, account), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_form_of_an_azure_url_is_taken_apart),
		cmocka_unit_test(a_sas_stays_as_it_was_written),
		cmocka_unit_test(hints_make_a_path_style_url_azures),
		cmocka_unit_test(a_lookalike_host_is_not_azures),
		cmocka_unit_test(names_are_decoded),
		cmocka_unit_test(an_http_url_keeps_its_path_and_query),
		cmocka_unit_test(a_file_url_is_an_absolute_path),
		cmocka_unit_test(what_is_no_blobs_url_is_refused_with_the_forms),
		cmocka_unit_test(a_sas_that_the_shell_cut_is_refused_with_the_reason),
		cmocka_unit_test(encoding_then_decoding_gives_the_same_bytes),
		cmocka_unit_test(secrets_are_masked_whatever_was_typed),
		cmocka_unit_test(an_error_text_never_shows_a_signature),
		cmocka_unit_test(an_endpoints_account_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
