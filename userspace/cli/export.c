/* SPDX-License-Identifier: Apache-2.0 */
/* cairn export, attach, detach */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const char export_usage[] =
	"Usage: cairn export URL [--name NAME] [--on-deadline POLICY] [--refresh]\n"
	"Serve the image at URL over NBD and print its URI, for nbdinfo, nbdcopy, qemu or "
	"nbd-client.\n"
	"\n"
	"  --name NAME   serve it as NAME (default: made from the URL)\n"
	"  --on-deadline POLICY\n"
	"                eio or wait: fail a read that no source answers in time, or wait until "
	"one\n"
	"                is back (default: [fill] on_deadline of the daemon)\n"
	"  --refresh     ask the origin for the manifest, however fresh the stored one is\n";

static const char attach_usage[] =
	"Usage: cairn attach URL [--name NAME] [--way WAY] [--device /dev/nbdN] [--queues N]\n"
	"                        [--on-deadline POLICY] [--promote WHEN] [--refresh]\n"
	"Make a read-only block device of the image at URL and print it. Attaching what is "
	"attached\n"
	"prints the same device again.\n"
	"\n"
	"  --name NAME   serve it as NAME (default: made from the URL)\n"
	"  --way WAY     auto (default: the first that works here), nbd or nbdfuse\n"
	"  --device DEV  this one and no other; nbd only\n"
	"  --queues N    connections, 1 to 64 (default: one a CPU, at most 8); nbd only\n"
	"  --on-deadline POLICY\n"
	"                eio or wait: fail a read that no source answers in time, or wait until "
	"one\n"
	"                is back (default: [fill] on_deadline of the daemon)\n"
	"  --promote WHEN\n"
	"                auto: once all of the image is on this node, the device reads it without\n"
	"                cairnd, and it stays in the store until detached (default: never)\n"
	"  --refresh     ask the origin for the manifest, however fresh the stored one is\n";

static const char detach_usage[] =
	"Usage: cairn detach NAME|DEVICE|URL [--force]\n"
	"Take the device away and stop serving the image. Its bytes stay in the store.\n"
	"\n"
	"  --force       even if it is mounted or open; reads of it fail from then on\n";

static const struct option options[] = {
	{"name", required_argument, NULL, 'n'},
	{"way", required_argument, NULL, 'w'},
	{"refresh", no_argument, NULL, 'r'},
	{"force", no_argument, NULL, 'f'},
	{"device", required_argument, NULL, 'd'},
	{"queues", required_argument, NULL, 'q'},
	{"on-deadline", required_argument, NULL, 'o'},
	{"promote", required_argument, NULL, 'p'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

struct wishes {
	struct export_wish x; /* url is the one argument, whatever it is */
	bool force, help;
};

/* 0, or the exit status. */
static int wishes_take(const char *command, int opt, struct wishes *w)
{
	w->force = w->force || opt == 'f';
	w->help = w->help || opt == 'h';
	return cli_wish_take(command, opt, false, &w->x);
}

/* Options that are in @takes and one argument. 0, or the exit status. */
static int wishes_parse(int argc, char **argv, const char *takes, const char *what,
			struct wishes *w)
{
	int opt;

	*w = (struct wishes){0};
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == '?')
			return 2;
		if (opt != 'h' && !strchr(takes, opt))
			return cli_usage_error(argv[0], "takes no such option");
		if (wishes_take(argv[0], opt, w))
			return 2;
	}
	if (w->help)
		return 0;
	if (optind + 1 != argc)
		return cli_usage_error(argv[0], optind < argc ? "takes one %s" : "which %s?", what);
	w->x.url = argv[optind];
	return 0;
}

int cli_export(int argc, char **argv)
{
	struct wishes w;
	struct err err = {0};
	cJSON *reply;
	int rc = wishes_parse(argc, argv, "nor", "URL", &w);

	if (rc)
		return rc;
	if (w.help)
		return fputs(export_usage, stdout) < 0;
	w.x.way = "none";
	if (cli_export_post(&w.x, &reply, &err))
		return cli_fail(argv[0], &err);
	puts(cli_text(reply, "uri"));
	cJSON_Delete(reply);
	return 0;
}

int cli_attach(int argc, char **argv)
{
	struct wishes w;
	struct err err = {0};
	cJSON *reply;
	int rc = wishes_parse(argc, argv, "nowrdqp", "URL", &w);

	if (rc)
		return rc;
	if (w.help)
		return fputs(attach_usage, stdout) < 0;
	if (!w.x.way)
		w.x.way = "auto";
	if (strcmp(w.x.way, "none") == 0)
		return cli_usage_error(argv[0], "--way none makes no device; use cairn export");
	if (cli_export_post(&w.x, &reply, &err))
		return cli_fail(argv[0], &err);
	puts(cli_text(reply, "device"));
	cJSON_Delete(reply);
	return 0;
}

int cli_detach(int argc, char **argv)
{
	struct wishes w;
	struct err err = {0};
	int rc = wishes_parse(argc, argv, "f", "NAME, device or URL", &w);

	if (rc)
		return rc;
	if (w.help)
		return fputs(detach_usage, stdout) < 0;
	if (cli_export_delete(w.x.url, w.force, &err))
		return cli_fail(argv[0], &err);
	return 0;
}
