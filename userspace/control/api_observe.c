/* SPDX-License-Identifier: Apache-2.0 */
#include "control/api_observe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "control/api_status.h"
#include "control/reply.h"
#include "store/store.h"

#define TOP_EXTENTS 16 /* hottest, of each image */
#define TOP_STREAMS 32
#define HEAT_CHUNK  1024U /* granules looked at in one go */

static const char *const verdicts[] = {"new", "sequential", "stride", "random"};

struct tuner_device api_tuner_device(const struct export_info *e)
{
	return (struct tuner_device){.export_name = e->name,
				     .image = e->digest[0] ? e->digest : e->url,
				     .slot = e->slot};
}

void reply_add_hooks(cJSON *o, struct api *a)
{
	uint32_t bits = 0;

	cJSON_AddStringToObject(o, "hooks", view_hooks(tuner_view(a->tuner), &bits));
	cJSON_AddNumberToObject(o, "hook_bits", bits);
}

/* ---- top ---- */

static void add_latency(cJSON *o, const char *source, const struct histogram_view *v)
{
	cJSON *l = cJSON_AddObjectToObject(o, source), *buckets;

	reply_add_u64(l, "count", v->count);
	cJSON_AddNumberToObject(l, "sum_seconds", (double)v->sum_ns / 1e9);
	cJSON_AddNumberToObject(l, "max_seconds", (double)v->max_ns / 1e9);
	buckets = cJSON_AddArrayToObject(l, "buckets"); /* [end in seconds, count]; none empty */
	for (uint32_t b = 0; b < HISTOGRAM_BUCKETS; b++) {
		uint64_t end = histogram_bucket_end_ns(b);
		cJSON *pair;

		if (!v->bucket[b])
			continue;
		pair = cJSON_CreateArray();
		cJSON_AddItemToArray(
			pair, cJSON_CreateNumber(end == UINT64_MAX ? 1e9 : (double)end / 1e9));
		cJSON_AddItemToArray(pair, cJSON_CreateNumber((double)v->bucket[b]));
		cJSON_AddItemToArray(buckets, pair);
	}
}

static void add_stats(cJSON *o, const struct observe_stats *s)
{
	cJSON *c = cJSON_AddObjectToObject(o, "observed");

	reply_add_u64(c, "requests", s->requests);
	reply_add_u64(c, "request_bytes", s->request_bytes);
	reply_add_u64(c, "windows", s->windows);
	reply_add_u64(c, "window_bytes", s->window_bytes);
	reply_add_u64(c, "asked_pages", s->asked_pages);
	reply_add_u64(c, "missed_pages", s->missed_pages);
	reply_add_u64(c, "faults", s->faults);
	reply_add_u64(c, "sequential", s->sequential);
	reply_add_u64(c, "stride", s->stride);
	reply_add_u64(c, "random", s->random);
	reply_add_u64(c, "lost", s->lost);
}

struct hot {
	uint64_t granule;
	uint32_t heat;
};

/* Keep the hottest in @top, hottest first. */
static void hot_note(struct hot top[TOP_EXTENTS], uint64_t granule, uint32_t heat)
{
	int i = TOP_EXTENTS - 1;

	if (heat <= top[i].heat)
		return;
	for (; i > 0 && top[i - 1].heat < heat; i--)
		top[i] = top[i - 1];
	top[i] = (struct hot){granule, heat};
}

static void add_hottest(struct view *v, int slot, const struct view_device *d, uint64_t len,
			cJSON *o)
{
	struct hot top[TOP_EXTENTS] = {0};
	uint32_t heat[HEAT_CHUNK];
	cJSON *list = cJSON_AddArrayToObject(o, "hottest");

	for (uint32_t at = 0; at < d->cells; at += HEAT_CHUNK) {
		uint32_t n = d->cells - at < HEAT_CHUNK ? d->cells - at : HEAT_CHUNK;

		if (view_heat(v, slot, at, n, heat))
			break;
		for (uint32_t i = 0; i < n; i++)
			hot_note(top, at + i, heat[i]);
	}
	for (int i = 0; i < TOP_EXTENTS && top[i].heat; i++) {
		uint64_t off = top[i].granule << d->heat_shift, size = 1ULL << d->heat_shift;
		cJSON *h = cJSON_CreateObject();

		reply_add_u64(h, "off", off);
		reply_add_u64(h, "len", off + size > len ? len - off : size);
		cJSON_AddNumberToObject(h, "heat", top[i].heat);
		cJSON_AddItemToArray(list, h);
	}
}

