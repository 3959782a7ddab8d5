/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "crash/backoff.h"
#include "crash/oom.h"

static void the_first_restart_is_at_once_and_later_ones_wait_twice_as_long(void **state)
{
	static const unsigned wanted[] = {0,	100,  200,   400,   800,  1600,
					  3200, 6400, 10000, 10000, 10000};
	unsigned deaths = 0;

	(void)state;
	for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		assert_int_equal(crash_backoff_ms(&deaths, 5), wanted[i]);
		assert_int_equal(deaths, i + 1);
	}
}

static void a_thousand_deaths_still_wait_ten_seconds(void **state)
{
	unsigned deaths = 1000;

	(void)state;
	assert_int_equal(crash_backoff_ms(&deaths, 0), 10000);
	deaths = 4000000000U;
	assert_int_equal(crash_backoff_ms(&deaths, 0), 10000);
}

static void a_worker_that_lived_a_minute_is_replaced_at_once(void **state)
{
	unsigned deaths = 7;

	(void)state;
	assert_int_equal(crash_backoff_ms(&deaths, 59999), 6400);
	assert_int_equal(deaths, 8);
	assert_int_equal(crash_backoff_ms(&deaths, 60000), 0);
	assert_int_equal(deaths, 1);
	assert_int_equal(crash_backoff_ms(&deaths, 10), 100);
}

static void three_deaths_in_a_row_are_a_loop(void **state)
{
	(void)state;
	assert_false(crash_is_loop(2));
	assert_true(crash_is_loop(3));
}

/* ---- oom ---- */

static void put(const char *dir, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static uint64_t kills(const char *dir, const char *cgroup)
{
	char path[256];

	put(dir, "cgroup", cgroup);
	snprintf(path, sizeof(path), "%s/cgroup", dir);
	return crash_oom_kills_of(path, dir);
}

static void kills_for_memory_are_counted_in_both_versions_of_cgroups(void **state)
{
	char dir[] = "/tmp/cairn-oom.XXXXXX", command[128];

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(command, sizeof(command), "mkdir -p %s/a/b %s/memory/c", dir, dir);
	assert_int_equal(system(command), 0);
	put(dir, "a/b/memory.events", "low 0\noom 9\noom_kill 3\noom_group_kill 1\n");
	put(dir, "memory/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
	assert_int_equal(kills(dir, "0::/a/b\n"), 3);
	assert_int_equal(kills(dir, "7:cpu,cpuacct:/x\n5:memory:/c\n1:name=systemd:/y\n"), 5);
	assert_int_equal(kills(dir, "0::/elsewhere\n"), 0);
	assert_int_equal(kills(dir, "nonsense\n\n:\n"), 0);
	assert_int_equal(crash_oom_kills_of("/nonexistent", dir), 0);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_restart_is_at_once_and_later_ones_wait_twice_as_long),
		cmocka_unit_test(a_thousand_deaths_still_wait_ten_seconds),
		cmocka_unit_test(a_worker_that_lived_a_minute_is_replaced_at_once),
		cmocka_unit_test(three_deaths_in_a_row_are_a_loop),
		cmocka_unit_test(kills_for_memory_are_counted_in_both_versions_of_cgroups),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
