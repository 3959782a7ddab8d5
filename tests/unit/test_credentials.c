/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "origin/credentials.h"

#define KEY   "c2VjcmV0LWtleS1vZi1hY2N0" /* "secret-key-of-acct" */
#define OTHER "b3RoZXIta2V5"		 /* "other-key" */

static struct url u;
static struct credentials cred;
static struct err err;

static int resolve(const char *url, struct origin_config cfg)
{
	memset(&err, 0, sizeof(err));
	return credentials_resolve(url, &cfg, &u, &cred, &err);
}

static void assert_key(const char *text)
{
	assert_int_equal(cred.key_len, strlen(text));
	assert_memory_equal(cred.key, text, cred.key_len);
	assert_string_equal(cred.sas, "");
}

static void assert_sas(const char *sas)
{
	assert_int_equal(cred.key_len, 0);
	assert_string_equal(cred.sas, sas);
}

static void a_key_is_used_for_its_account(void **state)
{
	(void)state;
	assert_int_equal(
		resolve("az://acct/ccc/n", (struct origin_config){.account = "acct", .key = KEY}),
		0);
	assert_key("secret-key-of-acct");
	assert_string_equal(u.base, "https://acct.blob.core.windows.net");
	assert_int_equal(resolve("az://acct/ccc/n", (struct origin_config){.key = KEY "\n"}), 0);
	assert_key("secret-key-of-acct");
}

static void a_key_of_another_account_does_not_fit(void **state)
{
	(void)state;
	assert_int_equal(
		resolve("az://acct/ccc/n",
			(struct origin_config){.account = "b", .key = KEY, .identity = "off"}),
		-EACCES);
	assert_non_null(strstr(err.text, "account acct"));
	assert_non_null(strstr(err.text, "AZURE_STORAGE_ACCOUNT is b"));
}

static void no_credential_says_what_to_set(void **state)
{
	(void)state;
	assert_int_equal(resolve("az://acct/ccc/n", (struct origin_config){.identity = "off"}),
			 -EACCES);
	assert_non_null(strstr(err.text, "AZURE_STORAGE_KEY"));
	assert_non_null(strstr(err.text, "AZURE_STORAGE_SAS_TOKEN"));
	assert_non_null(strstr(err.text, "AZURE_STORAGE_CONNECTION_STRING"));
}

static void a_sas_in_the_url_wins(void **state)
{
	struct origin_config cfg = {.account = "acct",
				    .key = KEY,
				    .connection_string = "AccountName=acct;AccountKey=" OTHER};

	(void)state;
	assert_int_equal(resolve("https://acct.blob.core.windows.net/c/n?sv=1&sr=b&sig=x", cfg), 0);
	assert_sas("sv=1&sr=b&sig=x");
}

static void a_sas_token_may_start_with_a_question_mark(void **state)
{
	(void)state;
	assert_int_equal(resolve("az://acct/ccc/n",
				 (struct origin_config){.sas_token = " ?sv=1&sig=a+b%3D\n"}),
			 0);
	assert_sas("sv=1&sig=a%2Bb%3D");
	assert_int_equal(resolve("az://acct/ccc/n", (struct origin_config){.sas_token = "sv=1"}),
			 -EACCES);
	assert_int_equal(
		resolve("az://acct/ccc/n", (struct origin_config){.sas_token = "sig=a\r\nX: y"}),
		-EACCES);
}

static void a_connection_string_gives_account_key_and_endpoint(void **state)
{
	struct origin_config cfg = {
		.connection_string =
			"DefaultEndpointsProtocol=http;AccountName=acct;AccountKey=" KEY
			";EndpointSuffix=cloud.example"};

	(void)state;
	assert_int_equal(resolve("az://acct/ccc/n", cfg), 0);
	assert_key("secret-key-of-acct");
	assert_string_equal(u.base, "http://acct.blob.cloud.example");
}

