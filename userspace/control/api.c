/* SPDX-License-Identifier: Apache-2.0 */
#include "control/api.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "control/api_crash.h"
#include "control/api_observe.h"
#include "control/reply.h"
#include "nbd/attach/attach.h"
#include "nbd/attach/kernel_device.h"
#include "origin/origin.h"
#include "worker/adopt.h"
#include "worker/privileged.h"
#include "worker/promote.h"
#include "worker/supervisor_seen.h"
#include "worker/whole.h"

/* of 20 ms: until the closed connections of a helper are seen as closed */
#define REMOVE_TRIES   100
#define RELEASE_TRIES  25 /* of 20 ms */
#define EXPORTS_PREFIX "/v1/exports/"
#define HEAT_SUFFIX    "/heat"

unsigned api_worker_restarts(void)
{
	const char *s = getenv("CAIRN_WORKER_RESTARTS");

	return s ? (unsigned)strtoul(s, NULL, 10) : 0;
}

static cJSON *export_json(const struct api *a, const struct export_info *e)
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

/* ---- totals ---- */

static void totals_add(struct api_totals *t, const struct export_info *e)
{
	t->reads_local += e->reads_local;
	t->reads_peer += e->reads_peer;
	t->reads_origin += e->reads_origin;
	t->bytes_local += e->bytes_local;
	t->bytes_peer += e->bytes_peer;
	t->bytes_origin += e->bytes_origin;
	t->read_errors += e->read_errors;
}

void api_totals(struct api *a, const struct export_info *e, size_t n, struct api_totals *out)
{
	pthread_mutex_lock(&a->lock);
	*out = a->retired;
	pthread_mutex_unlock(&a->lock);
	for (size_t i = 0; i < n; i++) {
		totals_add(out, &e[i]);
		out->connections += e[i].connections;
		out->promoted += e[i].promoted;
	}
	out->exports = n;
}

/* ---- routes ---- */

static cJSON *store_json(const struct worker_status *w)
{
	cJSON *s = cJSON_CreateObject();

	cJSON_AddStringToObject(s, "path", w->store_path);
	reply_add_u64(s, "used_bytes", w->store_used);
	reply_add_u64(s, "wanted_bytes", w->store_wanted);
	reply_add_u64(s, "size_bytes", w->store_size);
	reply_add_u64(s, "objects", w->store_objects);
	reply_add_u64(s, "evictions", w->store_evictions);
	reply_add_u64(s, "errors", w->store_errors);
	reply_add_u64(s, "rechecks", w->store_rechecks);
	return s;
}

static cJSON *counters_json(const struct api_totals *t, const struct worker_status *w)
{
	cJSON *c = cJSON_CreateObject();

	reply_add_sources(c, "served_bytes", t->bytes_local, t->bytes_peer, t->bytes_origin);
	reply_add_sources(c, "reads", t->reads_local, t->reads_peer, t->reads_origin);
	reply_add_u64(c, "origin_get_requests", atomic_load(&origin_counters.get_requests));
	reply_add_u64(c, "origin_get_bytes", atomic_load(&origin_counters.get_bytes));
	reply_add_u64(c, "origin_retries", atomic_load(&origin_counters.retries));
	reply_add_u64(c, "origin_errors", atomic_load(&origin_counters.errors));
	reply_add_u64(c, "read_errors", t->read_errors);
	reply_add_u64(c, "verify_failures", w->verify_failures);
	return c;
}

static cJSON *supervisor_json(void)
{
	cJSON *o = cJSON_CreateObject();
	uint64_t pid, takeovers;

	supervisor_seen(&pid, &takeovers);
	reply_add_u64(o, "pid", pid);
	reply_add_u64(o, "takeovers", takeovers);
	return o;
}

static cJSON *before_json(const struct worker_status *w)
{
	cJSON *o = cJSON_CreateObject();

	reply_add_u64(o, "pid", w->before_pid);
	cJSON_AddBoolToObject(o, "planned", w->before_planned);
	reply_add_u64(o, "gap_ms", w->gap_ms);
	return o;
}

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

