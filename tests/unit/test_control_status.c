/* SPDX-License-Identifier: Apache-2.0 */
/* The status, and the metrics. */
#include "control_bed.h"

static void the_status_tells_counters_exactly(void **state)
{
	struct client_reply r;
	struct err err;
	cJSON *o;

	(void)state;
	answers("POST", "/v1/exports", one, 201, NULL, NULL);
	assert_int_equal(client_call(path, "GET", "/v1/status", NULL, 10000, &r, &err), 0);
	assert_non_null(strstr(r.body, "1152921504606846977")); /* 2^60 + 1: no double holds it */
	o = cJSON_Parse(r.body);
	assert_string_equal(text(o, "event_loop"), "epoll");
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(o, "images")), 1);
	assert_string_equal(text(cJSON_GetObjectItem(o, "store"), "path"), "/var/lib/cairn");
	cJSON_Delete(o);
	free(r.body);
}

static void counters_do_not_fall_when_an_export_goes(void **state)
{
	struct client_reply r;
	struct err err;

	(void)state;
	answers("POST", "/v1/exports", one, 201, NULL, NULL);
	answers("DELETE", "/v1/exports/one", NULL, 200, NULL, NULL);
	assert_int_equal(client_call(path, "GET", "/metrics", NULL, 10000, &r, &err), 0);
	assert_non_null(strstr(r.body, "\ncairn_served_bytes_total{source=\"local\"} 100\n"));
	assert_non_null(strstr(r.body, "\ncairn_images 0\n"));
	free(r.body);
}

static void latencies_are_a_histogram_whose_buckets_add_up(void **state)
{
	struct client_reply r;
	struct err err;

	(void)state;
	assert_int_equal(client_call(path, "GET", "/metrics", NULL, 10000, &r, &err), 0);
#define READ_SECONDS "\ncairn_read_seconds"
	assert_non_null(
		strstr(r.body, READ_SECONDS "_bucket{source=\"local\",le=\"0.000004\"} 0\n"));
	assert_non_null(
		strstr(r.body, READ_SECONDS "_bucket{source=\"local\",le=\"0.000016\"} 3\n"));
	assert_non_null(strstr(r.body, READ_SECONDS "_bucket{source=\"local\",le=\"+Inf\"} 3\n"));
	assert_non_null(strstr(r.body, READ_SECONDS "_sum{source=\"local\"} 0.000015000\n"));
	assert_non_null(strstr(r.body, READ_SECONDS "_count{source=\"origin\"} 0\n"));
	assert_non_null(strstr(r.body, "\ncairn_reader_stall_seconds_total 2.500000\n"));
	free(r.body);
}

static void every_metric_has_its_help_and_type(void **state)
{
	struct client_reply r;
	struct err err;
	char *line, *save, name[128], want[160], kind[32], *copy;
	int samples = 0;

	(void)state;
	assert_int_equal(client_call(path, "GET", "/metrics", NULL, 10000, &r, &err), 0);
	copy = strdup(r.body);
	for (line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (line[0] == '#')
			continue;
		samples++;
		assert_int_equal(sscanf(line, "%127[a-z_]", name), 1);
		if (strncmp(name, "cairn_read_seconds_", 19) == 0)
			name[18] = 0; /* a histogram's parts */
		snprintf(want, sizeof(want), "# HELP %s ", name);
		assert_non_null(strstr(r.body, want));
		snprintf(want, sizeof(want), "# TYPE %s ", name);
		assert_non_null(strstr(r.body, want));
		sscanf(strstr(r.body, want) + strlen(want), "%31s", kind);
		assert_int_equal(strcmp(kind, "counter") == 0,
				 strlen(name) > 6 && !strcmp(name + strlen(name) - 6, "_total"));
	}
	assert_true(samples > 20);
	free(copy);
	free(r.body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed(the_status_tells_counters_exactly),
		bed(counters_do_not_fall_when_an_export_goes),
		bed(latencies_are_a_histogram_whose_buckets_add_up),
		bed(every_metric_has_its_help_and_type),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
