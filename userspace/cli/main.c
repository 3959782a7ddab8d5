/* SPDX-License-Identifier: Apache-2.0 */
/* cairn: what an operator or a job's prologue types. */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include <supervisor_protocol.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/cli_image.h"
#include "control/client.h"

#define DEFAULT_SOCKET "/run/cairn/control.sock"
#define ASK_WAIT_MS    150000 /* above the fill deadline and the attach that may follow it */

const char *cli_socket = DEFAULT_SOCKET;

static const char usage[] =
	"Usage: cairn [--socket PATH] COMMAND ...\n"
	"\n"
	"  mount URL DIR        attach an image and mount it, read-only\n"
	"  umount DIR           undo that\n"
	"  attach URL           make a block device of an image, print the device\n"
	"  detach NAME          take it away (NAME, device or URL)\n"
	"  export URL           serve an image over NBD, print the URI\n"
	"  fetch NAME           bring all of an image to this node\n"
	"  limit NAME RATE      bound what an image takes of its origin and of the store\n"
	"  status               what is served, and from where its bytes came\n"
	"  top                  what is read now: rates, latencies, hottest extents, streams\n"
	"  heat IMAGE           where it is read, as a map or a picture\n"
	"  tune                 how reads are observed, and read ahead\n"
	"  upgrade              another worker, of the program and settings on disk\n"
	"  image ...            build, push, seal and look at images\n"
	"\n"
	"Each command has --help. URL is one of\n"
	"  az://ACCOUNT/CONTAINER/NAME\n"
	"  https://ACCOUNT.blob.core.windows.net/CONTAINER/NAME[?SAS]\n"
	"  https://HOST/PATH, file:///PATH\n"
	"\n"
	"      --socket PATH    the daemon's control socket\n"
	"                       (default: $CAIRN_SOCKET, else " DEFAULT_SOCKET ")\n"
	"  -V, --version\n"
	"  -h, --help\n"
	"Exit status: 0 done, 1 failed, 2 wrong usage.\n";

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{"export", cli_export}, {"attach", cli_attach}, {"detach", cli_detach},
	{"mount", cli_mount},	{"umount", cli_umount}, {"status", cli_status},
	{"top", cli_top},	{"heat", cli_heat},	{"tune", cli_tune},
	{"limit", cli_limit},	{"fetch", cli_fetch},	{"upgrade", cli_upgrade},
	{"image", cli_image},
};

int cli_fail(const char *command, const struct err *err)
{
	fprintf(stderr, "cairn: %s: %s\n", command, err->text);
	return 1;
}

int cli_usage_error(const char *command, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "cairn: %s: ", command);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "; see cairn %s --help\n", command);
	return 2;
}

const char *cli_text(const cJSON *o, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));

	return s ? s : "";
}

double cli_number(const cJSON *o, const char *key)
{
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(o, key);

	return cJSON_IsNumber(n) ? n->valuedouble : 0;
}

int cli_ask(const char *method, const char *path, const char *body, cJSON **out, struct err *err)
{
	struct client_reply r;
	cJSON *json;
	int rc = client_call(cli_socket, method, path, body, ASK_WAIT_MS, &r, err);

	if (rc)
		return rc;
	json = cJSON_Parse(r.body);
	free(r.body);
	if (r.status / 100 != 2) {
		int code = (int)cli_number(json, "errno");

		rc = err_set(err, code > 0 ? -code : -EIO, "%s", cli_text(json, "error"));
		if (!err->text[0])
			err_set(err, rc, "the daemon answered with HTTP status %u", r.status);
	} else if (!json) {
		rc = err_set(err, -EBADMSG, "the daemon on %s answered with what is no JSON",
			     cli_socket);
	}
	if (rc || !out)
		cJSON_Delete(json);
	else
		*out = json;
	return rc;
}

static int queues_parse(const char *command, const char *text, unsigned *out)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || end == text || n < 1 || n > SUPERVISOR_LINKS_MAX)
		return cli_usage_error(command, "--queues takes a number from 1 to %d",
				       SUPERVISOR_LINKS_MAX);
	*out = (unsigned)n;
	return 0;
}

static int on_deadline_parse(const char *command, const char *text, const char **out)
{
	if (strcmp(text, "eio") != 0 && strcmp(text, "wait") != 0)
		return cli_usage_error(command, "--on-deadline takes eio or wait");
	*out = text;
	return 0;
}

static int promote_parse(const char *command, const char *text, bool file, const char **out)
{
	if (strcmp(text, "auto") != 0 && strcmp(text, "never") != 0 &&
	    !(file && strcmp(text, "erofs-file") == 0))
		return cli_usage_error(command, "--promote takes auto, never%s",
				       file ? " or erofs-file"
					    : "; cairn mount takes erofs-file too");
	*out = text;
	return 0;
}