static cJSON *stream_json(const struct observe_window *w)
{
	cJSON *s = cJSON_CreateObject();
	char comm[sizeof(w->comm) + 1] = "";

	memcpy(comm, w->comm, sizeof(w->comm));
	reply_add_u64(s, "ino", w->ino);
	cJSON_AddNumberToObject(s, "pid", w->tgid);
	cJSON_AddNumberToObject(s, "tid", w->pid);
	cJSON_AddStringToObject(s, "comm", comm);
	reply_add_u64(s, "cgroup", w->cgroup);
	cJSON_AddStringToObject(
		s, "verdict",
		verdicts[w->verdict < sizeof(verdicts) / sizeof(verdicts[0]) ? w->verdict : 0]);
	cJSON_AddNumberToObject(s, "stride", (double)w->stride);
	cJSON_AddNumberToObject(s, "run", w->run);
	cJSON_AddNumberToObject(s, "windows", w->windows);
	reply_add_u64(s, "bytes", w->bytes);
	reply_add_u64(s, "off", w->off);
	cJSON_AddNumberToObject(s, "len", w->len);
	cJSON_AddNumberToObject(s, "age_seconds", (double)(clock_now_ns() - w->ns) / 1e9);
	return s;
}

static void add_watched(struct api *a, const struct export_info *e, cJSON *o)
{
	struct view *v = tuner_view(a->tuner);
	struct observe_window streams[TOP_STREAMS];
	struct view_device d;
	cJSON *list;
	size_t n;

	if (e->slot < 0 || view_device(v, e->slot, &d))
		return;
	add_stats(o, &d.stats);
	add_hottest(v, e->slot, &d, e->length, o);
	list = cJSON_AddArrayToObject(o, "streams");
	n = view_streams(v, e->slot, streams, TOP_STREAMS);
	for (size_t i = 0; i < n; i++)
		cJSON_AddItemToArray(list, stream_json(&streams[i]));
}

static cJSON *top_image(struct api *a, const struct export_info *e)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "name", e->name);
	cJSON_AddStringToObject(o, "url", e->url);
	cJSON_AddStringToObject(o, "device", e->device);
	reply_add_u64(o, "length", e->length);
	reply_add_u64(o, "bytes_present", e->bytes_present);
	reply_add_sources(o, "reads", e->reads_local, e->reads_peer, e->reads_origin);
	reply_add_sources(o, "served_bytes", e->bytes_local, e->bytes_peer, e->bytes_origin);
	reply_add_u64(o, "read_errors", e->read_errors);
	add_watched(a, e, o);
	return o;
}

void top_get(struct api *a, struct api_reply *out)
{
	cJSON *o = cJSON_CreateObject(), *latency, *images;
	struct export_info *e = NULL;
	struct latency_view l;
	struct view_ring ring;
	struct api_totals t;
	size_t n = 0;

	exports_list(a->exports, &e, &n);
	api_totals(a, e, n, &t);
	exports_latency(a->exports, &l);
	view_ring(tuner_view(a->tuner), &ring);
	reply_add_u64(o, "now_ns", clock_now_ns());
	reply_add_hooks(o, a);
	reply_add_u64(o, "events", ring.records);
	reply_add_u64(o, "events_lost", ring.lost);
	reply_add_sources(o, "reads", t.reads_local, t.reads_peer, t.reads_origin);
	reply_add_sources(o, "served_bytes", t.bytes_local, t.bytes_peer, t.bytes_origin);
	reply_add_u64(o, "read_errors", t.read_errors);
	cJSON_AddNumberToObject(o, "stall_seconds", (double)l.stall_ns / 1e9);
	latency = cJSON_AddObjectToObject(o, "latency");
	add_latency(latency, "local", &l.local);
	add_latency(latency, "origin", &l.origin);
	images = cJSON_AddArrayToObject(o, "images");
	for (size_t i = 0; i < n; i++)
		cJSON_AddItemToArray(images, top_image(a, &e[i]));
	free(e);
	reply_json(out, 200, o);
}

/* ---- heat ---- */

static int cells_parse(const char *text, uint32_t *out, struct err *err)
{
	char *end = NULL;
	unsigned long n = text ? strtoul(text, &end, 10) : HEAT_CELLS_DEFAULT;

	if (text && (text[0] < '0' || text[0] > '9' || *end || n < 1 || n > HEAT_CELLS_LIMIT))
		return err_set(err, -EINVAL, "cells=%.40s: must be 1 to %d", text,
			       HEAT_CELLS_LIMIT);
	*out = (uint32_t)n;
	return 0;
}

