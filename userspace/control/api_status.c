/* SPDX-License-Identifier: Apache-2.0 */
#include "control/api_status.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <unistd.h>

#include "control/api_crash.h"
#include "control/api_exports.h"
#include "control/reply.h"
#include "origin/origin.h"
#include "worker/supervisor_seen.h"

unsigned api_worker_restarts(void)
{
	const char *s = getenv("CAIRN_WORKER_RESTARTS");

	return s ? (unsigned)strtoul(s, NULL, 10) : 0;
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

void api_totals_retire(struct api *a, const struct export_info *e)
{
	pthread_mutex_lock(&a->lock);
	totals_add(&a->retired, e);
	pthread_mutex_unlock(&a->lock);
}

/* ---- the status ---- */

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

void status_get(struct api *a, struct api_reply *out)
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