static void status_get(struct api *a, struct api_reply *out)
{
	struct worker_status w = {0};
	struct export_info *e = NULL;
	struct api_totals totals;
	cJSON *o, *images;
	size_t n = 0;

	exports_status(a->exports, &w);
	exports_list(a->exports, &e, &n);
	api_totals(a, e, n, &totals);
	o = cJSON_CreateObject();
	cJSON_AddStringToObject(o, "version", CAIRN_VERSION);
	cJSON_AddNumberToObject(o, "uptime_seconds", (double)w.uptime_ms / 1000);
	cJSON_AddStringToObject(o, "event_loop", w.event_loop);
	cJSON_AddNumberToObject(o, "worker_restarts", api_worker_restarts());
	cJSON_AddItemToObject(o, "supervisor", supervisor_json());
	cJSON_AddNumberToObject(o, "worker_pid", getpid());
	if (w.before_pid)
		cJSON_AddItemToObject(o, "worker_before", before_json(&w));
	reply_add_u64(o, "resident_bytes", w.rss_bytes);
	reply_add_u64(o, "nbd_connections", totals.connections);
	cJSON_AddItemToObject(o, "store", store_json(&w));
	cJSON_AddItemToObject(o, "counters", counters_json(&totals, &w));
	crashes_add(o, w.uptime_ms);
	images = cJSON_AddArrayToObject(o, "images");
	for (size_t i = 0; i < n; i++)
		cJSON_AddItemToArray(images, export_json(a, &e[i]));
	free(e);
	reply_json(out, 200, o);
}

static void exports_get(struct api *a, struct api_reply *out)
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

static void export_get(struct api *a, const char *key, struct api_reply *out)
{
	struct export_info e;
	struct err err = {0};

	if (exports_find(a->exports, key, &e, &err))
		reply_err(out, &err);
	else
		reply_json(out, 200, export_json(a, &e));
}

struct add_request {
	const char *url, *name, *attach;
	const char *on_deadline, *promote; /* NULL: not said */
	bool refresh;
	int index;	 /* of the device wished, -1 = any */
	uint32_t queues; /* 0 = as many as fit */
};

/* "device" and "queues", where there. */
static int add_parse_device(const cJSON *json, struct add_request *q, struct err *err)
{
	const cJSON *device = cJSON_GetObjectItemCaseSensitive(json, "device");
	const cJSON *queues = cJSON_GetObjectItemCaseSensitive(json, "queues");

	q->index = -1;
	q->queues = 0;
	if (device) {
		q->index = cJSON_IsString(device) ? kernel_device_index(device->valuestring) : -1;
		if (q->index < 0)
			return err_set(err, -EINVAL,
				       "device %.60s: a kernel NBD device is called /dev/nbd0, "
				       "/dev/nbd1, ..",
				       cJSON_IsString(device) ? device->valuestring : "?");
	}
	if (queues &&
	    (!cJSON_IsNumber(queues) || queues->valuedouble < 1 ||
	     queues->valuedouble > SUPERVISOR_LINKS_MAX || queues->valuedouble != queues->valueint))
		return err_set(err, -EINVAL, "queues must be a number from 1 to %d",
			       SUPERVISOR_LINKS_MAX);
	if (queues)
		q->queues = (uint32_t)queues->valueint;
	return 0;
}

/* Strings stay @json's. */
static int add_parse(const cJSON *json, struct add_request *q, struct err *err)
{
	const cJSON *name = cJSON_GetObjectItemCaseSensitive(json, "name");
	const cJSON *attach = cJSON_GetObjectItemCaseSensitive(json, "attach");
	const cJSON *refresh = cJSON_GetObjectItemCaseSensitive(json, "refresh");
	const cJSON *on_deadline = cJSON_GetObjectItemCaseSensitive(json, "on_deadline");
	const cJSON *promote = cJSON_GetObjectItemCaseSensitive(json, "promote");

	if (!cJSON_IsObject(json))
		return err_set(err, -EINVAL, "the body must be a JSON object with \"url\"");
	q->url = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "url"));
	if (!q->url || !q->url[0])
		return err_set(err, -EINVAL, "\"url\" must be the URL of an image");
	if ((name && !cJSON_IsString(name)) || (attach && !cJSON_IsString(attach)) ||
	    (refresh && !cJSON_IsBool(refresh)) || (on_deadline && !cJSON_IsString(on_deadline)) ||
	    (promote && !cJSON_IsString(promote)))
		return err_set(err, -EINVAL,
			       "\"name\", \"attach\", \"on_deadline\" and \"promote\" must be "
			       "text, \"refresh\" true or false");
	q->name = name ? name->valuestring : "";
	q->attach = attach ? attach->valuestring : "none";
	q->refresh = cJSON_IsTrue(refresh);
	q->on_deadline = on_deadline ? on_deadline->valuestring : NULL;
	q->promote = promote ? promote->valuestring : NULL;
	if (strlen(q->name) > NBD_NAME_MAX)
		return err_set(err, -ENAMETOOLONG, "\"name\" is longer than %d bytes",
			       NBD_NAME_MAX);
	return add_parse_device(json, q, err);
}

