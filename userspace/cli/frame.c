/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/frame.h"

#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/files.h"

#define DEVICES_MAX 256

static const char *const sources[] = {"local", "peer", "origin"};

static const cJSON *member(const cJSON *o, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(o, key);
}

static void copy(cJSON *to, const cJSON *from, const char *key)
{
	const cJSON *m = member(from, key);

	if (m)
		cJSON_AddItemToObject(to, key, cJSON_Duplicate(m, true));
}

/* How much a counter grew; one of another worker starts anew. */
static double grown(const cJSON *before, const cJSON *now, const char *key)
{
	double d = cli_number(now, key) - cli_number(before, key);

	return d < 0 ? cli_number(now, key) : d;
}

/* ---- names ---- */

struct frame_names {
	struct {
		char device[64], image[256]; /* loop devices are used again, for other images */
		struct files *files;	     /* NULL: not mounted when last looked */
	} list[DEVICES_MAX];
	int n;
};

struct frame_names *frame_names_new(void)
{
	return calloc(1, sizeof(struct frame_names));
}

void frame_names_free(struct frame_names *n)
{
	for (int i = 0; n && i < n->n; i++)
		files_free(n->list[i].files);
	free(n);
}

static struct files *names_of(struct frame_names *n, const cJSON *image)
{
	const char *device = cli_text(image, "device"), *name = cli_text(image, "name");
	int i = 0;

	if (!n || !device[0] || strlen(device) >= sizeof(n->list[0].device) ||
	    strlen(name) >= sizeof(n->list[0].image))
		return NULL;
	while (i < n->n && strcmp(n->list[i].device, device) != 0)
		i++;
	if (i == DEVICES_MAX)
		return NULL;
	n->n += i == n->n;
	if (n->list[i].files &&
	    (strcmp(n->list[i].image, name) != 0 || !files_stand(n->list[i].files))) {
		files_free(n->list[i].files);
		n->list[i].files = NULL;
	}
	strcpy(n->list[i].device, device);
	strcpy(n->list[i].image, name);
	if (!n->list[i].files)
		n->list[i].files = files_start(device);
	return n->list[i].files;
}

/* ---- latency ---- */

struct buckets {
	double end[256], count[256], all, max;
	int n;
};

static double bucket_count(const cJSON *buckets, double end)
{
	const cJSON *b;

	cJSON_ArrayForEach (b, buckets) {
		double at = b->child ? b->child->valuedouble : 0;

		if (at == end)
			return b->child->next ? b->child->next->valuedouble : 0;
	}
	return 0;
}

static void buckets_take(const cJSON *before, const cJSON *now, struct buckets *out)
{
	const cJSON *b, *old = member(before, "buckets");

	*out = (struct buckets){.max = cli_number(now, "max_seconds")};
	if (cli_number(now, "count") < cli_number(before, "count"))
		old = NULL;
	cJSON_ArrayForEach (b, member(now, "buckets")) {
		double end = b->child ? b->child->valuedouble : 0;
		double n = b->child && b->child->next ? b->child->next->valuedouble : 0;

		n -= bucket_count(old, end);
		if (n <= 0 || out->n == 256)
			continue;
		out->end[out->n] = end;
		out->count[out->n++] = n;
		out->all += n;
	}
}

static double quantile(const struct buckets *b, double q)
{
	double seen = 0;

	for (int i = 0; i < b->n; i++) {
		seen += b->count[i];
		if (seen >= q * b->all || i == b->n - 1)
			return b->end[i] < b->max ? b->end[i] : b->max;
	}
	return 0;
}

static void add_latency(cJSON *o, const char *key, const cJSON *before, const cJSON *now)
{
	struct buckets b;
	cJSON *l;

	buckets_take(before, now, &b);
	l = cJSON_AddObjectToObject(o, key);
	cJSON_AddNumberToObject(l, "count", b.all);
	if (!b.n)
		return;
	cJSON_AddNumberToObject(l, "p50_seconds", quantile(&b, 0.5));
	cJSON_AddNumberToObject(l, "p99_seconds", quantile(&b, 0.99));
	cJSON_AddNumberToObject(l, "max_seconds", quantile(&b, 1));
}

/* ---- rates ---- */

static void add_rates(cJSON *o, const cJSON *before, const cJSON *now, double seconds)
{
	for (int i = 0; i < 3; i++) {
		cJSON *s = cJSON_AddObjectToObject(o, sources[i]);

		cJSON_AddNumberToObject(
			s, "reads_per_second",
			grown(member(before, "reads"), member(now, "reads"), sources[i]) / seconds);
		cJSON_AddNumberToObject(s, "bytes_per_second",
					grown(member(before, "served_bytes"),
					      member(now, "served_bytes"), sources[i]) /
						seconds);
	}
}

