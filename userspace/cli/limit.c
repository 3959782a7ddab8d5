/* SPDX-License-Identifier: Apache-2.0 */
/* cairn limit */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "cli/cli.h"
#include "control/client.h"

static const char usage[] =
	"Usage: cairn limit NAME|DEVICE|URL [RATE|off] [--store SIZE] [--keep on|off]\n"
	"Bound what an image takes of its origin, demanded and read ahead, in bytes a second. What "
	"is in\n"
	"the store is read as fast as ever. RATE is a size like 200MB/s, 1GiB/s or 1000000.\n"
	"\n"
	"  --store SIZE   at most so much of the store for this image, like 200GiB; 0 = any\n"
	"  --keep STATE   on: nothing of this image is evicted as long as it is served; off\n";

/* A size a second: "200MB/s" in tens, "200MiB/s" and "200M" in twos. */
static int rate_parse(const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	char size[64], *unit;
	size_t len = strlen(text);
	double scale = 1;
	int rc;

	if (strcmp(text, "off") == 0) {
		*out = 0;
		return 0;
	}
	if (len > 2 && strcmp(text + len - 2, "/s") == 0)
		len -= 2;
	if (len >= sizeof(size))
		return -EINVAL;
	memcpy(size, text, len);
	size[len] = 0;
	if (len > 2 && size[len - 1] == 'B' && (unit = strchr(units, size[len - 2]))) {
		for (const char *u = units; u <= unit; u++)
			scale *= 1000.0 / 1024;
		size[len - 1] = 0;
	}
	rc = bytes_parse(size, out);
	*out = rc ? 0 : (uint64_t)((double)*out * scale + 0.5);
	return rc ? rc : *out ? 0 : -EINVAL;
}

static int limit_set(const char *key, const cJSON *query, struct err *err)
{
	char *body = cJSON_PrintUnformatted(query), *path = client_path("/v1/exports/", key);
	int rc = body && path ? cli_ask("PATCH", path, body, NULL, err)
			      : err_set(err, -ENOMEM, "out of memory");

	free(body);
	free(path);
	return rc;
}

static int rate_add(const char *command, const char *text, cJSON *query)
{
	uint64_t rate;

	if (rate_parse(text, &rate))
		return cli_usage_error(command, "%s is no rate: write it like 200MB/s, or off",
				       text);
	cJSON_AddNumberToObject(query, "limit", (double)rate);
	return 0;
}

static int store_add(const char *command, const char *text, cJSON *query)
{
	uint64_t size = 0;

	if (strcmp(text, "off") != 0 && bytes_parse(text, &size))
		return cli_usage_error(command, "%s is no size: write it like 200GiB, or 0 for any",
				       text);
	cJSON_DeleteItemFromObject(query, "store_limit");
	cJSON_AddNumberToObject(query, "store_limit", (double)size);
	return 0;
}

static int keep_add(const char *command, const char *text, cJSON *query)
{
	if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0)
		return cli_usage_error(command, "--keep is on or off, not %s", text);
	cJSON_DeleteItemFromObject(query, "keep");
	cJSON_AddBoolToObject(query, "keep", strcmp(text, "on") == 0);
	return 0;
}

static int limit_ask(int argc, char **argv, cJSON *query)
{
	static const struct option options[] = {{"store", required_argument, NULL, 's'},
						{"keep", required_argument, NULL, 'k'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	struct err err = {0};
	int opt, rc = 0;

	while (!rc && (opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == 'h')
			return fputs(usage, stdout) < 0;
		rc = opt == 's'	  ? store_add(argv[0], optarg, query)
		     : opt == 'k' ? keep_add(argv[0], optarg, query)
				  : 2;
	}
	if (!rc && optind + 2 == argc)
		rc = rate_add(argv[0], argv[optind + 1], query);
	else if (!rc && (optind + 1 != argc || !query->child))
		rc = cli_usage_error(argv[0],
				     "takes a name, and a rate, --store SIZE or --keep on|off");
	if (rc)
		return rc;
	return limit_set(argv[optind], query, &err) ? cli_fail(argv[0], &err) : 0;
}

int cli_limit(int argc, char **argv)
{
	cJSON *query = cJSON_CreateObject();
	int rc = limit_ask(argc, argv, query);

	cJSON_Delete(query);
	return rc;
}
