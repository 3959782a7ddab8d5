/* SPDX-License-Identifier: Apache-2.0 */
/* The Prometheus text format, version 0.0.4. No label but `source`: images come and go. */
#include <inttypes.h>
#include <stdlib.h>

#include "control/api.h"
#include "control/api_crash.h"
#include "control/api_status.h"
#include "origin/origin.h"

static void head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void single(FILE *out, const char *name, const char *type, const char *help, uint64_t v)
{
	head(out, name, type, help);
	fprintf(out, "%s %" PRIu64 "\n", name, v);
}

static void by_source(FILE *out, const char *name, const char *help, uint64_t local, uint64_t peer,
		      uint64_t origin)
{
	head(out, name, "counter", help);
	fprintf(out, "%s{source=\"local\"} %" PRIu64 "\n", name, local);
	fprintf(out, "%s{source=\"peer\"} %" PRIu64 "\n", name, peer);
	fprintf(out, "%s{source=\"origin\"} %" PRIu64 "\n", name, origin);
}

static void origin_print(FILE *out)
{
	single(out, "cairn_origin_get_requests_total", "counter", "GETs sent to origins.",
	       atomic_load(&origin_counters.get_requests));
	single(out, "cairn_origin_get_bytes_total", "counter", "Body bytes received from origins.",
	       atomic_load(&origin_counters.get_bytes));
	single(out, "cairn_origin_head_requests_total", "counter", "HEADs sent to origins.",
	       atomic_load(&origin_counters.head_requests));
	single(out, "cairn_origin_retries_total", "counter",
	       "Requests to origins that were repeated.", atomic_load(&origin_counters.retries));
	single(out, "cairn_origin_errors_total", "counter",
	       "Requests to origins that failed for good.", atomic_load(&origin_counters.errors));
}

static void store_print(const struct worker_status *w, FILE *out)
{
	single(out, "cairn_store_used_bytes", "gauge", "Bytes of images in the store.",
	       w->store_used);
	single(out, "cairn_store_wanted_bytes", "gauge",
	       "Of them what a reader asked for, told from a part of the extents.",
	       w->store_wanted);
	single(out, "cairn_store_size_bytes", "gauge", "Most bytes the store keeps.",
	       w->store_size);
	single(out, "cairn_store_objects", "gauge", "Objects in the store.", w->store_objects);
	single(out, "cairn_store_evictions_total", "counter", "Extents evicted.",
	       w->store_evictions);
	single(out, "cairn_store_errors_total", "counter",
	       "Reads and writes of the store that failed.", w->store_errors);
	single(out, "cairn_store_rechecks_total", "counter",
	       "Blocks verified again after an unclean stop.", w->store_rechecks);
}

#define OCTAVES_A_BUCKET 2 /* each bucket ends at four times the one before */

static void seconds_of_source(FILE *out, const char *source, const struct histogram_view *v)
{
	static const char name[] = "cairn_read_seconds";

	for (uint32_t i = 0; i <= HISTOGRAM_OCTAVES; i += OCTAVES_A_BUCKET)
		fprintf(out, "%s_bucket{source=\"%s\",le=\"%.6f\"} %" PRIu64 "\n", name, source,
			(double)(1ULL << i) / 1e6, histogram_below(v, i));
	fprintf(out, "%s_bucket{source=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, source, v->count);
	fprintf(out, "%s_sum{source=\"%s\"} %.9f\n", name, source, (double)v->sum_ns / 1e9);
	fprintf(out, "%s_count{source=\"%s\"} %" PRIu64 "\n", name, source, v->count);
}

static void latency_print(struct api *a, FILE *out)
{
	struct latency_view v;

	exports_latency(a->exports, &v);
	head(out, "cairn_read_seconds", "histogram",
	     "Time from a read's arrival to its reply, by the farthest source it needed.");
	seconds_of_source(out, "local", &v.local);
	seconds_of_source(out, "origin", &v.origin);
	head(out, "cairn_reader_stall_seconds_total", "counter",
	     "Time that readers waited for bytes that were not in the store.");
	fprintf(out, "cairn_reader_stall_seconds_total %.6f\n", (double)v.stall_ns / 1e9);
}

void metrics_print(struct api *a, FILE *out)
{
	struct worker_status w = {0};
	struct export_info *e = NULL;
	struct api_totals t;
	size_t n = 0;

	exports_status(a->exports, &w);
	exports_list(a->exports, &e, &n);
	api_totals(a, e, n, &t);
	free(e);
	by_source(out, "cairn_served_bytes_total",
		  "Bytes served to readers, by where each came from.", t.bytes_local, t.bytes_peer,
		  t.bytes_origin);
	by_source(out, "cairn_reads_total", "Reads answered, by the farthest source each needed.",
		  t.reads_local, t.reads_peer, t.reads_origin);
	single(out, "cairn_read_errors_total", "counter", "Reads answered with an error.",
	       t.read_errors);
	single(out, "cairn_verify_failures_total", "counter",
	       "Blocks that did not match their hash.", w.verify_failures);
	latency_print(a, out);
	origin_print(out);
	store_print(&w, out);
	single(out, "cairn_nbd_connections", "gauge", "Open NBD connections.", t.connections);
	single(out, "cairn_images", "gauge", "Images exported.", t.exports);
	single(out, "cairn_promoted_images", "gauge",
	       "Images whose device reads the store's file without the worker.", t.promoted);
	single(out, "cairn_worker_restarts_total", "counter",
	       "Workers that died since cairnd started.", api_worker_restarts());
	crashes_metrics(out);
	single(out, "cairn_worker_resident_bytes", "gauge", "Resident memory of the worker.",
	       w.rss_bytes);
	head(out, "cairn_worker_uptime_seconds", "gauge", "Age of this worker.");
	fprintf(out, "cairn_worker_uptime_seconds %.3f\n", (double)w.uptime_ms / 1000);
	head(out, "cairn_build_info", "gauge", "Always 1.");
	fprintf(out, "cairn_build_info{version=\"%s\"} 1\n", CAIRN_VERSION);
}
