/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "observe/policy_file.h"

static char dir[64], path[128], aside[160];
static struct err err;

static int set_up(void **state)
{
	(void)state;
	scratch_new(dir);
	snprintf(path, sizeof(path), "%s/" POLICY_FILE_NAME, dir);
	snprintf(aside, sizeof(aside), "%s.damaged", path);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	scratch_free(dir);
	return 0;
}

static void put_text(const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static struct tuning min_run(uint64_t n)
{
	struct tuning t = {.have = 1 << TUNE_MIN_RUN};

	t.value[TUNE_MIN_RUN] = n;
	return t;
}

static void what_is_saved_is_loaded(void **state)
{
	struct policy_file f = {0}, g;
	struct tuning t = min_run(7);

	(void)state;
	t.have |= 1 << TUNE_HALF_LIFE | 1 << TUNE_ENABLE;
	t.value[TUNE_HALF_LIFE] = 1500;
	t.value[TUNE_ENABLE] = 0;
	assert_int_equal(policy_file_put(&f, false, "sha256:aa", &t, &err), 0);
	t = min_run(9);
	assert_int_equal(policy_file_put(&f, true, "/sys/fs/cgroup/\"odd\" name", &t, &err), 0);
	assert_int_equal(policy_file_save(path, &f, &err), 0);
	assert_int_equal(policy_file_load(path, &g, &err), 0);
	assert_int_equal(g.n, 2);
	assert_int_equal(policy_file_find(&g, false, "sha256:aa")->value[TUNE_HALF_LIFE], 1500);
	assert_int_equal(policy_file_find(&g, false, "sha256:aa")->value[TUNE_ENABLE], 0);
	assert_int_equal(policy_file_find(&g, true, "/sys/fs/cgroup/\"odd\" name")->have,
			 1 << TUNE_MIN_RUN);
	assert_null(policy_file_find(&g, true, "sha256:aa"));
	policy_file_free(&f);
	policy_file_free(&g);
}

static void no_file_is_no_policy(void **state)
{
	struct policy_file f;

	(void)state;
	assert_int_equal(policy_file_load(path, &f, &err), 0);
	assert_int_equal(f.n, 0);
}

static void an_entry_whose_last_key_is_reset_goes(void **state)
{
	struct policy_file f = {0};
	struct tuning t = min_run(7), reset = {.reset = 1 << TUNE_MIN_RUN};

	(void)state;
	assert_int_equal(policy_file_put(&f, false, "one", &t, &err), 0);
	assert_int_equal(policy_file_put(&f, false, "two", &t, &err), 0);
	assert_int_equal(policy_file_put(&f, false, "one", &reset, &err), 0);
	assert_int_equal(f.n, 1);
	assert_null(policy_file_find(&f, false, "one"));
	assert_non_null(policy_file_find(&f, false, "two"));
	assert_int_equal(policy_file_put(&f, false, "never", &reset, &err), 0);
	assert_int_equal(f.n, 1);
	policy_file_free(&f);
}

#define HEAD "{\"format\":\"cairn-policy\",\"version\":1,"

static void a_damaged_file_is_said_and_kept_aside(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{"", "no file of policies"},
		{"{\"format\":\"cairn-pol", "no file of policies"},
		{"\1\2\3\377\376", "no file of policies"},
		{"{}", "no file of policies"},
		{"{\"format\":\"cairn-policy\",\"version\":2,\"images\":{},\"cgroups\":{}}",
		 "version 2"},
		{HEAD "\"images\":{}}", "\"cgroups\" is no object"},
		{HEAD "\"images\":[],\"cgroups\":{}}", "\"images\" is no object"},
		{HEAD "\"images\":{\"a\":{\"min_run\":0}},\"cgroups\":{}}", "1 to 1024"},
		{HEAD "\"images\":{\"a\":{\"colour\":3}},\"cgroups\":{}}", "no key colour"},
		{HEAD "\"images\":{\"a\":3},\"cgroups\":{}}", "JSON object"},
		{HEAD "\"images\":{},\"cgroups\":{\"/a\":{\"read_ahead_kb\":3}}}", "a device's"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct policy_file f;
		char *kept;
		size_t len;

		put_text(bad[i].text);
		assert_int_equal(policy_file_load(path, &f, &err), -EINVAL);
		if (!strstr(err.text, bad[i].why) || !strstr(err.text, aside))
			fail_msg("%s: %s", bad[i].text, err.text);
		assert_int_equal(f.n, 0);
		assert_int_equal(access(path, F_OK), -1);
		assert_int_equal(file_read_all(aside, 4096, &kept, &len), 0);
		assert_string_equal(kept, bad[i].text);
		free(kept);
	}
}

static void a_save_that_fails_leaves_the_old_file(void **state)
{
	struct policy_file f = {0}, g;
	struct tuning t = min_run(7);
	char tmp[160];

	(void)state;
	assert_int_equal(policy_file_put(&f, false, "one", &t, &err), 0);
	assert_int_equal(policy_file_save(path, &f, &err), 0);
	snprintf(tmp, sizeof(tmp), "%s.new", path);
	assert_int_equal(mkdir(tmp, 0700), 0); /* its place is taken */
	assert_int_equal(policy_file_put(&f, false, "two", &t, &err), 0);
	assert_true(policy_file_save(path, &f, &err) < 0);
	assert_non_null(strstr(err.text, "in force but can't be saved"));
	assert_int_equal(policy_file_load(path, &g, &err), 0);
	assert_int_equal(g.n, 1);
	policy_file_free(&f);
	policy_file_free(&g);
}

static void policies_are_bounded(void **state)
{
	struct policy_file f = {0};
	struct tuning t = min_run(7);
	char name[16];

	(void)state;
	for (int i = 0; i < POLICY_FILE_ENTRIES; i++) {
		snprintf(name, sizeof(name), "%d", i);
		assert_int_equal(policy_file_put(&f, true, name, &t, &err), 0);
	}
	assert_int_equal(policy_file_put(&f, true, "more", &t, &err), -ENOSPC);
	assert_int_equal(policy_file_put(&f, true, "7", &t, &err), 0);
	policy_file_free(&f);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_saved_is_loaded),
		T(no_file_is_no_policy),
		T(an_entry_whose_last_key_is_reset_goes),
		T(a_damaged_file_is_said_and_kept_aside),
		T(a_save_that_fails_leaves_the_old_file),
		T(policies_are_bounded),
	};

	return cmocka_run_group_tests_name("policy_file", tests, NULL, NULL);
}