int cli_wish_take(const char *command, int opt, bool file, struct export_wish *w)
{
	if (opt == 'n')
		w->name = optarg;
	else if (opt == 'w')
		w->way = optarg;
	else if (opt == 'd')
		w->device = optarg;
	else if (opt == 'q')
		return queues_parse(command, optarg, &w->queues);
	else if (opt == 'o')
		return on_deadline_parse(command, optarg, &w->on_deadline);
	else if (opt == 'p')
		return promote_parse(command, optarg, file, &w->promote);
	else if (opt == 'r')
		w->refresh = true;
	return 0;
}

static char *wish_print(const struct export_wish *w)
{
	cJSON *q = cJSON_CreateObject();
	char *body;

	cJSON_AddStringToObject(q, "url", w->url);
	if (w->name)
		cJSON_AddStringToObject(q, "name", w->name);
	if (w->way)
		cJSON_AddStringToObject(q, "attach", w->way);
	if (w->device)
		cJSON_AddStringToObject(q, "device", w->device);
	if (w->on_deadline)
		cJSON_AddStringToObject(q, "on_deadline", w->on_deadline);
	if (w->promote)
		cJSON_AddStringToObject(q, "promote", w->promote);
	if (w->queues)
		cJSON_AddNumberToObject(q, "queues", w->queues);
	if (w->refresh)
		cJSON_AddTrueToObject(q, "refresh");
	body = cJSON_PrintUnformatted(q);
	cJSON_Delete(q);
	return body;
}

int cli_export_post(const struct export_wish *w, cJSON **out, struct err *err)
{
	char *body = wish_print(w);
	int rc = body ? cli_ask("POST", "/v1/exports", body, out, err)
		      : err_set(err, -ENOMEM, "out of memory");

	free(body);
	if (!rc && cli_text(*out, "passed_over")[0])
		fprintf(stderr, "cairn: attached by %s, not the kernel's nbd: %s\n",
			cli_text(*out, "way"), cli_text(*out, "passed_over"));
	return rc;
}

int cli_export_delete(const char *key, bool force, struct err *err)
{
	char *path = client_path("/v1/exports/", key), *full = NULL;
	int rc = -ENOMEM;

	if (path && asprintf(&full, "%s%s", path, force ? "?force=1" : "") >= 0)
		rc = cli_ask("DELETE", full, NULL, NULL, err);
	else
		err_set(err, rc, "out of memory");
	free(path);
	free(full);
	return rc;
}

static void argv_free(char **argv)
{
	for (char **arg = argv; *arg; arg++)
		free(*arg);
	free(argv);
}

/* A SAS in a URL is a secret, and ps shows everyone's arguments: work on copies, and star out the
 * query in the memory that ps reads. A reader may still win the few milliseconds before. */
static char **argv_conceal(int argc, char **argv)
{
	char **copy = calloc((size_t)argc + 1, sizeof(*copy));

	for (int i = 0; copy && i < argc; i++) {
		char *query = strstr(argv[i], "://") ? strchr(argv[i], '?') : NULL;

		copy[i] = strdup(argv[i]);
		if (!copy[i]) {
			argv_free(copy);
			return NULL;
		}
		if (query && query[1])
			memset(query + 1, '*', strlen(query + 1));
	}
	return copy;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {{"socket", required_argument, NULL, 's'},
						{"version", no_argument, NULL, 'V'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	const char *env = getenv("CAIRN_SOCKET");
	int opt;

	if (env && env[0])
		cli_socket = env;
	while ((opt = getopt_long(argc, argv, "+Vh", options, NULL)) != -1) {
		if (opt == 's')
			cli_socket = optarg;
		else if (opt == 'V')
			return printf("cairn %s\n", CAIRN_VERSION) < 0;
		else if (opt == 'h')
			return fputs(usage, stdout) < 0;
		else
			return 2;
	}
	if (optind == argc) {
		fputs(usage, stderr);
		return 2;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		int at = optind;

		if (strcmp(commands[i].name, argv[at]) != 0)
			continue;
		optind = 0; /* getopt starts anew, in the command's own arguments */
		return commands[i].run(argc - at, argv + at);
	}
	fprintf(stderr, "cairn: there is no command '%s'; see cairn --help\n", argv[optind]);
	return 2;
}

int main(int argc, char **argv)
{
	char **mine;
	int rc;

	log_set_level(LOG_WARN_);  /* what it has to say is its output */
	prctl(PR_SET_DUMPABLE, 0); /* no core file and no /proc/PID/mem with a SAS in it */
	mine = argv_conceal(argc, argv);
	if (!mine) {
		fprintf(stderr, "cairn: out of memory\n");
		return 1;
	}
	rc = run(argc, mine);
	argv_free(mine); /* whole, if in another order: getopt moves them */
	return rc;
}
