/* SPDX-License-Identifier: Apache-2.0 */
/* cairn status */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "cli/cli.h"
#include "cli/crashes.h"
#include "control/client.h"

static const char usage[] =
	"Usage: cairn status [--json] [--crashes] [--clear-crashes]\n"
	"What the daemon serves, how much of it is in the store, and where reads got their bytes.\n"
	"\n"
	"  --json            all of it, for programs\n"
	"  --crashes         the last workers that died: how, doing what, with their logs\n"
	"  --clear-crashes   try requests again that are refused because they killed two workers\n";

static const char *size_text(double n, char buf[24])
{
	return bytes_format((uint64_t)n, buf, 24);
}

static void daemon_print(const cJSON *s)
{
	const cJSON *store = cJSON_GetObjectItemCaseSensitive(s, "store");
	const cJSON *c = cJSON_GetObjectItemCaseSensitive(s, "counters");
	const cJSON *supervisor = cJSON_GetObjectItemCaseSensitive(s, "supervisor");
	const cJSON *served = cJSON_GetObjectItemCaseSensitive(c, "served_bytes");
	char a[24], b[24], d[24];

	printf("cairnd %s, up %.0f s, event loop %s, worker restarts %.0f, "
	       "supervisor %.0f (%.0f before it)\n",
	       cli_text(s, "version"), cli_number(s, "uptime_seconds"), cli_text(s, "event_loop"),
	       cli_number(s, "worker_restarts"), cli_number(supervisor, "pid"),
	       cli_number(supervisor, "takeovers"));
	printf("store  %s of %s in %s, %.0f evictions, %.0f errors\n",
	       size_text(cli_number(store, "used_bytes"), a),
	       size_text(cli_number(store, "size_bytes"), b), cli_text(store, "path"),
	       cli_number(store, "evictions"), cli_number(store, "errors"));
	printf("served %s from the store, %s from peers, %s from origins\n",
	       size_text(cli_number(served, "local"), a), size_text(cli_number(served, "peer"), b),
	       size_text(cli_number(served, "origin"), d));
	printf("origin %.0f GETs, %s, %.0f retries, %.0f errors",
	       cli_number(c, "origin_get_requests"),
	       size_text(cli_number(c, "origin_get_bytes"), a), cli_number(c, "origin_retries"),
	       cli_number(c, "origin_errors"));
	printf("; %.0f blocks failed verification, %.0f reads failed\n",
	       cli_number(c, "verify_failures"), cli_number(c, "read_errors"));
}

static void image_print(const cJSON *i, int name_width)
{
	const cJSON *reads = cJSON_GetObjectItemCaseSensitive(i, "reads");
	double length = cli_number(i, "length");
	double have = cli_number(i, "bytes_present") + cli_number(i, "zero_bytes");
	const char *device = cli_text(i, "device");
	char size[24];

	printf("%-*s  %-12s %10s %5.1f%%  %-8s %10.0f %10.0f %10.0f %7.0f  %s\n", name_width,
	       cli_text(i, "name"), device[0] ? device : "-", size_text(length, size),
	       length > 0 ? 100 * (have < length ? have : length) / length : 0.0,
	       cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(i, "verified")) ? "yes" : "no",
	       cli_number(reads, "local"), cli_number(reads, "peer"), cli_number(reads, "origin"),
	       cli_number(i, "read_errors"), cli_text(i, "url"));
	if (cli_number(i, "limit") > 0)
		printf("%-*s  limit: %s/s from the origin\n", name_width, "",
		       size_text(cli_number(i, "limit"), size));
	if (cli_number(i, "store_limit") > 0)
		printf("%-*s  store: at most %s\n", name_width, "",
		       size_text(cli_number(i, "store_limit"), size));
	if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(i, "keep")))
		printf("%-*s  store: kept, not evicted\n", name_width, "");
	if (strcmp(cli_text(i, "on_deadline"), "wait") == 0)
		printf("%-*s  on_deadline: wait; %.0f reads wait for their source\n", name_width,
		       "", cli_number(i, "reads_waiting"));
	if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(i, "fetching")))
		printf("%-*s  being fetched whole\n", name_width, "");
	if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(i, "promoted")))
		printf("%-*s  promoted: the store's file is read past cairnd\n", name_width, "");
	else if (cli_text(i, "promote_note")[0])
		printf("%-*s  not promoted: %s\n", name_width, "", cli_text(i, "promote_note"));
	if (cli_text(i, "last_error")[0])
		printf("%-*s  last error: %s\n", name_width, "", cli_text(i, "last_error"));
}

static void images_print(const cJSON *images)
{
	const cJSON *i;
	int width = 4;

	if (!cJSON_GetArraySize(images)) {
		printf("no images; see cairn attach --help\n");
		return;
	}
	for (i = images->child; i; i = i->next) {
		int len = (int)strlen(cli_text(i, "name"));

		width = len > width ? len : width;
	}
	printf("\n%-*s  %-12s %10s %6s  %-8s %10s %10s %10s %7s  %s\n", width, "NAME", "DEVICE",
	       "SIZE", "STORED", "VERIFIED", "LOCAL", "PEER", "ORIGIN", "ERRORS", "URL");
	for (i = images->child; i; i = i->next)
		image_print(i, width);
}

static void status_print(const cJSON *status)
{
	daemon_print(status);
	crashes_print(cJSON_GetObjectItemCaseSensitive(status, "crashes"));
	images_print(cJSON_GetObjectItemCaseSensitive(status, "images"));
}

int cli_status(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
						{"crashes", no_argument, NULL, 'c'},
						{"clear-crashes", no_argument, NULL, 'x'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	bool json = false, crashes = false, clear = false;
	struct err err = {0};
	cJSON *status;
	int opt;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == 'h')
			return fputs(usage, stdout) < 0;
		if (opt == '?')
			return 2;
		json = json || opt == 'j';
		crashes = crashes || opt == 'c';
		clear = clear || opt == 'x';
	}
	if (optind != argc)
		return cli_usage_error(argv[0], "takes no argument");
	if (clear)
		return cli_ask("DELETE", "/v1/crashes", NULL, NULL, &err) ? cli_fail(argv[0], &err)
									  : 0;
	if (cli_ask("GET", crashes ? "/v1/crashes" : "/v1/status", NULL, &status, &err))
		return cli_fail(argv[0], &err);
	if (json) {
		char *text = cJSON_Print(status);

		puts(text ? text : "");
		free(text);
	} else if (crashes) {
		crashes_print_all(status);
	} else {
		status_print(status);
	}
	cJSON_Delete(status);
	return 0;
}
