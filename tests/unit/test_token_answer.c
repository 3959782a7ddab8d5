/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "check.h"
#include "origin/azure_sign.h"
#include "origin/token_answer.h"

#define NOW 1700000000

static struct token_answer a;
static struct err err;

static int parse(const char *json)
{
	memset(&err, 0, sizeof(err));
	return token_answer_parse(json, strlen(json), NOW, &a, &err);
}

static void refused(const char *json, const char *why)
{
	assert_int_equal(parse(json), -EBADMSG);
	if (!strstr(err.text, why))
		fail_msg("\"%s\" does not say \"%s\"", err.text, why);
	assert_null(strstr(err.text, "SECRET"));
	assert_string_equal(a.token, "");
}

static void entras_answer_is_read(void **state)
{
	(void)state;
	assert_int_equal(parse("{\"token_type\":\"Bearer\",\"expires_in\":3599,"
			       "\"ext_expires_in\":86399,\"access_token\":\"abc.def-_\"}"),
			 0);
	assert_string_equal(a.token, "abc.def-_");
	assert_int_equal(a.life_s, 3599);
	assert_int_equal(a.renew_s, 0);
}

static void imdss_numbers_in_strings_are_read(void **state)
{
	(void)state;
	assert_int_equal(parse("{\"access_token\":\"t\",\"client_id\":\"0123-ab\","
			       "\"expires_in\":\"86400\",\"expires_on\":\"1700080000\","
			       "\"refresh_in\":\"43200\",\"token_type\":\"bearer\"}"),
			 0);
	assert_int_equal(a.life_s, 80000); /* the earlier end */
	assert_int_equal(a.renew_s, 43200);
	assert_string_equal(a.client, "0123-ab");
}

static void one_of_expires_in_and_expires_on_is_enough(void **state)
{
	(void)state;
	assert_int_equal(parse("{\"access_token\":\"t\",\"expires_on\":1700000100}"), 0);
	assert_int_equal(a.life_s, 100);
	assert_int_equal(parse("{\"access_token\":\"t\",\"expires_in\":\"7\"}"), 0);
	assert_int_equal(a.life_s, 7);
}

static void a_clock_that_is_wrong_does_not_end_a_token_that_lives(void **state)
{
	(void)state;
	assert_int_equal(parse("{\"access_token\":\"t\",\"expires_in\":3600,"
			       "\"expires_on\":1699990000}"),
			 0);
	assert_int_equal(a.life_s, 3600);
}

static void a_renewal_after_the_end_is_not_believed(void **state)
{
	(void)state;
	assert_int_equal(parse("{\"access_token\":\"t\",\"expires_in\":60,\"refresh_in\":60}"), 0);
	assert_int_equal(a.renew_s, 0);
}

static void what_is_no_token_is_refused_unshown(void **state)
{
	(void)state;
	refused("", "not JSON");
	refused("<html>SECRET</html>", "not JSON");
	refused("\"SECRET\"", "not JSON");
	refused("{\"access_token\":\"SECRET\"", "not JSON");
	refused("{\"expires_in\":1}", "no access_token");
	refused("{\"access_token\":\"\",\"expires_in\":1}", "no access_token");
	refused("{\"access_token\":7,\"expires_in\":1}", "no access_token");
	refused("{\"access_token\":\"SECRET\\r\\nX: y\",\"expires_in\":1}", "character");
	refused("{\"access_token\":\"SECRET\"}", "neither expires_in");
	refused("{\"access_token\":\"SECRET\",\"expires_in\":-1}", "neither expires_in");
	refused("{\"access_token\":\"SECRET\",\"expires_in\":\"1e9\"}", "neither expires_in");
	refused("{\"access_token\":\"SECRET\",\"expires_in\":0}", "had ended");
	refused("{\"access_token\":\"SECRET\",\"expires_on\":1}", "had ended");
	refused("{\"access_token\":\"SECRET\",\"expires_in\":1,\"token_type\":\"pop\"}", "pop");
}

