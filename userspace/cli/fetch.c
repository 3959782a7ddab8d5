/* SPDX-License-Identifier: Apache-2.0 */
/* cairn fetch */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "cli/cli.h"
#include "control/client.h"

static const char usage[] =
	"Usage: cairn fetch NAME|DEVICE|URL [--wait] [--stop]\n"
	"Bring all of an image that is served into the store, behind everything that is read.\n"
	"\n"
	"  --wait   until it is there; tells how far it is, on a terminal\n"
	"  --stop   leave off; what is there stays\n";

#define LOOK_NS 200000000L

static int fetch_set(const char *path, bool on, cJSON **out, struct err *err)
{
	return cli_ask("PATCH", path, on ? "{\"fetch\": true}" : "{\"fetch\": false}", out, err);
}

static void progress_print(const cJSON *image)
{
	char have[24], all[24];

	if (!isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r%s of %s ",
		bytes_format((uint64_t)(cli_number(image, "bytes_present") +
					cli_number(image, "zero_bytes")),
			     have, sizeof(have)),
		bytes_format((uint64_t)cli_number(image, "length"), all, sizeof(all)));
}

static bool is_true(const cJSON *image, const char *key)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(image, key));
}

static int image_wait(const char *path, cJSON **image, struct err *err)
{
	int rc = 0;

	while (!rc && !is_true(*image, "complete") && is_true(*image, "fetching")) {
		progress_print(*image);
		nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
		cJSON_Delete(*image);
		*image = NULL;
		rc = cli_ask("GET", path, NULL, image, err);
	}
	if (!rc)
		progress_print(*image);
	if (isatty(STDERR_FILENO))
		fputc('\n', stderr);
	if (!rc && !is_true(*image, "complete"))
		rc = err_set(err, -EIO, "not all of it could be brought here: %s",
			     cli_text(*image, "last_error")[0]
				     ? cli_text(*image, "last_error")
				     : "the origin failed, the store is too full, or somebody "
				       "stopped it; see cairnd's log");
	return rc;
}

int cli_fetch_whole(const char *key, struct err *err)
{
	char *path = client_path("/v1/exports/", key);
	cJSON *image = NULL;
	int rc = path ? fetch_set(path, true, &image, err) : err_set(err, -ENOMEM, "out of memory");

	if (!rc)
		rc = image_wait(path, &image, err);
	cJSON_Delete(image);
	free(path);
	return rc;
}

int cli_fetch(int argc, char **argv)
{
	static const struct option options[] = {{"wait", no_argument, NULL, 'w'},
						{"stop", no_argument, NULL, 's'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	bool wait = false, stop = false;
	struct err err = {0};
	char *path;
	int opt, rc;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == 'h')
			return fputs(usage, stdout) < 0;
		if (opt == '?')
			return 2;
		wait = wait || opt == 'w';
		stop = stop || opt == 's';
	}
	if (optind + 1 != argc)
		return cli_usage_error(argv[0], "takes a name, device or URL");
	if (wait && stop)
		return cli_usage_error(argv[0], "either waits or stops");
	if (wait)
		return cli_fetch_whole(argv[optind], &err) ? cli_fail(argv[0], &err) : 0;
	path = client_path("/v1/exports/", argv[optind]);
	rc = path ? fetch_set(path, !stop, NULL, &err) : err_set(&err, -ENOMEM, "out of memory");
	free(path);
	return rc ? cli_fail(argv[0], &err) : 0;
}
