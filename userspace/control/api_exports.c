/* SPDX-License-Identifier: Apache-2.0 */
#include "control/api_exports.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/reply.h"
#include "nbd/attach/attach.h"
#include "worker/whole.h"

cJSON *export_json(const struct api *a, const struct export_info *e)
{
	cJSON *o = cJSON_CreateObject();
	char uri[4096];

	cJSON_AddStringToObject(o, "name", e->name);
	if (!attach_uri(a->nbd_socket, e->name, uri, sizeof(uri)))
		cJSON_AddStringToObject(o, "uri", uri);
	cJSON_AddStringToObject(o, "url", e->url);
	cJSON_AddStringToObject(o, "digest", e->digest);
	cJSON_AddBoolToObject(o, "verified", e->verified);
	cJSON_AddStringToObject(o, "device", e->device);
	cJSON_AddStringToObject(o, "way", e->way);
	reply_add_u64(o, "length", e->length);
	reply_add_u64(o, "bytes_present", e->bytes_present);
	reply_add_u64(o, "zero_bytes", e->zero_bytes);
	cJSON_AddNumberToObject(o, "connections", e->connections);
	reply_add_sources(o, "reads", e->reads_local, e->reads_peer, e->reads_origin);
	reply_add_sources(o, "served_bytes", e->bytes_local, e->bytes_peer, e->bytes_origin);
	reply_add_u64(o, "read_errors", e->read_errors);
	cJSON_AddStringToObject(o, "on_deadline", e->waits ? "wait" : "eio");
	reply_add_u64(o, "deadlines_passed", e->deadlines);
	cJSON_AddNumberToObject(o, "reads_waiting", e->patient);
	reply_add_u64(o, "limit", e->limit);
	reply_add_u64(o, "store_limit", e->store_limit);
	cJSON_AddBoolToObject(o, "keep", e->kept);
	cJSON_AddStringToObject(o, "last_error", e->last_error);
	cJSON_AddStringToObject(o, "promote", e->promote);
	cJSON_AddBoolToObject(o, "promoted", e->promoted);
	cJSON_AddStringToObject(o, "promote_note", e->promote_note);
	cJSON_AddStringToObject(o, "file", e->file);
	cJSON_AddBoolToObject(o, "complete", e->complete);
	cJSON_AddBoolToObject(o, "fetching", e->fetching);
	return o;
}

void exports_get(struct api *a, struct api_reply *out)
{
	struct export_info *e = NULL;
	cJSON *list;
	size_t n = 0;
	int rc = exports_list(a->exports, &e, &n);

	if (rc) {
		api_reply_error(out, reply_status(rc), rc, strerror(-rc));
		return;
	}
	list = cJSON_CreateArray();
	for (size_t i = 0; i < n; i++)
		cJSON_AddItemToArray(list, export_json(a, &e[i]));
	free(e);
	reply_json(out, 200, list);
}

void export_get(struct api *a, const char *key, struct api_reply *out)
{
	struct export_info e;
	struct err err = {0};

	if (exports_find(a->exports, key, &e, &err))
		reply_err(out, &err);
	else
		reply_json(out, 200, export_json(a, &e));
}

/* {"fetch": BOOL} */
static void fetch_patch(struct api *a, const char *key, bool on, struct api_reply *out)
{
	struct export_info e;
	struct err err = {0};

	if (exports_fetch(a->exports, key, on, &e, &err))
		reply_err(out, &err);
	else
		reply_json(out, 200, export_json(a, &e));
}

/* A whole number of bytes where there is one. False: it is something else. */
static bool bytes_take(const cJSON *json, const char *key, uint64_t *out, const uint64_t **said)
{
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(json, key);

	if (n && (!cJSON_IsNumber(n) || n->valuedouble < 0 || n->valuedouble > 1e15))
		return false;
	*out = n ? (uint64_t)n->valuedouble : 0;
	*said = n ? out : NULL;
	return true;
}

/* {"limit"?: N, "store_limit"?: N, "keep"?: bool}, or {"fetch": bool} */
void export_patch(struct api *a, const char *key, const char *body, struct api_reply *out)
{
	cJSON *json = cJSON_Parse(body ? body : "");
	const cJSON *fetch = cJSON_GetObjectItemCaseSensitive(json, "fetch");
	const cJSON *keep = cJSON_GetObjectItemCaseSensitive(json, "keep");
	struct export_policy p = {0};
	struct export_info e;
	struct err err = {0};
	uint64_t limit, store_limit;
	bool kept = cJSON_IsTrue(keep);
	int rc;

	if (cJSON_IsBool(fetch)) {
		fetch_patch(a, key, cJSON_IsTrue(fetch), out);
		cJSON_Delete(json);
		return;
	}
	p.keep = keep ? &kept : NULL;
	if (!bytes_take(json, "limit", &limit, &p.limit) ||
	    !bytes_take(json, "store_limit", &store_limit, &p.store_limit) ||
	    (keep && !cJSON_IsBool(keep)) || (!p.limit && !p.store_limit && !keep))
		rc = err_set(
			&err, -EINVAL,
			"\"limit\" must be bytes a second and \"store_limit\" bytes, 0 for none, "
			"and \"keep\" true or false; one of them at least");
	else
		rc = exports_set_policy(a->exports, key, &p, &e, &err);
	if (rc)
		reply_err(out, &err);
	else
		reply_json(out, 200, export_json(a, &e));
	cJSON_Delete(json);
}
