/* SPDX-License-Identifier: Apache-2.0 */
/* cairn tune */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "control/client.h"

static const char usage[] =
	"Usage: cairn tune [IMAGE|DEVICE|CGROUP] [KEY=VALUE ...] [--save] [--json]\n"
	"Show, or set, how reads are observed and how far the kernel reads ahead. Without a "
	"subject:\n"
	"all that is in force. CGROUP is the path of its folder in a cgroup2 mount; what it sets "
	"counts\n"
	"for its tasks in place of the device's.\n"
	"\n"
	"  enable=true|false   note heat and streams\n"
	"  half_life=SECONDS   heat halves in each idle half-life: 1 to 86400 (30); not for a "
	"cgroup\n"
	"  min_run=N           windows in a row before a stream has a verdict: 1 to 1024 (4)\n"
	"  ring_sampling=N     tell of one window in N: 1 to 65536 (1)\n"
	"  read_ahead_kb=KIB   of the device, for files opened later: 0 to 1048576; not for a "
	"cgroup\n"
	"\n"
	"KEY=default takes a setting back. It counts from the next read on, and until the device "
	"goes.\n"
	"\n"
	"  --save   keep it: for the image, wherever this daemon attaches it, or for the cgroup\n"
	"  --json   for programs\n";

static const cJSON *member(const cJSON *o, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(o, key);
}

static void subject_print(const cJSON *s)
{
	const cJSON *k;

	printf("%s %s%s%s\n", cli_text(s, "kind"), cli_text(s, "name"),
	       cli_text(s, "device")[0] ? " on " : "", cli_text(s, "device"));
	if (cli_text(s, "error")[0])
		printf("  saved, but not in force: %s\n", cli_text(s, "error"));
	cJSON_ArrayForEach (k, member(s, "keys")) {
		char *value = cJSON_PrintUnformatted(member(k, "value"));

		printf("  %-14s %-10s %s\n", k->string, value ? value : "", cli_text(k, "from"));
		free(value);
	}
}

static void reply_print(const cJSON *reply)
{
	const cJSON *s, *subjects = member(reply, "subjects");

	cJSON_ArrayForEach (s, subjects) {
		subject_print(s);
	}
	if (!cJSON_GetArraySize(subjects))
		printf("no device is attached and no cgroup is tuned\n");
	if (!cli_number(reply, "hook_bits"))
		printf("observer %s\n", cli_text(reply, "hooks"));
}

/* What is to be set, as the body of a PATCH. NULL without memory. */
static char *body_of(char **settings, int n, bool save)
{
	cJSON *o = cJSON_CreateObject(), *set = cJSON_AddObjectToObject(o, "set");
	char *body;

	for (int i = 0; i < n; i++) {
		char *value = strchr(settings[i], '=');

		*value = 0;
		cJSON_AddStringToObject(set, settings[i], value + 1);
	}
	if (save)
		cJSON_AddTrueToObject(o, "save");
	body = cJSON_PrintUnformatted(o);
	cJSON_Delete(o);
	return body;
}

static int ask(const char *subject, char **settings, int n, bool save, cJSON **reply,
	       struct err *err)
{
	char *path = subject ? client_path("/v1/tune?key=", subject) : strdup("/v1/tune");
	char *body = n ? body_of(settings, n, save) : NULL;
	int rc;

	if (!path || (n && !body))
		rc = err_set(err, -ENOMEM, "out of memory");
	else
		rc = cli_ask(n ? "PATCH" : "GET", path, body, reply, err);
	free(path);
	free(body);
	return rc;
}

static int check_settings(const char *command, const char *subject, char **settings, int n,
			  bool save)
{
	for (int i = 0; i < n; i++)
		if (!strchr(settings[i], '=') || settings[i][0] == '=')
			return cli_usage_error(command, "%s is no KEY=VALUE", settings[i]);
	if (n && !subject)
		return cli_usage_error(command, "which image, device or cgroup is to have %s?",
				       settings[0]);
	if (save && !n)
		return cli_usage_error(command, "--save keeps what is set: give KEY=VALUE too");
	return 0;
}

static int tune(const char *command, const char *subject, char **settings, int n, bool save,
		bool json)
{
	struct err err = {0};
	cJSON *reply;

	if (ask(subject, settings, n, save, &reply, &err))
		return cli_fail(command, &err);
	if (json) {
		char *text = cJSON_Print(reply);

		puts(text ? text : "");
		free(text);
	} else {
		reply_print(reply);
	}
	cJSON_Delete(reply);
	return 0;
}

int cli_tune(int argc, char **argv)
{
	static const struct option options[] = {{"save", no_argument, NULL, 's'},
						{"json", no_argument, NULL, 'j'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	const char *subject = NULL;
	bool save = false, json = false;
	int opt, rc;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == 'h')
			return fputs(usage, stdout) < 0;
		if (opt == '?')
			return 2;
		save = save || opt == 's';
		json = json || opt == 'j';
	}
	/* a URL may hold '=', a setting no '/' before it */
	if (optind < argc &&
	    (!strchr(argv[optind], '=') || memchr(argv[optind], '/', strcspn(argv[optind], "="))))
		subject = argv[optind++];
	rc = check_settings(argv[0], subject, argv + optind, argc - optind, save);
	return rc ? rc : tune(argv[0], subject, argv + optind, argc - optind, save, json);
}
