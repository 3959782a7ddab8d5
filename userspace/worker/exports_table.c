/* SPDX-License-Identifier: Apache-2.0 */
/* The table itself: exports by name, and what the roster keeps of them. All under its lock. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "worker/exports_impl.h"
#include "worker/reopen.h"

/* FNV-1a. @cap is a power of 2. */
static struct volume **bucket_of(const struct exports *x, const char *name)
{
	uint64_t h = 0xcbf29ce484222325ULL;

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 0x100000001b3ULL;
	return &x->buckets[(h ^ h >> 32) & (x->cap - 1)];
}

struct volume *exports_volume(struct exports *x, const char *name)
{
	struct volume *v = x->cap ? *bucket_of(x, name) : NULL;

	while (v && strcmp(v->export.name, name) != 0)
		v = v->bucket_next;
	return v;
}

static bool shows_file(const struct volume *v, const char *path)
{
	char file[CONFIG_PATH_MAX + 128];

	return v->promoted && !v->device[0] &&
	       !object_data_path(v->source->data.object, file, sizeof(file)) &&
	       strcmp(file, path) == 0;
}

struct volume *exports_lookup(struct exports *x, const char *key)
{
	struct volume *v = exports_volume(x, key);

	for (size_t i = 0; !v && i < x->n; i++) {
		struct volume *w = x->volumes[i];

		if (strcmp(w->url, key) == 0 || strcmp(w->shown_url, key) == 0 ||
		    (w->device[0] && strcmp(w->device, key) == 0) || shows_file(w, key))
			v = w;
	}
	return v;
}

static void bucket_add(struct exports *x, struct volume *v)
{
	struct volume **bucket = bucket_of(x, v->export.name);

	v->bucket_next = *bucket;
	*bucket = v;
}

static int table_grow(struct exports *x)
{
	size_t cap = x->cap ? x->cap * 2 : 16;
	void *volumes = reallocarray(x->volumes, cap, sizeof(*x->volumes)), *buckets;

	if (!volumes)
		return -ENOMEM;
	x->volumes = volumes;
	buckets = calloc(cap, sizeof(*x->buckets));
	if (!buckets)
		return -ENOMEM;
	free(x->buckets);
	x->buckets = buckets;
	x->cap = cap;
	for (size_t i = 0; i < x->n; i++)
		bucket_add(x, x->volumes[i]);
	return 0;
}

int exports_insert(struct exports *x, struct volume *v)
{
	int rc = x->n == x->cap ? table_grow(x) : 0;

	if (rc)
		return rc;
	x->volumes[x->n++] = v;
	bucket_add(x, v);
	return 0;
}

void exports_take_out(struct exports *x, struct volume *v)
{
	struct volume **at = bucket_of(x, v->export.name);
	size_t i = 0;

	while (*at != v)
		at = &(*at)->bucket_next;
	*at = v->bucket_next;
	while (x->volumes[i] != v)
		i++;
	memmove(&x->volumes[i], &x->volumes[i + 1], (x->n - i - 1) * sizeof(*x->volumes));
	x->n--;
}

/* ---- the roster ---- */

void exports_changed(struct volume *v)
{
	free(v->roster_text);
	v->roster_text = NULL;
}

static const char *text_of(struct volume *v)
{
	struct roster_entry e = {.length = v->source->length,
				 .limit = share_rate(v->share),
				 .store = v->store_limit,
				 .keep = v->keeps,
				 .promoted = v->promoted,
				 .fetch = atomic_load(&v->fetching)};

	if (v->roster_text)
		return v->roster_text;
	snprintf(e.url, sizeof(e.url), "%s", v->url);
	snprintf(e.name, sizeof(e.name), "%s", v->export.name);
	snprintf(e.device, sizeof(e.device), "%s", v->device);
	snprintf(e.way, sizeof(e.way), "%s", v->way);
	snprintf(e.etag, sizeof(e.etag), "%s", v->source->etag);
	exports_digest(v, e.digest);
	snprintf(e.on_deadline, sizeof(e.on_deadline), "%s", v->on_deadline);
	snprintf(e.promote, sizeof(e.promote), "%s", v->promote);
	v->roster_text = roster_text(&e);
	return v->roster_text;
}

/* The successor of a worker that died opens what this says. */
void exports_save(struct exports *x)
{
	size_t n = x->n + reopening_list(x->reopening, NULL);
	const char **texts = x->roster_fd < 0 ? NULL : calloc(n ? n : 1, sizeof(*texts));
	int rc = texts ? 0 : -ENOMEM;

	if (x->roster_fd < 0)
		return;
	for (size_t i = 0; !rc && i < x->n; i++) {
		texts[i] = text_of(x->volumes[i]);
		if (!texts[i])
			rc = -ENOMEM;
	}
	if (!rc) {
		reopening_list(x->reopening, texts + x->n);
		rc = roster_save(x->roster_fd, &x->roster_last, texts, n);
	}
	if (rc)
		log_warn("worker", "roster of exports not saved", "why=\"%s\"", strerror(-rc));
	free(texts);
}
