/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <errno.h>

#include "observe/tune.h"

static struct err err;

static struct tuning parsed(const char *key, const char *text)
{
	struct tuning t = {0};

	if (tune_parse(key, text, TUNE_DEVICE_KEYS, &t, &err))
		fail_msg("%s=%s: %s", key, text, err.text);
	return t;
}

static void refused(const char *key, const char *text, const char *why)
{
	struct tuning t = {0};

	assert_int_equal(tune_parse(key, text, TUNE_DEVICE_KEYS, &t, &err), -EINVAL);
	if (!strstr(err.text, why))
		fail_msg("%s=%s: '%s' does not hold '%s'", key, text, err.text, why);
	assert_int_equal(t.have | t.reset, 0);
}

static void each_key_takes_its_range_and_no_more(void **state)
{
	(void)state;
	assert_int_equal(parsed("half_life", "1").value[TUNE_HALF_LIFE], 1000);
	assert_int_equal(parsed("half_life", "2.5").value[TUNE_HALF_LIFE], 2500);
	assert_int_equal(parsed("half_life", "86400").value[TUNE_HALF_LIFE],
			 POLICY_HALF_LIFE_MAX_MS);
	refused("half_life", "0.999", "1 to 86400 seconds");
	refused("half_life", "86401", "1 to 86400 seconds");
	assert_int_equal(parsed("min_run", "1024").value[TUNE_MIN_RUN], 1024);
	refused("min_run", "0", "1 to 1024 windows");
	refused("min_run", "1025", "1 to 1024 windows");
	assert_int_equal(parsed("ring_sampling", "65536").value[TUNE_RING_SAMPLING], 65536);
	refused("ring_sampling", "65537", "to 65536");
	assert_int_equal(parsed("read_ahead_kb", "0").value[TUNE_READ_AHEAD_KB], 0);
	refused("read_ahead_kb", "1048577", "0 to 1048576 KiB");
}

static void what_is_no_number_is_refused(void **state)
{
	static const char *const bad[] = {"",	"x",   "-1",  "+4",   "4x",   " 4",
					  "4 ", "nan", "inf", "1e99", "0x10", "4.5"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refused("min_run", bad[i], "min_run=");
}

static void enable_takes_the_usual_words(void **state)
{
	(void)state;
	assert_int_equal(parsed("enable", "true").value[TUNE_ENABLE], 1);
	assert_int_equal(parsed("enable", "off").value[TUNE_ENABLE], 0);
	assert_int_equal(parsed("enable", "0").value[TUNE_ENABLE], 0);
	refused("enable", "maybe", "must be true or false, or default");
}

static void an_unknown_key_is_answered_with_those_there_are(void **state)
{
	(void)state;
	refused("halflife", "3",
		"no key halflife; there are enable, half_life, min_run, ring_sampling, "
		"read_ahead_kb");
}

static void a_devices_key_is_refused_for_a_cgroup(void **state)
{
	struct tuning t = {0};

	(void)state;
	assert_int_equal(tune_parse("read_ahead_kb", "4", TUNE_CGROUP_KEYS, &t, &err), -EINVAL);
	assert_non_null(strstr(err.text, "a cgroup has enable, min_run, ring_sampling"));
	assert_int_equal(tune_parse("half_life", "4", TUNE_CGROUP_KEYS, &t, &err), -EINVAL);
	assert_int_equal(tune_parse("min_run", "4", TUNE_CGROUP_KEYS, &t, &err), 0);
}

static void default_takes_a_key_back(void **state)
{
	struct tuning t = parsed("min_run", "9"), base = t;

	(void)state;
	assert_int_equal(tune_parse("min_run", "default", TUNE_DEVICE_KEYS, &t, &err), 0);
	assert_int_equal(t.have, 0);
	assert_int_equal(t.reset, 1 << TUNE_MIN_RUN);
	tuning_merge(&base, &t);
	assert_int_equal(base.have, 0);
}

static void json_of_texts_numbers_and_booleans_is_taken(void **state)
{
	struct tuning t = {0};
	cJSON *o = cJSON_Parse("{\"enable\":false,\"half_life\":1.5,\"min_run\":\"7\"}");

	(void)state;
	assert_int_equal(tune_parse_json(o, TUNE_DEVICE_KEYS, &t, &err), 0);
	assert_int_equal(t.value[TUNE_HALF_LIFE], 1500);
	assert_int_equal(t.value[TUNE_MIN_RUN], 7);
	assert_int_equal(t.have, 1 << TUNE_ENABLE | 1 << TUNE_HALF_LIFE | 1 << TUNE_MIN_RUN);
	cJSON_Delete(o);
	o = cJSON_Parse("{\"min_run\":[7]}");
	assert_int_equal(tune_parse_json(o, TUNE_DEVICE_KEYS, &t, &err), -EINVAL);
	cJSON_Delete(o);
	o = cJSON_Parse("[1]");
	assert_int_equal(tune_parse_json(o, TUNE_DEVICE_KEYS, &t, &err), -EINVAL);
	cJSON_Delete(o);
}

static void a_policy_keeps_what_was_not_tuned(void **state)
{
	struct policy p = {.cgroup = 77,
			   .flags = POLICY_SET | POLICY_DISABLED,
			   .half_life_ms = 5000,
			   .min_run = 3,
			   .ring_sampling = 2};
	struct tuning t = parsed("min_run", "9"), back;

	(void)state;
	p = tuning_policy(&t, p);
	assert_int_equal(p.cgroup, 77);
	assert_int_equal(p.flags, POLICY_SET | POLICY_DISABLED);
	assert_int_equal(p.half_life_ms, 5000);
	assert_int_equal(p.min_run, 9);
	assert_int_equal(tune_parse("half_life", "default", TUNE_DEVICE_KEYS, &t, &err), 0);
	assert_int_equal(tune_parse("enable", "true", TUNE_DEVICE_KEYS, &t, &err), 0);
	p = tuning_policy(&t, p);
	assert_int_equal(p.flags, POLICY_SET);
	assert_int_equal(p.half_life_ms, POLICY_HALF_LIFE_DEFAULT_MS);
	tuning_of_policy(&p, &back);
	assert_int_equal(back.value[TUNE_RING_SAMPLING], 2);
}

static void nonsense_in_the_array_reads_as_defaults(void **state)
{
	struct policy p;
	struct tuning t, none = {0};

	(void)state;
	memset(&p, 0xff, sizeof(p));
	tuning_of_policy(&p, &t);
	assert_int_equal(t.value[TUNE_HALF_LIFE], POLICY_HALF_LIFE_DEFAULT_MS);
	assert_int_equal(t.value[TUNE_MIN_RUN], POLICY_MIN_RUN_DEFAULT);
	p = tuning_policy(&none, p);
	assert_int_equal(p.half_life_ms, POLICY_HALF_LIFE_DEFAULT_MS);
	assert_int_equal(p.reserved[0], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_key_takes_its_range_and_no_more),
		cmocka_unit_test(what_is_no_number_is_refused),
		cmocka_unit_test(enable_takes_the_usual_words),
		cmocka_unit_test(an_unknown_key_is_answered_with_those_there_are),
		cmocka_unit_test(a_devices_key_is_refused_for_a_cgroup),
		cmocka_unit_test(default_takes_a_key_back),
		cmocka_unit_test(json_of_texts_numbers_and_booleans_is_taken),
		cmocka_unit_test(a_policy_keeps_what_was_not_tuned),
		cmocka_unit_test(nonsense_in_the_array_reads_as_defaults),
	};

	return cmocka_run_group_tests_name("tune", tests, NULL, NULL);
}
