/* SPDX-License-Identifier: Apache-2.0 */
#include "control/api_crash.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/reply.h"
#include "crash/backoff.h"
#include "crash/doing.h"
#include "crash/record.h"

#define LINES_IN_STATUS 4

static void add_time(cJSON *o, uint64_t ms)
{
	time_t s = (time_t)(ms / 1000);
	char text[32] = "";
	struct tm tm;

	if (gmtime_r(&s, &tm))
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	cJSON_AddStringToObject(o, "time", text);
}

static void add_doing(cJSON *o, const struct crash_doing *d)
{
	cJSON *j = cJSON_AddObjectToObject(o, "doing");
	char text[512];

	crash_doing_text(d, text, sizeof(text));
	cJSON_AddStringToObject(j, "text", text);
	cJSON_AddStringToObject(j, "what", crash_what_name(d->what));
	cJSON_AddStringToObject(j, "export", d->export_name);
	cJSON_AddStringToObject(j, "identity", d->identity);
	reply_add_u64(j, "off", d->off);
	reply_add_u64(j, "len", d->len);
}

/* "cairnd+0x1234", which addr2line takes without the "cairnd+", or an address of a library. */
static void add_frames(cJSON *o, const struct crash_death *d)
{
	cJSON *list = cJSON_AddArrayToObject(o, "frames");
	char text[32];

	for (uint32_t i = 0; i < d->nframes; i++) {
		uint64_t at = d->frame[i];
		bool own = at >= d->base && at < d->base_end;

		snprintf(text, sizeof(text), "%s0x%" PRIx64, own ? "cairnd+" : "",
			 own ? at - d->base : at);
		cJSON_AddItemToArray(list, cJSON_CreateString(text));
	}
}

static void add_lines(cJSON *o, const struct crash_log *log, unsigned most)
{
	cJSON *list = cJSON_AddArrayToObject(o, "log");
	unsigned n = crash_log_lines(log);

	for (unsigned i = n > most ? n - most : 0; i < n; i++)
		cJSON_AddItemToArray(list, cJSON_CreateString(crash_log_line(log, i)));
}

static cJSON *death_json(const struct crash_death_view *v, unsigned lines)
{
	const struct crash_death *d = &v->death;
	cJSON *o = cJSON_CreateObject();
	char text[32];

	add_time(o, d->time_ms);
	cJSON_AddStringToObject(o, "cause", crash_cause_name(d->cause));
	cJSON_AddStringToObject(o, "signal", d->signal ? strsignal(d->signal) : "");
	cJSON_AddNumberToObject(o, "status", d->status);
	cJSON_AddNumberToObject(o, "pid", d->pid);
	cJSON_AddStringToObject(o, "version", d->build);
	cJSON_AddNumberToObject(o, "ran_seconds", (double)d->ran_ms / 1000);
	cJSON_AddBoolToObject(o, "core_dumped", d->core);
	cJSON_AddBoolToObject(o, "from_outside", d->from_outside);
	cJSON_AddStringToObject(o, "thread", d->thread);
	snprintf(text, sizeof(text), "0x%" PRIx64, d->address);
	cJSON_AddStringToObject(o, "address", d->has_address ? text : "");
	add_doing(o, &d->doing);
	add_frames(o, d);
	add_lines(o, &v->log, lines);
	return o;
}

static void add_refused(cJSON *o, const struct crash_record *r)
{
	cJSON *list = cJSON_AddArrayToObject(o, "refused");
	struct crash_poison p[CRASH_POISONS];
	size_t n = crash_record_poisons(r, p);

	for (size_t i = 0; i < n; i++) {
		cJSON *j = cJSON_CreateObject();

		add_doing(j, &p[i].doing);
		cJSON_AddStringToObject(j, "cause", crash_cause_name(p[i].cause));
		add_time(j, p[i].time_ms);
		reply_add_u64(j, "times", p[i].refused);
		cJSON_AddItemToArray(list, j);
	}
}

static size_t deaths(const struct crash_record *r, struct crash_death_view **out)
{
	*out = calloc(CRASH_DEATHS, sizeof(**out));
	return *out ? crash_record_deaths(r, *out) : 0;
}

void crashes_get(struct api_reply *out)
{
	const struct crash_record *r = crash_record_mine();
	cJSON *o = cJSON_CreateObject(), *list;
	struct crash_death_view *v;
	size_t n;

	list = cJSON_AddArrayToObject(o, "deaths");
	if (r) {
		n = deaths(r, &v);
		for (size_t i = 0; i < n; i++)
			cJSON_AddItemToArray(list, death_json(&v[i], CRASH_LINES));
		free(v);
		add_refused(o, r);
	}
	reply_json(out, 200, o);
}

void crashes_delete(struct api_reply *out)
{
	crash_clear();
	reply_json(out, 200, cJSON_CreateObject());
}

void crashes_add(cJSON *o, uint64_t uptime_ms)
{
	const struct crash_record *r = crash_record_mine();
	cJSON *c, *causes, *last;
	struct crash_death_view *v;
	unsigned in_a_row;
	size_t n;

	if (!r)
		return;
	in_a_row = uptime_ms < CRASH_LONG_LIFE_MS ? atomic_load(&r->in_a_row) : 0;
	c = cJSON_AddObjectToObject(o, "crashes");
	causes = cJSON_AddObjectToObject(c, "by_cause");
	for (uint32_t i = 0; i < CRASH_CAUSES; i++)
		reply_add_u64(causes, crash_cause_name(i), atomic_load(&r->by_cause[i]));
	cJSON_AddNumberToObject(c, "in_a_row", in_a_row);
	cJSON_AddBoolToObject(c, "loop", crash_is_loop(in_a_row));
	n = deaths(r, &v);
	last = n ? death_json(&v[0], LINES_IN_STATUS) : cJSON_CreateNull();
	cJSON_AddItemToObject(c, "last", last);
	free(v);
	add_refused(c, r);
}

void crashes_metrics(FILE *out)
{
	const struct crash_record *r = crash_record_mine();
	uint64_t refused;

	if (!r)
		return;
	fputs("# HELP cairn_worker_deaths_total Workers that died, by how.\n"
	      "# TYPE cairn_worker_deaths_total counter\n",
	      out);
	for (uint32_t i = 0; i < CRASH_CAUSES; i++)
		fprintf(out, "cairn_worker_deaths_total{cause=\"%s\"} %" PRIu64 "\n",
			crash_cause_name(i), atomic_load(&r->by_cause[i]));
	refused = atomic_load(&r->refused);
	fprintf(out,
		"# HELP cairn_refused_reads_total Reads answered with an error because they had "
		"killed two workers.\n"
		"# TYPE cairn_refused_reads_total counter\n"
		"cairn_refused_reads_total %" PRIu64 "\n",
		refused);
}

/* Never the key: it may be a URL with a SAS. */
static void call_name(const char *method, const char *path, char *buf, size_t len)
{
	static const char exports[] = "/v1/exports/";

	if (strncmp(path, exports, sizeof(exports) - 1) == 0)
		path = "/v1/exports/..";
	snprintf(buf, len, "%.8s %.40s", method, path);
}

void crashes_api_call(struct api *a, const char *method, const char *path,
		      const struct api_query *q, const char *body, struct api_reply *out)
{
	struct crash_subject s;
	char name[64];
	bool entered;

	call_name(method, path, name, sizeof(name));
	crash_subject_init(&s, name, "");
	entered = crash_enter(CRASH_CONTROL, &s, 0, 0);
	api_call(a, method, path, q, body, out);
	crash_leave(entered);
}