static void a_token_that_is_too_long_is_refused(void **state)
{
	char *json = malloc(2 * TOKEN_MAX);

	(void)state;
	sprintf(json, "{\"expires_in\":60,\"access_token\":\"%0*d\"}", TOKEN_MAX - 1, 0);
	assert_int_equal(parse(json), 0);
	sprintf(json, "{\"expires_in\":60,\"access_token\":\"%0*d\"}", TOKEN_MAX, 0);
	refused(json, "over 16383");
	free(json);
}

static void the_ids_are_those_of_the_tokens_claims(void **state)
{
	char b64[256], json[512];
	const char *claims = "{\"appid\":\"aa-11\",\"oid\":\"bb-22\",\"x\":\"~~~\u00ff>>>\"}";

	(void)state;
	base64_encode(claims, strlen(claims), b64);
	b64[strcspn(b64, "=")] = 0;
	for (char *p = b64; *p; p++)
		*p = *p == '+' ? '-' : *p == '/' ? '_' : *p;
	snprintf(json, sizeof(json), "{\"access_token\":\"e30.%s.\",\"expires_in\":9}", b64);
	assert_int_equal(parse(json), 0);
	assert_string_equal(a.client, "aa-11");
	assert_string_equal(a.object, "bb-22");
}

static void claims_that_are_not_ids_are_passed_over(void **state)
{
	char b64[256], json[512];
	const char *claims = "{\"appid\":\"a\\\" b=SECRET\",\"oid\":3}";

	(void)state;
	base64_encode(claims, strlen(claims), b64);
	b64[strcspn(b64, "=")] = 0;
	snprintf(json, sizeof(json), "{\"access_token\":\"e30.%s.\",\"expires_in\":9}", b64);
	assert_int_equal(parse(json), 0);
	assert_string_equal(a.client, "");
	assert_string_equal(a.object, "");
	assert_int_equal(parse("{\"access_token\":\"a.!!.c\",\"expires_in\":9}"), -EBADMSG);
	assert_int_equal(parse("{\"access_token\":\"a.b.c\",\"expires_in\":9}"), 0);
	assert_int_equal(parse("{\"access_token\":\"a..c\",\"expires_in\":9}"), 0);
}

static void a_secret_is_not_repeated_wherever_it_stands(void **state)
{
	char out[100];

	(void)state;
	assert_string_equal(
		token_answer_error("{\"error\":\"no hunter2\"}", "hunter2", out, sizeof(out)), "");
	assert_string_equal(token_answer_error("{\"error\":\"hunter2\","
					       "\"error_description\":\"well\"}",
					       "hunter2", out, sizeof(out)),
			    "");
}

static void an_error_is_one_line_without_the_secret(void **state)
{
	char out[64];
	const char *body = "{\"error\":\"invalid_client\",\"error_description\":"
			   "\"AADSTS7000215: bad \\\"secret\\\"\\r\\nTrace ID: 1\"}";

	(void)state;
	assert_string_equal(token_answer_error(body, "hush", out, sizeof(out)),
			    "invalid_client: AADSTS7000215: bad  secret ");
	assert_string_equal(token_answer_error(body, "bad", out, sizeof(out)), "");
	assert_string_equal(token_answer_error("{\"error\":\"x\"}", NULL, out, sizeof(out)), "x");
	assert_string_equal(token_answer_error("sorry", NULL, out, sizeof(out)), "");
	assert_string_equal(token_answer_error("{\"error\":{}}", NULL, out, sizeof(out)), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entras_answer_is_read),
		cmocka_unit_test(imdss_numbers_in_strings_are_read),
		cmocka_unit_test(one_of_expires_in_and_expires_on_is_enough),
		cmocka_unit_test(a_clock_that_is_wrong_does_not_end_a_token_that_lives),
		cmocka_unit_test(a_renewal_after_the_end_is_not_believed),
		cmocka_unit_test(what_is_no_token_is_refused_unshown),
		cmocka_unit_test(a_token_that_is_too_long_is_refused),
		cmocka_unit_test(the_ids_are_those_of_the_tokens_claims),
		cmocka_unit_test(claims_that_are_not_ids_are_passed_over),
		cmocka_unit_test(an_error_is_one_line_without_the_secret),
		cmocka_unit_test(a_secret_is_not_repeated_wherever_it_stands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