static void a_blob_endpoint_with_a_sas_needs_no_account_name(void **state)
{
	struct origin_config cfg = {.connection_string =
					    "BlobEndpoint=http://127.0.0.1:99/devstoreaccount1/"
					    ";SharedAccessSignature=?sv=1&sig=z;"};

	(void)state;
	assert_int_equal(resolve("az://devstoreaccount1/ccc/n", cfg), 0);
	assert_sas("sv=1&sig=z");
	assert_string_equal(u.base, "http://127.0.0.1:99/devstoreaccount1");
}

static void development_storage_is_the_emulator(void **state)
{
	struct origin_config cfg = {.connection_string = "UseDevelopmentStorage=true"};

	(void)state;
	assert_int_equal(resolve("az://devstoreaccount1/ccc/n", cfg), 0);
	assert_int_equal(cred.key_len, 64);
	assert_string_equal(u.base, "http://127.0.0.1:10000/devstoreaccount1");
	cfg.connection_string =
		"UseDevelopmentStorage=TRUE;DevelopmentStorageProxyUri=http://host/";
	assert_int_equal(resolve("az://devstoreaccount1/ccc/n", cfg), 0);
	assert_string_equal(u.base, "http://host:10000/devstoreaccount1");
}

static void a_connection_string_of_another_account_leaves_the_key_to_be_used(void **state)
{
	struct origin_config cfg = {.connection_string = "AccountName=b;AccountKey=" OTHER,
				    .identity = "off"};

	(void)state;
	assert_int_equal(resolve("az://acct/ccc/n", cfg), -EACCES);
	assert_non_null(strstr(err.text, "account b"));
	cfg.key = KEY;
	assert_int_equal(resolve("az://acct/ccc/n", cfg), 0);
	assert_key("secret-key-of-acct");
}

static void a_broken_connection_string_is_named_but_not_quoted(void **state)
{
	static const char *const bad[] = {"SECRET", "AccountKey=SECRET", "AccountName=a;SECRET",
					  "BlobEndpoint=SECRET",
					  "AccountName=a;DefaultEndpointsProtocol=ftp"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct origin_config cfg = {.connection_string = bad[i]};

		assert_int_equal(resolve("az://acct/ccc/n", cfg), -EINVAL);
		assert_non_null(strstr(err.text, "connection string"));
		assert_null(strstr(err.text, "SECRET"));
		assert_int_equal(resolve("https://acct.blob.core.windows.net/c/n?sig=x", cfg), 0);
		assert_int_equal(resolve("file:///a", cfg), 0);
	}
}

static void a_key_that_is_not_base64_is_refused_unshown(void **state)
{
	(void)state;
	assert_int_equal(resolve("az://acct/ccc/n", (struct origin_config){.key = "SECRET!"}),
			 -EACCES);
	assert_non_null(strstr(err.text, "AZURE_STORAGE_KEY"));
	assert_null(strstr(err.text, "SECRET"));
}

static void an_identity_is_used_where_nothing_else_fits(void **state)
{
	(void)state;
	assert_int_equal(resolve("az://acct/ccc/n", (struct origin_config){0}), 0);
	assert_true(cred.use_identity);
	assert_int_equal(cred.identity, IDENTITY_AUTO);
	assert_string_equal(cred.why, "no key and no SAS is set; ");
	assert_int_equal(
		resolve("az://acct/ccc/n", (struct origin_config){.account = "b", .key = KEY}), 0);
	assert_true(cred.use_identity);
	assert_non_null(strstr(cred.why, "AZURE_STORAGE_ACCOUNT is b"));
	assert_int_equal(
		resolve("az://acct/ccc/n", (struct origin_config){.key = KEY, .identity = "auto"}),
		0);
	assert_false(cred.use_identity);
}

static void an_identity_asked_for_by_name_gives_way_to_the_urls_sas_only(void **state)
{
	struct origin_config cfg = {.key = KEY, .identity = "workload"};

	(void)state;
	assert_int_equal(resolve("az://acct/ccc/n", cfg), 0);
	assert_true(cred.use_identity);
	assert_int_equal(cred.identity, IDENTITY_WORKLOAD);
	assert_int_equal(cred.key_len, 0);
	assert_int_equal(resolve("https://acct.blob.core.windows.net/c/n?sv=1&sig=x", cfg), 0);
	assert_false(cred.use_identity);
	assert_sas("sv=1&sig=x");
}