/* Connections that a detached device's helper held take a moment to be seen as closed. */
static int remove_patiently(struct api *a, const char *name, bool force, struct err *err)
{
	int rc = exports_remove(a->exports, name, force, err);

	for (int i = 0; rc == -EBUSY && i < REMOVE_TRIES; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 20 * 1000000}, NULL);
		rc = exports_remove(a->exports, name, force, err);
	}
	return rc;
}

/* The device stands: its connections, if it has any of its own, and who it is. */
static int attach_take(struct api *a, const struct privileged_device *d, struct export_info *e,
		       struct err *err)
{
	struct tuner_device t;
	int rc = exports_adopt(a->exports, e->name, &d->links);

	if (!rc)
		rc = exports_set_device(a->exports, e->name, d->device, d->way_used);
	if (rc) {
		privileged_detach(a->supervisor_fd, e->name, true, NULL);
		return err_set(err, rc, "export '%s' was removed meanwhile", e->name);
	}
	snprintf(e->device, sizeof(e->device), "%s", d->device);
	snprintf(e->way, sizeof(e->way), "%s", d->way_used);
	exports_find(a->exports, e->name, e, NULL); /* its slot, too */
	t = api_tuner_device(e);
	tuner_attached(a->tuner, &t);
	return 0;
}

/* The device is promoted at once. */
static bool may_promote(const struct add_request *q, const struct export_info *e)
{
	return q->promote && strcmp(q->promote, "auto") == 0 && strcmp(q->attach, "auto") == 0 &&
	       e->verified && e->complete;
}

/* @note: why the first way was passed over, or "". */
static int attach(struct api *a, const struct add_request *q, struct export_info *e,
		  char note[SUPERVISOR_TEXT_LEN], struct err *err)
{
	struct privileged_device d = {.name = e->name,
				      .way = q->attach,
				      .identity = e->digest,
				      .len = export_device_len(e),
				      .queues = q->queues,
				      .index = q->index,
				      .wait = e->waits,
				      .promotable = may_promote(q, e),
				      .serve = exports_adopt_early,
				      .arg = a->exports};
	int rc;

	if (a->supervisor_fd < 0)
		return err_set(err, -ENOTSUP,
			       "this daemon runs without a supervisor and cannot attach");
	rc = privileged_attach(a->supervisor_fd, &d, err);
	if (rc)
		return rc;
	memcpy(note, d.passed_over, SUPERVISOR_TEXT_LEN);
	return attach_take(a, &d, e, err);
}

/* What stands already is what was asked for? */
static int device_check(const struct add_request *q, const struct export_info *e, struct err *err)
{
	if (q->index < 0 || kernel_device_index(e->device) == q->index)
		return 0;
	return err_set(err, -EBUSY, "%s is attached as %s: detach it first", e->name, e->device);
}

static int policy_set(struct api *a, const struct add_request *q, bool fresh, struct export_info *e,
		      struct err *err)
{
	const struct export_policy policy = {.on_deadline = q->on_deadline};
	char name[NBD_NAME_MAX + 1];
	int rc;

	strcpy(name, e->name);
	rc = exports_set_policy(a->exports, name, &policy, e, err);
	if (rc && fresh) /* as if it had not been asked for */
		remove_patiently(a, name, true, NULL);
	return rc;
}

static int promote_set(struct api *a, const struct add_request *q, bool fresh, bool attached,
		       struct export_info *e, struct err *err)
{
	char name[NBD_NAME_MAX + 1];
	int rc;

