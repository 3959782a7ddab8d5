/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "observe/hooks.h"

static void assert_line(uint32_t hooks, bool refused, const char *want)
{
	char line[200];

	hooks_line(hooks, refused, line, sizeof(line));
	assert_string_equal(line, want);
}

static void all_that_is_on_is_named_with_its_way(void **state)
{
	(void)state;
	assert_line(OBSERVE_REQUESTS | OBSERVE_WINDOWS_TP | HOOKS_HITS, false,
		    "requests, windows (tracepoint), page-cache hits (reads, faults)");
	assert_line(OBSERVE_REQUESTS | OBSERVE_WINDOWS_ADDED | OBSERVE_HITS_READ, true,
		    "requests, windows (pages added), page-cache hits (reads)");
}

static void what_is_off_is_named_with_the_reason(void **state)
{
	(void)state;
	assert_line(OBSERVE_REQUESTS | OBSERVE_WINDOWS_FENTRY, false,
		    "requests, windows (fentry); off: page-cache hits (not in this kernel)");
	assert_line(OBSERVE_REQUESTS, true,
		    "requests; off: windows, page-cache hits (refused by this kernel)");
}

static void a_line_too_long_is_cut(void **state)
{
	char line[12];

	(void)state;
	hooks_line(OBSERVE_REQUESTS, false, line, sizeof(line));
	assert_string_equal(line, "requests; o");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_that_is_on_is_named_with_its_way),
		cmocka_unit_test(what_is_off_is_named_with_the_reason),
		cmocka_unit_test(a_line_too_long_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