static void a_token_never_goes_over_plain_http(void **state)
{
	struct origin_config cfg = {.identity = "managed"};

	(void)state;
	assert_int_equal(resolve("http://127.0.0.1:1/devstoreaccount1/c/n", cfg), -EACCES);
	assert_non_null(strstr(err.text, "over https only"));
	cfg.identity = NULL;
	assert_int_equal(resolve("http://127.0.0.1:1/devstoreaccount1/c/n", cfg), -EACCES);
	assert_non_null(strstr(err.text, "over https only"));
	assert_non_null(strstr(err.text, "AZURE_STORAGE_KEY"));
}

static void azures_own_variable_chooses_the_identity(void **state)
{
	struct origin_config cfg = {.identity = "auto"};

	(void)state;
	setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential", 1);
	origin_config_from_env(&cfg);
	assert_int_equal(resolve("az://acct/ccc/n", cfg), 0);
	assert_int_equal(cred.identity, IDENTITY_MANAGED);
	cfg.identity = "off";
	origin_config_from_env(&cfg);
	assert_string_equal(cfg.identity, "off");
	cfg.identity = "AzureCliCredential";
	assert_int_equal(resolve("az://acct/ccc/n", cfg), -EINVAL);
	assert_non_null(strstr(err.text, "AZURE_TOKEN_CREDENTIALS=AzureCliCredential"));
	cfg.key = KEY;
	assert_int_equal(resolve("az://acct/ccc/n", cfg), 0);
	assert_false(cred.use_identity);
	unsetenv("AZURE_TOKEN_CREDENTIALS");
}

static void http_and_file_urls_need_no_credential(void **state)
{
	(void)state;
	assert_int_equal(resolve("https://h.example/x", (struct origin_config){0}), 0);
	assert_int_equal(u.kind, URL_HTTP);
	assert_int_equal(resolve("file:///x", (struct origin_config){0}), 0);
}

static void the_environment_fills_only_what_is_unset(void **state)
{
	struct origin_config cfg = {.account = "mine"};

	(void)state;
	setenv("AZURE_STORAGE_ACCOUNT", "theirs", 1);
	setenv("AZURE_STORAGE_KEY", KEY, 1);
	setenv("AZURE_STORAGE_SAS_TOKEN", "", 1);
	setenv("AZURE_STORAGE_CONNECTION_STRING", "cs", 1);
	origin_config_from_env(&cfg);
	assert_string_equal(cfg.account, "mine");
	assert_string_equal(cfg.key, KEY);
	assert_null(cfg.sas_token);
	assert_string_equal(cfg.connection_string, "cs");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_is_used_for_its_account),
		cmocka_unit_test(a_key_of_another_account_does_not_fit),
		cmocka_unit_test(no_credential_says_what_to_set),
		cmocka_unit_test(a_sas_in_the_url_wins),
		cmocka_unit_test(a_sas_token_may_start_with_a_question_mark),
		cmocka_unit_test(a_connection_string_gives_account_key_and_endpoint),
		cmocka_unit_test(a_blob_endpoint_with_a_sas_needs_no_account_name),
		cmocka_unit_test(development_storage_is_the_emulator),
		cmocka_unit_test(a_connection_string_of_another_account_leaves_the_key_to_be_used),
		cmocka_unit_test(a_broken_connection_string_is_named_but_not_quoted),
		cmocka_unit_test(a_key_that_is_not_base64_is_refused_unshown),
		cmocka_unit_test(an_identity_is_used_where_nothing_else_fits),
		cmocka_unit_test(an_identity_asked_for_by_name_gives_way_to_the_urls_sas_only),
		cmocka_unit_test(a_token_never_goes_over_plain_http),
		cmocka_unit_test(azures_own_variable_chooses_the_identity),
		cmocka_unit_test(http_and_file_urls_need_no_credential),
		cmocka_unit_test(the_environment_fills_only_what_is_unset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
