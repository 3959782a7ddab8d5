/* SPDX-License-Identifier: Apache-2.0 */
/* cairnd: settings, then the supervisor; or, started by it, the worker. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/log.h"
#include "supervisor/continuity.h"
#include "supervisor/supervisor.h"
#include "supervisor/worker_process.h"

#define DEFAULT_FILE "/etc/cairn/cairnd.conf"

static const char usage[] =
	"Usage: cairnd [-c FILE]\n"
	"Serve dataset images as read-only block devices; `cairn` asks it to.\n"
	"\n"
	"  -c, --config FILE   settings (default: " DEFAULT_FILE " if it is there)\n"
	"      --check-config  read the settings, say whether they are right, and end\n"
	"      --print-config  print every key with its value and meaning, and end\n"
	"      --check-upgrade  as --check-config, and whether this program can go on where the\n"
	"                      cairnd that runs with them is now\n"
	"  -V, --version\n"
	"  -h, --help\n"
	"\n"
	"Secrets come from files that the settings name, or from AZURE_STORAGE_ACCOUNT, _KEY,\n"
	"_SAS_TOKEN and _CONNECTION_STRING in the environment.\n"
	"Exit status: 0 stopped as asked, 1 could not start or run, 2 wrong usage or settings.\n";

enum { OPT_CHECK = 256, OPT_PRINT, OPT_UPGRADE };

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'},
	{"check-config", no_argument, NULL, OPT_CHECK},
	{"print-config", no_argument, NULL, OPT_PRINT},
	{"check-upgrade", no_argument, NULL, OPT_UPGRADE},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static int settings_load(const char **file, struct config *cfg)
{
	struct err err;

	if (!*file && access(DEFAULT_FILE, F_OK) == 0)
		*file = DEFAULT_FILE;
	config_defaults(cfg);
	if (!*file || !config_load(*file, cfg, &err))
		return 0;
	fprintf(stderr, "cairnd: %s\n", err.text);
	return 2;
}

int main(int argc, char **argv)
{
	static struct config cfg;
	const char *file = NULL;
	enum log_level level;
	struct err err;
	int opt, mode = 0;

	if (argc >= 2 && strcmp(argv[1], "--worker") == 0)
		return worker_enter();
	while ((opt = getopt_long(argc, argv, "c:Vh", options, NULL)) != -1) {
		if (opt == 'c')
			file = optarg;
		else if (opt == OPT_CHECK || opt == OPT_PRINT || opt == OPT_UPGRADE)
			mode = opt;
		else if (opt == 'V')
			return printf("cairnd %s\n", CAIRN_VERSION) < 0;
		else if (opt == 'h')
			return fputs(usage, stdout) < 0;
		else
			return 2;
	}
	if (optind < argc) {
		fprintf(stderr, "cairnd: unexpected argument '%s'; see cairnd --help\n",
			argv[optind]);
		return 2;
	}
	if (settings_load(&file, &cfg))
		return 2;
	if (mode == OPT_PRINT)
		config_print(&cfg, stdout);
	if (mode == OPT_UPGRADE && continuity_check(&cfg, &err)) {
		fprintf(stderr, "cairnd: %s\n", err.text);
		return 2;
	}
	if (mode == OPT_CHECK || mode == OPT_UPGRADE)
		printf("%s: ok\n", file ? file : "defaults");
	if (mode)
		return 0;
	if (!log_level_parse(cfg.log_level, &level))
		log_set_level(level);
	return supervisor_run(&cfg, file);
}