	strcpy(name, e->name);
	rc = exports_set_promote(a->exports, name, q->promote, attached, e, err);
	if (rc && fresh && !attached)
		remove_patiently(a, name, true, NULL);
	return rc;
}

static void export_post(struct api *a, const char *body, struct api_reply *out)
{
	cJSON *json = cJSON_Parse(body ? body : ""), *o;
	struct export_info e, before;
	struct add_request q = {0};
	struct err err = {0};
	char note[SUPERVISOR_TEXT_LEN] = "";
	bool fresh = false, attached = false;
	int rc = add_parse(json, &q, &err);

	if (rc)
		goto out;
	fresh = exports_find(a->exports, q.name[0] ? q.name : q.url, &before, NULL) != 0;
	rc = exports_add(a->exports, q.url, q.name, q.refresh, &e, &err);
	if (!rc && q.on_deadline)
		rc = policy_set(a, &q, fresh, &e, &err);
	if (rc)
		goto out;
	if (strcmp(q.attach, "none") != 0 && !e.device[0]) {
		exports_expect_mount(a->exports, e.name);
		rc = attach(a, &q, &e, note, &err);
		if (rc && fresh) /* as if it had not been asked for */
			remove_patiently(a, e.name, true, NULL);
		attached = !rc;
	} else if (e.device[0]) {
		rc = device_check(&q, &e, &err);
	}
	if (!rc && q.promote)
		rc = promote_set(a, &q, fresh, attached, &e, &err);
	if (rc)
		goto out;
	o = export_json(a, &e);
	cJSON_AddBoolToObject(o, "newly_attached", attached);
	cJSON_AddStringToObject(o, "passed_over", note);
	reply_json(out, fresh ? 201 : 200, o);
out:
	if (rc)
		reply_err(out, &err);
	cJSON_Delete(json);
}

/* A device that stands on an export which this worker could not reopen. False: there is none. */
static bool orphan_delete(struct api *a, const char *key, bool force, struct api_reply *out)
{
	struct err err = {0};
	bool forgotten;
	int rc = a->supervisor_fd < 0 ? -ENOENT
				      : privileged_detach(a->supervisor_fd, key, force, &err);

	forgotten = (!rc || rc == -ENOENT) && exports_forget(a->exports, key);
	if (!forgotten && (rc == -ENOENT || rc == -ENAMETOOLONG))
		return false;
	if (rc && !forgotten)
		reply_err(out, &err);
	else
		reply_json(out, 200, cJSON_CreateObject());
	return true;
}

/* A mount that ended a moment ago lets go of its file a little later. */
static int promotion_end_patiently(struct api *a, const char *name, bool force, struct err *err)
{
	int rc = exports_promotion_end(a->exports, name, force, err);

	for (int i = 0; rc == -EBUSY && i < RELEASE_TRIES; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 20 * 1000000}, NULL);
		rc = exports_promotion_end(a->exports, name, force, err);
	}
	return rc;
}

static void export_delete(struct api *a, const char *key, bool force, struct api_reply *out)
{
	struct export_info e;
	struct err err = {0};
	int rc = exports_find(a->exports, key, &e, &err);
	bool had_device = !rc && e.device[0];

	if (rc == -ENOENT && orphan_delete(a, key, force, out))
		return;
	if (had_device && a->supervisor_fd >= 0) {
		rc = privileged_detach(a->supervisor_fd, e.name, force, &err);
		if (rc == -ENOENT) /* the supervisor lost it: nothing stands on the export */
			rc = 0;
		if (!rc) {
			tuner_detached(a->tuner, e.name);
			exports_set_device(a->exports, e.name, "", "");
		}
	}
	if (!rc && e.file[0])
		rc = promotion_end_patiently(a, e.name, force, &err);
	if (!rc) {
		exports_find(a->exports, e.name, &e, NULL); /* the counts as they are now */
		rc = had_device ? remove_patiently(a, e.name, force, &err)
				: exports_remove(a->exports, e.name, force, &err);
	}
	if (rc) {
		reply_err(out, &err);
		return;
	}
	pthread_mutex_lock(&a->lock);
	totals_add(&a->retired, &e);
	pthread_mutex_unlock(&a->lock);
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
static void export_patch(struct api *a, const char *key, const char *body, struct api_reply *out)
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