static void add_sources(cJSON *o, const cJSON *before, const cJSON *now, double seconds)
{
	cJSON *s = cJSON_AddObjectToObject(o, "sources"), *one;

	add_rates(s, before, now, seconds);
	cJSON_ArrayForEach (one, s) {
		const cJSON *l = member(member(now, "latency"), one->string);

		if (!l)
			continue;
		add_latency(one, "latency", member(member(before, "latency"), one->string), l);
		add_latency(one, "latency_since_start", NULL, l);
	}
}

/* ---- images ---- */

/* Pages read ahead count as missed, so there can be more of those than were asked for. */
static double hit_share(double asked, double missed)
{
	return missed >= asked ? 0 : 1 - missed / asked;
}

static void add_observed(cJSON *o, const cJSON *before, const cJSON *now, double seconds)
{
	double asked = grown(before, now, "asked_pages");
	cJSON *cache;

	cJSON_AddNumberToObject(o, "requests_per_second", grown(before, now, "requests") / seconds);
	cJSON_AddNumberToObject(o, "request_bytes_per_second",
				grown(before, now, "request_bytes") / seconds);
	cJSON_AddNumberToObject(o, "windows_per_second", grown(before, now, "windows") / seconds);
	if (cli_number(now, "asked_pages") <= 0)
		return;
	cache = cJSON_AddObjectToObject(o, "page_cache");
	if (asked > 0)
		cJSON_AddNumberToObject(cache, "hit_share",
					hit_share(asked, grown(before, now, "missed_pages")));
	cJSON_AddNumberToObject(
		cache, "hit_share_since_attach",
		hit_share(cli_number(now, "asked_pages"), cli_number(now, "missed_pages")));
}

static void name_extents(cJSON *hottest, const struct files *f)
{
	cJSON *h;

	cJSON_ArrayForEach (h, hottest) {
		uint32_t others;
		const char *name = files_of_range(f, (uint64_t)cli_number(h, "off"),
						  (uint64_t)cli_number(h, "len"), &others);

		if (!name)
			continue;
		cJSON_AddStringToObject(h, "file", name);
		cJSON_AddNumberToObject(h, "more_files", others);
	}
}

static void name_streams(cJSON *streams, const struct files *f)
{
	cJSON *s;

	cJSON_ArrayForEach (s, streams) {
		const char *name = files_of_inode(f, (uint64_t)cli_number(s, "ino"));

		if (name)
			cJSON_AddStringToObject(s, "file", name);
	}
}

static const cJSON *image_named(const cJSON *sample, const char *name)
{
	const cJSON *i;

	cJSON_ArrayForEach (i, member(sample, "images"))
		if (strcmp(cli_text(i, "name"), name) == 0)
			return i;
	return NULL;
}

static cJSON *image_frame(const cJSON *before, const cJSON *now, double seconds, struct files *f)
{
	static const char *const keys[] = {"name",	    "url",	   "device",  "length",
					   "bytes_present", "read_errors", "observed"};
	cJSON *o = cJSON_CreateObject();

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		copy(o, now, keys[i]);
	if (f)
		cJSON_AddStringToObject(o, "mounted_on", files_mount_point(f));
	/* an image that came meanwhile has no rates yet */
	add_rates(cJSON_AddObjectToObject(o, "sources"), before ? before : now, now, seconds);
	if (!member(now, "observed"))
		return o;
	add_observed(o, member(before ? before : now, "observed"), member(now, "observed"),
		     seconds);
	copy(o, now, "hottest");
	copy(o, now, "streams");
	if (f) {
		name_extents(cJSON_GetObjectItem(o, "hottest"), f);
		name_streams(cJSON_GetObjectItem(o, "streams"), f);
	}
	return o;
}

cJSON *frame_make(const cJSON *before, const cJSON *now, struct frame_names *names, bool patiently)
{
	static const char *const keys[] = {"hooks", "hook_bits", "events", "events_lost",
					   "read_errors"};
	double seconds = (cli_number(now, "now_ns") - cli_number(before, "now_ns")) / 1e9;
	cJSON *o = cJSON_CreateObject(), *images;
	const cJSON *i;

	if (seconds <= 0)
		seconds = 1;
	cJSON_AddNumberToObject(o, "seconds", seconds);
	for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
		copy(o, now, keys[k]);
	add_sources(o, before, now, seconds);
	cJSON_AddNumberToObject(o, "stall_seconds_per_second",
				grown(before, now, "stall_seconds") / seconds);
	images = cJSON_AddArrayToObject(o, "images");
	cJSON_ArrayForEach (i, member(now, "images")) {
		struct files *f = names_of(names, i);

		if (f)
			files_settle(f, patiently);
		cJSON_AddItemToArray(images, image_frame(image_named(before, cli_text(i, "name")),
							 i, seconds, f));
	}
	return o;
}
