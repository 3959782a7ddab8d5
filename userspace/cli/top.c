/* SPDX-License-Identifier: Apache-2.0 */
/* cairn top */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/frame.h"
#include "cli/screen.h"
#include "cli/top_print.h"

static const char usage[] =
	"Usage: cairn top [--once] [--json] [--interval SECONDS] [--no-names]\n"
	"What is read now: throughput and latency by source, the hottest extents of each image "
	"with their\n"
	"files, streams and what pattern they make. q ends it.\n"
	"\n"
	"  --once              one frame over one interval, as text\n"
	"  --json              one frame as a JSON object\n"
	"  --interval SECONDS  0.1 to 3600 (default: 2; with --once or --json: 1)\n"
	"  --no-names          do not look for the names of files: that reads the folders of\n"
	"                      mounted images, for 2 seconds at most\n";

struct wishes {
	bool once, json, no_names, help;
	double interval;
};

static int wishes_parse(int argc, char **argv, struct wishes *w)
{
	static const struct option options[] = {
		{"once", no_argument, NULL, 'o'},	    {"json", no_argument, NULL, 'j'},
		{"interval", required_argument, NULL, 'i'}, {"no-names", no_argument, NULL, 'n'},
		{"help", no_argument, NULL, 'h'},	    {NULL, 0, NULL, 0}};
	char *end;
	int opt;

	*w = (struct wishes){0};
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == '?')
			return 2;
		w->once = w->once || opt == 'o';
		w->json = w->json || opt == 'j';
		w->no_names = w->no_names || opt == 'n';
		w->help = w->help || opt == 'h';
		if (opt != 'i')
			continue;
		w->interval = strtod(optarg, &end);
		if (end == optarg || *end || !(w->interval >= 0.1 && w->interval <= 3600))
			return cli_usage_error(
				argv[0], "--interval %s: must be 0.1 to 3600 seconds", optarg);
	}
	if (!w->help && optind != argc)
		return cli_usage_error(argv[0], "takes no argument");
	if (w->interval == 0)
		w->interval = w->once || w->json ? 1 : 2;
	return 0;
}

static int sample(cJSON **out, struct err *err)
{
	return cli_ask("GET", "/v1/top", NULL, out, err);
}

/* ---- one frame ---- */

static void sleep_seconds(double s)
{
	struct timespec t = {.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

static void frame_put(const cJSON *frame, bool json)
{
	char *text;

	if (!json) {
		top_print(frame, screen_has_colours(), UINT32_MAX, stdout);
		return;
	}
	text = cJSON_Print(frame);
	puts(text ? text : "");
	free(text);
}

static int once(const struct wishes *w, struct frame_names *names, struct err *err)
{
	cJSON *before = NULL, *now = NULL, *frame;
	int rc = sample(&before, err);

	if (!rc) {
		sleep_seconds(w->interval);
		rc = sample(&now, err);
	}
	if (!rc) {
		frame = frame_make(before, now, names, true);
		frame_put(frame, w->json);
		cJSON_Delete(frame);
	}
	cJSON_Delete(before);
	cJSON_Delete(now);
	return rc;
}

/* ---- live ---- */

static void frame_draw(const cJSON *before, const cJSON *now, struct frame_names *names)
{
	struct screen_size size = screen_size();
	cJSON *frame = frame_make(before, now, names, false);
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (f) {
		top_print(frame, screen_has_colours(), size.rows, f);
		fclose(f);
		top_put(text, size.columns, size.rows, stdout);
	}
	free(text);
	cJSON_Delete(frame);
}

/* A daemon that is being restarted comes back. */
static void trouble_draw(const struct err *err)
{
	struct screen_size size = screen_size();
	char text[sizeof(err->text) + 64];

	snprintf(text, sizeof(text), "cairn top: %s\n", err->text);
	top_put(text, size.columns, size.rows, stdout);
}

/* Until the next frame is due, or the key or signal that ends it (true). */
static bool wait_for_end(double interval)
{
	uint64_t end = clock_now_ns() + (uint64_t)(interval * 1e9), now;

	while ((now = clock_now_ns()) < end) {
		struct screen_size was = screen_size(), is;
		int key = screen_wait((int)((end - now) / NSEC_PER_MSEC) + 1);

		if (key == 'q' || key == 'Q' || key == -EINTR)
			return true;
		is = screen_size();
		if (is.columns != was.columns || is.rows != was.rows)
			return false; /* draw anew */
	}
	return false;
}

static int live(const struct wishes *w, struct frame_names *names, struct err *err)
{
	cJSON *before = NULL, *now;
	int rc = sample(&before, err);

	if (!rc)
		rc = screen_take();
	if (rc) {
		cJSON_Delete(before);
		return rc == -ENOTTY
			       ? err_set(err, rc, "stdout is no terminal: use --once or --json")
			       : rc;
	}
	frame_draw(before, before, names);
	while (!wait_for_end(w->interval)) {
		struct err why = {0};

		if (sample(&now, &why)) {
			trouble_draw(&why);
			continue;
		}
		frame_draw(before, now, names);
		cJSON_Delete(before);
		before = now;
	}
	cJSON_Delete(before);
	screen_give_back();
	return 0;
}

int cli_top(int argc, char **argv)
{
	struct frame_names *names = NULL;
	struct err err = {0};
	struct wishes w;
	int rc = wishes_parse(argc, argv, &w);

	if (rc)
		return rc;
	if (w.help)
		return fputs(usage, stdout) < 0;
	if (!w.no_names)
		names = frame_names_new();
	rc = w.once || w.json ? once(&w, names, &err) : live(&w, names, &err);
	frame_names_free(names);
	return rc ? cli_fail(argv[0], &err) : 0;
}
