/* SPDX-License-Identifier: Apache-2.0 */
/* cairn upgrade. The worker that is asked ends before or while it answers, so what happened is told
 * by the status of the one that answers next. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "control/client.h"

#define WAIT_MS 60000

static const char usage[] =
	"Usage: cairn upgrade\n"
	"Replace the worker by one of the program and with the settings that are on disk. Devices\n"
	"and what is mounted stay; no read fails. Settings that are wrong change nothing.\n";

struct worker_seen {
	char version[64];
	long pid, before_pid;
	long gap_ms;
};

static int look(struct worker_seen *out, struct err *err)
{
	const cJSON *before;
	cJSON *s;
	int rc = cli_ask("GET", "/v1/status", NULL, &s, err);

	if (rc)
		return rc;
	before = cJSON_GetObjectItemCaseSensitive(s, "worker_before");
	snprintf(out->version, sizeof(out->version), "%s", cli_text(s, "version"));
	out->pid = (long)cli_number(s, "worker_pid");
	out->before_pid = (long)cli_number(before, "pid");
	out->gap_ms = (long)cli_number(before, "gap_ms");
	cJSON_Delete(s);
	return 0;
}

/* 0 also when the answer was lost with the worker that gave it; *next is 0 then. */
static int ask(long *next, struct err *err)
{
	struct client_reply r;
	cJSON *json;
	int rc;

	*next = 0;
	if (client_call(cli_socket, "POST", "/v1/upgrade", "{}", WAIT_MS, &r, NULL))
		return 0;
	json = cJSON_Parse(r.body);
	free(r.body);
	*next = (long)cli_number(json, "next_pid");
	rc = r.status / 100 == 2 ? 0 : err_set(err, -EIO, "%s", cli_text(json, "error"));
	cJSON_Delete(json);
	return rc;
}

static int wait_for_other(long pid, struct worker_seen *out, struct err *err)
{
	uint64_t end = clock_now_ns() + WAIT_MS * NSEC_PER_MSEC;

	while (clock_now_ns() < end) {
		if (!look(out, err) && out->pid != pid)
			return 0;
		nanosleep(&(struct timespec){.tv_nsec = 20 * NSEC_PER_MSEC}, NULL);
	}
	return err_set(err, -ETIMEDOUT, "worker %ld still serves after %d s; see cairnd's log", pid,
		       WAIT_MS / 1000);
}

static int upgrade(struct err *err)
{
	struct worker_seen was, is;
	long next;
	int rc = look(&was, err);

	if (!rc)
		rc = ask(&next, err);
	if (!rc)
		rc = wait_for_other(was.pid, &is, err);
	if (rc)
		return rc;
	if (next && is.pid != next)
		return err_set(err, -EIO,
			       "the new worker (%ld) ended before it served; %ld serves with the "
			       "program and settings from before; see cairnd's log",
			       next, is.pid);
	printf("worker %ld (%s) -> %ld (%s), gap %ld ms\n", was.pid, was.version, is.pid,
	       is.version, is.gap_ms);
	return 0;
}

int cli_upgrade(int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	struct err err = {0};
	int opt;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == 'h')
			return fputs(usage, stdout) < 0;
		return 2;
	}
	if (optind != argc)
		return cli_usage_error(argv[0], "takes no argument");
	return upgrade(&err) ? cli_fail(argv[0], &err) : 0;
}