/* Heat of cells of @cell_len bytes; where the device's granule is larger, a cell has its granule's
 * share. */
static int heat_sum(struct view *v, int slot, uint64_t cell_len, uint32_t ncells, uint64_t *out)
{
	struct view_device d;
	uint32_t heat[HEAT_CHUNK];
	int rc = view_device(v, slot, &d);

	for (uint32_t at = 0; !rc && at < d.cells; at += HEAT_CHUNK) {
		uint32_t n = d.cells - at < HEAT_CHUNK ? d.cells - at : HEAT_CHUNK;

		rc = view_heat(v, slot, at, n, heat);
		for (uint32_t i = 0; !rc && i < n; i++) {
			uint64_t off = (uint64_t)(at + i) << d.heat_shift;
			uint64_t granule = 1ULL << d.heat_shift;
			uint64_t first = off / cell_len, cells = granule / cell_len;

			for (uint64_t c = first; c < first + (cells ? cells : 1) && c < ncells; c++)
				out[c] += heat[i] / (cells ? cells : 1);
		}
	}
	return rc;
}

struct heat_map {
	uint64_t cell_extents, *heat;
	uint32_t ncells;
	uint8_t *present;
	bool observed;
};

static int heat_map_make(struct api *a, const struct export_info *e, uint32_t cells,
			 struct heat_map *m, struct err *err)
{
	uint64_t extents = (e->length + STORE_EXTENT - 1) / STORE_EXTENT;
	int rc;

	m->cell_extents = extents ? (extents + cells - 1) / cells : 1;
	m->ncells = (uint32_t)((extents + m->cell_extents - 1) / m->cell_extents);
	m->heat = calloc(m->ncells + 1, sizeof(*m->heat));
	m->present = calloc(m->ncells + 1, 1);
	if (!m->heat || !m->present)
		return err_set(err, -ENOMEM, "out of memory");
	rc = exports_presence(a->exports, e->name, m->cell_extents, m->ncells, m->present);
	if (rc)
		return err_set(err, rc, "the export '%s' was removed meanwhile", e->name);
	m->observed = e->slot >= 0 && !heat_sum(tuner_view(a->tuner), e->slot,
						m->cell_extents * STORE_EXTENT, m->ncells, m->heat);
	return 0;
}

static cJSON *heat_json(struct api *a, const struct export_info *e, const struct heat_map *m)
{
	cJSON *o = cJSON_CreateObject(), *heat, *present;
	struct policy p = {0};
	bool set;

	if (e->slot >= 0)
		view_policy(tuner_view(a->tuner), e->slot, &p, &set);
	cJSON_AddStringToObject(o, "name", e->name);
	cJSON_AddStringToObject(o, "url", e->url);
	cJSON_AddStringToObject(o, "digest", e->digest);
	cJSON_AddStringToObject(o, "device", e->device);
	reply_add_u64(o, "length", e->length);
	reply_add_u64(o, "bytes_present", e->bytes_present);
	reply_add_u64(o, "cell_bytes", m->cell_extents * STORE_EXTENT);
	cJSON_AddBoolToObject(o, "observed", m->observed);
	cJSON_AddNumberToObject(o, "half_life_seconds", policy_sane(p).half_life_ms / 1e3);
	reply_add_hooks(o, a);
	heat = cJSON_AddArrayToObject(o, "heat");
	present = cJSON_AddArrayToObject(o, "present"); /* blocks of 64 */
	for (uint32_t i = 0; i < m->ncells; i++) {
		cJSON_AddItemToArray(heat, cJSON_CreateNumber((double)m->heat[i]));
		cJSON_AddItemToArray(present, cJSON_CreateNumber(m->present[i]));
	}
	return o;
}

void heat_get(struct api *a, const char *export_key, const char *cells, struct api_reply *out)
{
	struct heat_map m = {0};
	struct export_info e;
	struct err err = {0};
	uint32_t n = 0;
	int rc = exports_find(a->exports, export_key, &e, &err);

	if (!rc)
		rc = cells_parse(cells, &n, &err);
	if (!rc)
		rc = heat_map_make(a, &e, n, &m, &err);
	if (rc)
		reply_err(out, &err);
	else
		reply_json(out, 200, heat_json(a, &e, &m));
	free(m.heat);
	free(m.present);
}
