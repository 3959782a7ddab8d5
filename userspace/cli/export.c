/* SPDX-License-Identifier: Apache-2.0 */
/* cairn export, attach, detach */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const char export_usage[] =
	"Usage: cairn export URL [--name NAME] [--refresh]\n"
	"Serve the image at URL over NBD and print its URI, for nbdinfo, nbdcopy, qemu or "
	"nbd-client.\n"
	"\n"
	"  --name NAME   serve it as NAME (default: made from the URL)\n"
	"  --refresh     ask the origin for the manifest, however fresh the stored one is\n";

static const char attach_usage[] =
	"Usage: cairn attach URL [--name NAME] [--way WAY] [--refresh]\n"
	"Make a read-only block device of the image at URL and print it. Attaching what is "
	"attached\n"
	"prints the same device again.\n"
	"\n"
	"  --name NAME   serve it as NAME (default: made from the URL)\n"
	"  --way WAY     auto (default) or nbdfuse\n"
	"  --refresh     ask the origin for the manifest, however fresh the stored one is\n";

static const char detach_usage[] =
	"Usage: cairn detach NAME|DEVICE|URL [--force]\n"
	"Take the device away and stop serving the image. Its bytes stay in the store.\n"
	"\n"
	"  --force       even if it is mounted or open; reads of it fail from then on\n";

static const struct option options[] = {
	{"name", required_argument, NULL, 'n'}, {"way", required_argument, NULL, 'w'},
	{"refresh", no_argument, NULL, 'r'},	{"force", no_argument, NULL, 'f'},
	{"help", no_argument, NULL, 'h'},	{NULL, 0, NULL, 0},
};

struct wishes {
	const char *subject, *name, *way;
	bool refresh, force, help;
};

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
		if (opt == 'n')
			w->name = optarg;
		else if (opt == 'w')
			w->way = optarg;
		w->refresh = w->refresh || opt == 'r';
		w->force = w->force || opt == 'f';
		w->help = w->help || opt == 'h';
	}
	if (w->help)
		return 0;
	if (optind + 1 != argc)
		return cli_usage_error(argv[0], optind < argc ? "takes one %s" : "which %s?", what);
	w->subject = argv[optind];
	return 0;
}

int cli_export(int argc, char **argv)
{
	struct wishes w;
	struct err err = {0};
	cJSON *reply;
	int rc = wishes_parse(argc, argv, "nr", "URL", &w);

	if (rc)
		return rc;
	if (w.help)
		return fputs(export_usage, stdout) < 0;
	if (cli_export_post(w.subject, w.name, "none", w.refresh, &reply, &err))
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
	int rc = wishes_parse(argc, argv, "nwr", "URL", &w);

	if (rc)
		return rc;
	if (w.help)
		return fputs(attach_usage, stdout) < 0;
	if (w.way && strcmp(w.way, "none") == 0)
		return cli_usage_error(argv[0], "--way none makes no device; use cairn export");
	if (cli_export_post(w.subject, w.name, w.way ? w.way : "auto", w.refresh, &reply, &err))
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
	if (cli_export_delete(w.subject, w.force, &err))
		return cli_fail(argv[0], &err);
	return 0;
}
