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
	"Usage: cairn limit NAME|DEVICE|URL RATE|off\n"
	"Bound what an image takes of its origin, demanded and read ahead, in bytes a second. What "
	"is in\n"
	"the store is read as fast as ever. RATE is a size like 200MB/s, 1GiB/s or 1000000.\n";

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

static int limit_set(const char *key, uint64_t rate, struct err *err)
{
	char body[64], *path = client_path("/v1/exports/", key);
	int rc;

	snprintf(body, sizeof(body), "{\"limit\": %" PRIu64 "}", rate);
	rc = path ? cli_ask("PATCH", path, body, NULL, err)
		  : err_set(err, -ENOMEM, "out of memory");
	free(path);
	return rc;
}

int cli_limit(int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	struct err err = {0};
	uint64_t rate;
	int opt;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == 'h')
			return fputs(usage, stdout) < 0;
		return 2;
	}
	if (optind + 2 != argc)
		return cli_usage_error(argv[0], "takes a name and a rate");
	if (rate_parse(argv[optind + 1], &rate))
		return cli_usage_error(argv[0], "%s is no rate: write it like 200MB/s, or off",
				       argv[optind + 1]);
	return limit_set(argv[optind], rate, &err) ? cli_fail(argv[0], &err) : 0;
}
