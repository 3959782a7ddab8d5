/* SPDX-License-Identifier: Apache-2.0 */
/* Exports are made, asked for, given limits and removed. */
#include "control_bed.h"

static void an_export_is_added_found_and_removed(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one, 201, "uri", "nbd+unix:///one?socket=/run/n.sock");
	answers("POST", "/v1/exports", one, 200, "name", "one");
	answers("GET", "/v1/exports/one", NULL, 200, "url", "file:///d/one");
	answers("GET", "/v1/exports/file%3A%2F%2F%2Fd%2Fone", NULL, 200, "name", "one");
	answers("DELETE", "/v1/exports/one", NULL, 200, "name", "one");
	answers("GET", "/v1/exports/one", NULL, 404, "error", "no export is called one");
	assert_int_equal(boss.attaches + boss.detaches, 0);
}

static void an_upgrade_names_the_next_worker_or_says_why_not(void **state)
{
	unsigned status;
	cJSON *o = ask("POST", "/v1/upgrade", "{}", &status);

	(void)state;
	assert_int_equal(status, 202);
	assert_int_equal(cJSON_GetObjectItem(o, "next_pid")->valueint, 4711);
	cJSON_Delete(o);
	boss.code = -EINVAL;
	answers("POST", "/v1/upgrade", "{}", 400, "error", "told to refuse");
	answers("GET", "/v1/upgrade", NULL, 405, NULL, NULL);
}

static void refresh_is_passed_on(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", "{\"url\":\"file:///d/one\",\"refresh\":true}", 201, NULL,
		NULL);
	assert_int_equal(table.refreshes, 1);
}

static void a_limit_and_on_deadline_are_passed_on_and_told(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", "{\"url\":\"file:///d/one\",\"on_deadline\":\"wait\"}", 201,
		"on_deadline", "wait");
	answers("PATCH", "/v1/exports/one", "{\"limit\":5000000}", 200, NULL, NULL);
	assert_int_equal(table.list[0].limit, 5000000);
	answers("PATCH", "/v1/exports/one", "{\"limit\":-1}", 400, NULL, NULL);
	answers("PATCH", "/v1/exports/one", "{}", 400, NULL, NULL);
	answers("PATCH", "/v1/exports/two", "{\"limit\":1}", 404, NULL, NULL);
	assert_int_equal(table.list[0].limit, 5000000);
	/* an export that was not there is not there afterwards */
	answers("POST", "/v1/exports", "{\"url\":\"file:///d/two\",\"on_deadline\":\"maybe\"}", 400,
		NULL, NULL);
	assert_int_equal(table.n, 1);
}

static void what_an_export_may_have_of_the_store_is_passed_on_and_told(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", "{\"url\":\"file:///d/one\"}", 201, NULL, NULL);
	table.list[0].limit = 7;
	answers("PATCH", "/v1/exports/one", "{\"store_limit\":5000000000}", 200, NULL, NULL);
	assert_true(table.list[0].store_limit == 5000000000);
	assert_false(table.list[0].kept);
	answers("PATCH", "/v1/exports/one", "{\"keep\":true}", 200, NULL, NULL);
	assert_true(table.list[0].kept);
	assert_true(table.list[0].store_limit == 5000000000);
	answers("PATCH", "/v1/exports/one", "{\"keep\":1}", 400, NULL, NULL);
	answers("PATCH", "/v1/exports/one", "{\"store_limit\":\"1G\"}", 400, NULL, NULL);
	answers("PATCH", "/v1/exports/one", "{\"store_limit\":-1,\"keep\":false}", 400, NULL, NULL);
	assert_true(table.list[0].kept);
	answers("PATCH", "/v1/exports/one", "{\"store_limit\":0,\"keep\":false}", 200, NULL, NULL);
	assert_int_equal(table.list[0].store_limit, 0);
	assert_false(table.list[0].kept);
	assert_int_equal(table.list[0].limit, 7);
}

static void requests_that_make_no_sense_are_told_why(void **state)
{
	char *huge = malloc(200000);

	(void)state;
	answers("POST", "/v1/exports", "{", 400, "error", "must be a JSON object");
	answers("POST", "/v1/exports", NULL, 400, "error", "must be a JSON object");
	answers("POST", "/v1/exports", "[]", 400, "error", "must be a JSON object");
	answers("POST", "/v1/exports", "{\"url\":7}", 400, "error", "\"url\" must be");
	answers("POST", "/v1/exports", "{\"url\":\"x\",\"name\":7}", 400, "error", "must be text");
	answers("POST", "/v1/exports", "{\"url\":\"file:///missing\"}", 404, "error",
		"no such blob");
	answers("PUT", "/v1/exports", one, 405, "error", "method");
	answers("POST", "/metrics", one, 405, "error", "method");
	answers("GET", "/", NULL, 404, "error", "/v1/status");
	memset(huge, ' ', 199999);
	huge[199999] = 0;
	answers("POST", "/v1/exports", huge, 413, "error", "64 KiB");
	free(huge);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed(an_export_is_added_found_and_removed),
		bed(an_upgrade_names_the_next_worker_or_says_why_not),
		bed(refresh_is_passed_on),
		bed(a_limit_and_on_deadline_are_passed_on_and_told),
		bed(what_an_export_may_have_of_the_store_is_passed_on_and_told),
		bed(requests_that_make_no_sense_are_told_why),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
