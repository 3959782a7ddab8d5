/* SPDX-License-Identifier: Apache-2.0 */
/* Which route a request is for. The routes are in the api_*.c, by what they are about. */
#include "control/api.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <string.h>

#include "control/api_attach.h"
#include "control/api_crash.h"
#include "control/api_exports.h"
#include "control/api_observe.h"
#include "control/api_status.h"
#include "control/reply.h"
#include "worker/privileged.h"

#define EXPORTS_PREFIX "/v1/exports/"
#define HEAT_SUFFIX    "/heat"

/* Whoever asks finds out from the status of the worker that answers next how it went. */
static void upgrade_post(struct api *a, struct api_reply *out)
{
	struct err err = {0};
	uint64_t next = 0;
	cJSON *o;
	int rc = a->supervisor_fd < 0 ? err_set(&err, -ENOTSUP, "this daemon has no supervisor")
				      : privileged_upgrade(a->supervisor_fd, &next, &err);

	if (rc) {
		reply_err(out, &err);
		return;
	}
	o = cJSON_CreateObject();
	reply_add_u64(o, "next_pid", next);
	reply_json(out, 202, o);
}

static void metrics_get(struct api *a, struct api_reply *out)
{
	size_t len;
	FILE *f = open_memstream(&out->body, &len);

	if (!f)
		return;
	metrics_print(a, f);
	fclose(f);
	out->status = 200;
	out->type = "text/plain; version=0.0.4; charset=utf-8";
}

/* "KEY/heat"; but an export may be at a URL that ends so, too. */
static bool asks_for_heat(struct api *a, const char *key, char *export_key, size_t room)
{
	size_t len = strlen(key), suffix = sizeof(HEAT_SUFFIX) - 1;
	struct export_info e;

	if (len <= suffix || len - suffix >= room || strcmp(key + len - suffix, HEAT_SUFFIX) != 0)
		return false;
	memcpy(export_key, key, len - suffix);
	export_key[len - suffix] = 0;
	return exports_find(a->exports, key, &e, NULL) != 0;
}

static bool export_call(struct api *a, const char *method, const char *key,
			const struct api_query *q, const char *body, struct api_reply *out)
{
	char export_key[4096];

	if (strcmp(method, "DELETE") == 0)
		export_delete(a, key, q->force, out);
	else if (strcmp(method, "PATCH") == 0)
		export_patch(a, key, body, out);
	else if (strcmp(method, "GET") != 0)
		return false;
	else if (asks_for_heat(a, key, export_key, sizeof(export_key)))
		heat_get(a, export_key, q->cells, out);
	else
		export_get(a, key, out);
	return true;
}

static const char *const paths[] = {"/v1/exports", "/v1/status",  "/v1/crashes", "/v1/top",
				    "/v1/tune",	   "/v1/upgrade", "/metrics"};

void api_call(struct api *a, const char *method, const char *path, const struct api_query *q,
	      const char *body, struct api_reply *out)
{
	static const size_t prefix = sizeof(EXPORTS_PREFIX) - 1;
	bool get = strcmp(method, "GET") == 0, known = true;
	const char *key = NULL;

	*out = (struct api_reply){.status = 500, .type = "text/plain"};
	if (strncmp(path, EXPORTS_PREFIX, prefix) == 0 && path[prefix])
		key = path + prefix;
	if (get && strcmp(path, "/v1/status") == 0)
		status_get(a, out);
	else if (get && strcmp(path, "/metrics") == 0)
		metrics_get(a, out);
	else if (get && strcmp(path, "/v1/crashes") == 0)
		crashes_get(out);
	else if (strcmp(method, "DELETE") == 0 && strcmp(path, "/v1/crashes") == 0)
		crashes_delete(out);
	else if (get && strcmp(path, "/v1/top") == 0)
		top_get(a, out);
	else if (get && strcmp(path, "/v1/tune") == 0)
		tune_get(a, q->key, out);
	else if (strcmp(method, "POST") == 0 && strcmp(path, "/v1/upgrade") == 0)
		upgrade_post(a, out);
	else if (strcmp(method, "PATCH") == 0 && strcmp(path, "/v1/tune") == 0)
		tune_patch(a, q->key, body, out);
	else if (get && strcmp(path, "/v1/exports") == 0)
		exports_get(a, out);
	else if (strcmp(method, "POST") == 0 && strcmp(path, "/v1/exports") == 0)
		export_post(a, body, out);
	else
		known = key && export_call(a, method, key, q, body, out);
	if (known)
		return;
	for (size_t i = 0; !key && i < sizeof(paths) / sizeof(paths[0]); i++)
		known = known || strcmp(path, paths[i]) == 0;
	if (key || known)
		api_reply_error(out, 405, -EINVAL, "this path does not take that method");
	else
		api_reply_error(out, 404, -ENOENT,
				"no such path; there are /v1/exports, /v1/status, "
				"/v1/crashes, /v1/top, /v1/tune, /v1/upgrade and /metrics");
}
