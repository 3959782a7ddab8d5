/* SPDX-License-Identifier: Apache-2.0 */
/* Exports with devices: attached once, as wished for, and detached with what depends on them. */
#include "control_bed.h"

static void attaching_twice_gives_the_same_device(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, "device", "/dev/loop5");
	answers("POST", "/v1/exports", one_attached, 200, "device", "/dev/loop5");
	assert_int_equal(boss.attaches, 1);
	assert_int_equal(table.expected, 1);
	answers("GET", "/v1/exports/%2Fdev%2Floop5", NULL, 200, "way", "nbdfuse");
}

static void a_device_and_queues_wished_for_reach_the_supervisor(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, "passed_over", "told to refuse");
	assert_int_equal(boss.attach.index, -1);
	assert_int_equal(boss.attach.queues, 0);
	assert_int_equal(boss.attach.flags, 0);
	answers("DELETE", "/v1/exports/one", NULL, 200, NULL, NULL);
	answers("POST", "/v1/exports",
		"{\"url\":\"file:///d/one\",\"attach\":\"nbd\",\"device\":\"/dev/nbd12\","
		"\"queues\":64}",
		201, NULL, NULL);
	assert_string_equal(boss.attach.way, "nbd");
	assert_int_equal(boss.attach.index, 12);
	assert_int_equal(boss.attach.queues, 64);
	assert_int_equal(boss.attach.value[0] % 4096, 0);
}

static void a_device_or_queues_that_cannot_be_are_refused_with_what_can(void **state)
{
	static const char *const bad[] = {
		"\"device\":\"/dev/sda\"", "\"device\":5",   "\"device\":\"\"", "\"queues\":0",
		"\"queues\":65",	   "\"queues\":1.5", "\"queues\":\"2\""};
	char body[128];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(body, sizeof(body), "{\"url\":\"file:///d/one\",\"attach\":\"auto\",%s}",
			 bad[i]);
		answers("POST", "/v1/exports", body, 400, "error",
			bad[i][1] == 'd' ? "/dev/nbd0" : "1 to 64");
	}
	assert_int_equal(boss.attaches, 0);
	assert_int_equal(table.n, 0);
}

static void another_device_than_the_one_it_has_is_a_conflict(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, NULL, NULL);
	answers("POST", "/v1/exports",
		"{\"url\":\"file:///d/one\",\"attach\":\"auto\",\"device\":\"/dev/nbd1\"}", 409,
		"error", "/dev/loop5");
	assert_int_equal(boss.attaches, 1);
}

static void connections_that_come_with_a_device_are_adopted(void **state)
{
	(void)state;
	boss.sends_fds = true;
	atomic_store(&adopted, 0);
	answers("POST", "/v1/exports", one_attached, 201, NULL, NULL);
	assert_int_equal(atomic_load(&adopted), 2);
}

static void another_image_under_the_name_is_a_conflict(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, NULL, NULL);
	answers("POST", "/v1/exports", "{\"url\":\"file:///d/two\",\"name\":\"one\"}", 409, "error",
		"'one' serves file:///d/one");
}

static void a_refused_attach_leaves_no_export_that_was_not_there(void **state)
{
	(void)state;
	boss.code = -ENOTSUP;
	answers("POST", "/v1/exports", one_attached, 501, "error", "told to refuse");
	assert_int_equal(table.n, 0);
	answers("POST", "/v1/exports", one, 201, NULL, NULL);
	answers("POST", "/v1/exports", one_attached, 501, "error", "told to refuse");
	assert_int_equal(table.n, 1);
}

static void detaching_what_is_mounted_is_refused_and_changes_nothing(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, NULL, NULL);
	boss.code = -EBUSY;
	answers("DELETE", "/v1/exports/one", NULL, 409, "error", "told to refuse");
	assert_string_equal(table.list[0].device, "/dev/loop5");
	boss.code = 0;
	answers("DELETE", "/v1/exports/one?force=1", NULL, 200, NULL, NULL);
	assert_int_equal(boss.flags, SUPERVISOR_FORCE);
	assert_int_equal(table.n, 0);
}

static void a_helpers_last_connection_is_waited_for(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, NULL, NULL);
	table.busy = 3;
	answers("DELETE", "/v1/exports/one", NULL, 200, NULL, NULL);
	answers("POST", "/v1/exports", one, 201, NULL, NULL);
	table.busy = 1000; /* a client that never was ours: no waiting */
	answers("DELETE", "/v1/exports/one", NULL, 409, "error", "open connections");
}

static void a_device_the_supervisor_lost_does_not_hold_the_export(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, NULL, NULL);
	boss.code = -ENOENT;
	answers("DELETE", "/v1/exports/one", NULL, 200, NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed(attaching_twice_gives_the_same_device),
		bed(a_device_and_queues_wished_for_reach_the_supervisor),
		bed(a_device_or_queues_that_cannot_be_are_refused_with_what_can),
		bed(another_device_than_the_one_it_has_is_a_conflict),
		bed(connections_that_come_with_a_device_are_adopted),
		bed(another_image_under_the_name_is_a_conflict),
		bed(a_refused_attach_leaves_no_export_that_was_not_there),
		bed(detaching_what_is_mounted_is_refused_and_changes_nothing),
		bed(a_helpers_last_connection_is_waited_for),
		bed(a_device_the_supervisor_lost_does_not_hold_the_export),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
