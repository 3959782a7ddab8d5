/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/exports.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "observe/view.h"
#include "worker/exports_impl.h"
#include "worker/reopen.h"

/* ---- names ---- */

struct volume *exports_volume_get(struct exports *x, const char *key, struct err *err)
{
	struct volume *v;

	pthread_mutex_lock(&x->lock);
	v = exports_lookup(x, key);
	if (v)
		volume_ref(v);
	pthread_mutex_unlock(&x->lock);
	if (!v)
		err_set(err, -ENOENT,
			"no export has the name, URL or device %s: see `cairn status`", key);
	return v;
}

/* The last part of the URL's path, in letters a shell and a file name take as they are. */
static void name_from_url(const char *url, char *name, size_t len)
{
	size_t end = strcspn(url, "?#"), start = end, n = 0, suffix = strlen(MANIFEST_SUFFIX);

	if (end > suffix && strncmp(url + end - suffix, MANIFEST_SUFFIX, suffix) == 0)
		end -= suffix;
	for (start = end; start > 0 && url[start - 1] != '/'; start--)
		;
	for (size_t i = start; i < end && n < len - 8; i++)
		name[n++] = isalnum((unsigned char)url[i]) || strchr("._-", url[i]) ? url[i] : '_';
	name[n] = 0;
	if (!n)
		snprintf(name, len, "image");
}

/* @name free of every other image's: "data", "data-2", .. The URL's own export keeps its name. */
static void choose_name(struct exports *x, const char *url, char *name, size_t len)
{
	char base[NBD_NAME_MAX + 1];
	struct volume *v;

	name_from_url(url, base, sizeof(base) - 8);
	snprintf(name, len, "%s", base);
	for (int i = 2; (v = exports_volume(x, name)) && strcmp(v->url, url) != 0; i++)
		snprintf(name, len, "%.240s-%d", base, i);
}

static int check_name(const char *name, struct err *err)
{
	if (strlen(name) > NBD_NAME_MAX - 8)
		return err_set(err, -EINVAL, "name is longer than %d bytes", NBD_NAME_MAX - 8);
	for (const char *p = name; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
			return err_set(
				err, -EINVAL,
				"name %s: only letters, digits, '.', '_' and '-' are allowed",
				name);
	if (name[0] == '.')
		return err_set(err, -EINVAL, "name %s may not begin with '.'", name);
	return 0;
}

/* ---- what is told ---- */

void exports_digest(const struct volume *v, char out[8 + 2 * SHA256_LEN])
{
	const struct manifest *m = v->source->manifest;

	out[0] = 0;
	if (!m)
		return;
	memcpy(out, "sha256:", 7);
	hex_encode(m->digest, SHA256_LEN, out + 7);
}

void exports_tell(struct volume *v, struct export_info *out)
{
	struct volume_counters c;

	memset(out, 0, sizeof(*out));
	volume_count(v, &c);
	snprintf(out->name, sizeof(out->name), "%s", v->export.name);
	snprintf(out->url, sizeof(out->url), "%s", v->shown_url);
	out->verified = v->source->manifest != NULL;
	exports_digest(v, out->digest);
	out->length = v->source->length;
	object_usage(v->source->data.object, &out->bytes_present, &out->zero_bytes);
	out->connections = v->export.connections;
	snprintf(out->device, sizeof(out->device), "%s", v->device);
	snprintf(out->way, sizeof(out->way), "%s", v->way);
	out->slot = v->slot;
	out->reads_local = c.reads_local;
	out->reads_origin = c.reads_origin;
	out->bytes_local = c.bytes_local;
	out->bytes_origin = c.bytes_origin;
	out->read_errors = c.errors;
	out->deadlines = c.deadlines;
	out->limit = share_rate(v->share);
	out->store_limit = v->store_limit;
	out->kept = v->keeps;
	out->waits = atomic_load(&v->waits);
	out->patient = atomic_load(&v->patient);
	snprintf(out->promote, sizeof(out->promote), "%s", v->promote[0] ? v->promote : "never");
	snprintf(out->promote_note, sizeof(out->promote_note), "%s", v->promote_note);
	out->promoted = v->promoted;
	if (v->promoted && strcmp(v->promote, "erofs-file") == 0)
		object_data_path(v->source->data.object, out->file, sizeof(out->file));
	out->fetching = atomic_load(&v->fetching);
	out->complete = object_has_all(v->source->data.object);
	pthread_mutex_lock(&v->lock);
	snprintf(out->last_error, sizeof(out->last_error), "%s", v->last_error);
	pthread_mutex_unlock(&v->lock);
}

/* ---- adding and removing ---- */

/* Is @name taken? 1: by the same URL, told in @out. 0: free. */
static int taken(struct exports *x, const char *url, const char *name, struct export_info *out,
		 struct err *err)
{
	struct volume *v = exports_volume(x, name);

	if (!v)
		return reopening_check(x->reopening, url, name, err);
	if (strcmp(v->url, url) != 0)
		return err_set(err, -EEXIST,
			       "the name %s already serves %s: choose another --name, or detach it",
			       name, v->shown_url);
	exports_tell(v, out);
	return 1;
}

int exports_make(struct exports *x, const char *url, const char *name, struct image_source **source,
		 struct volume **out, struct err *err)
{
	int rc = volume_new(name, source, x->fill, x->cfg->readahead, &x->latency, out, err);

	if (rc)
		return rc;
	(*out)->slot = -ENOENT;
	exports_default_policy(x, *out);
	snprintf((*out)->url, sizeof((*out)->url), "%s", url);
	origin_redact_url(url, (*out)->shown_url, sizeof((*out)->shown_url));
	return 0;
}

int exports_add(struct exports *x, const char *url, const char *name, bool refresh,
		struct export_info *out, struct err *err)
{
	char chosen[NBD_NAME_MAX + 1];
	struct image_source *source;
	struct volume *v = NULL;
	int rc = check_name(name, err);

	if (rc)
		return rc;
	if (strlen(url) >= ORIGIN_URL_MAX)
		return err_set(err, -EINVAL, "the URL is longer than %d bytes", ORIGIN_URL_MAX - 1);
	pthread_mutex_lock(&x->lock);
	snprintf(chosen, sizeof(chosen), "%s", name);
	if (!name[0])
		choose_name(x, url, chosen, sizeof(chosen));
	rc = taken(x, url, chosen, out, err);
	pthread_mutex_unlock(&x->lock);
	if (rc)
		return rc < 0 ? rc : 0;
	/* asks the origin: not under the lock */
	rc = opener_open(&x->opener, url, refresh, &source, err);
	if (!rc)
		rc = exports_make(x, url, chosen, &source, &v, err);
	if (rc)
		return rc;
	pthread_mutex_lock(&x->lock);
	rc = taken(x, url, chosen, out, err); /* by someone who asked meanwhile? */
	if (!rc)
		rc = exports_insert(x, v);
	if (rc) {
		volume_unref(v);
	} else {
		exports_tell(v, out);
		exports_save(x);
		log_info("worker", "export added", "name=%s url=%s digest=%s length=%" PRIu64,
			 out->name, out->url, out->verified ? out->digest : "none", out->length);
	}
	pthread_mutex_unlock(&x->lock);
	return rc < 0 ? rc : 0;
}

int exports_remove(struct exports *x, const char *name, bool force, struct err *err)
{
	struct volume *v;
	int rc = 0;

	pthread_mutex_lock(&x->lock);
	v = exports_lookup(x, name);
	if (!v)
		rc = err_set(err, -ENOENT,
			     "no export has the name, URL or device %s: see `cairn status`", name);
	else if (v->device[0])
		rc = err_set(err, -EBUSY, "export %s stands under device %s: detach it",
			     v->export.name, v->device);
	else if (!force && v->export.connections)
		rc = err_set(err, -EBUSY,
			     "export %s has %u clients connected: use --force to drop them",
			     v->export.name, v->export.connections);
	if (!rc) {
		exports_take_out(x, v);
		v->export.closing = true;
		exports_save(x);
	}
	pthread_mutex_unlock(&x->lock);
	if (rc)
		return rc;
	log_info("worker", "export removed", "name=%s", v->export.name);
	if (x->server)
		nbd_server_sweep(x->server);
	volume_unref(v);
	return 0;
}

void exports_watch(struct exports *x, const char *name, uint64_t len)
{
	int slot = x->view ? view_add(x->view, name, len) : -ENOTSUP;
	struct volume *v;

	pthread_mutex_lock(&x->lock);
	v = exports_volume(x, name);
	if (v && v->device[0])
		v->slot = slot;
	pthread_mutex_unlock(&x->lock);
}

int exports_set_device(struct exports *x, const char *name, const char *device, const char *way)
{
	struct volume *v;
	uint64_t len = 0;
	int slot = -ENOENT;

	pthread_mutex_lock(&x->lock);
	v = exports_volume(x, name);
	if (v) {
		len = v->export.size;
		slot = v->slot;
		v->slot = -ENOENT;
		snprintf(v->device, sizeof(v->device), "%s", device);
		snprintf(v->way, sizeof(v->way), "%s", way);
		exports_changed(v);
		exports_save(x);
	}
	pthread_mutex_unlock(&x->lock);
	if (!device[0])
		promotion_end(x, name);
	if (slot >= 0 && !device[0])
		view_remove(x->view, slot);
	if (v && device[0])
		exports_watch(x, name, len);
	return v ? 0 : -ENOENT;
}

struct view *exports_view(struct exports *x)
{
	return x->view;
}

void exports_expect_mount(struct exports *x, const char *name)
{
	struct volume *v;

	pthread_mutex_lock(&x->lock);
	v = exports_volume(x, name);
	if (v)
		completion_expect_mount(v);
	pthread_mutex_unlock(&x->lock);
}

int exports_find(struct exports *x, const char *key, struct export_info *out, struct err *err)
{
	struct volume *v;

	pthread_mutex_lock(&x->lock);
	v = exports_lookup(x, key);
	if (v)
		exports_tell(v, out);
	pthread_mutex_unlock(&x->lock);
	if (!v)
		return err_set(err, -ENOENT,
			       "no export has the name, URL or device %s: see `cairn status`", key);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct export_info *)a)->name, ((const struct export_info *)b)->name);
}

int exports_list(struct exports *x, struct export_info **out, size_t *n)
{
	struct export_info *list;

	pthread_mutex_lock(&x->lock);
	list = calloc(x->n ? x->n : 1, sizeof(*list));
	for (size_t i = 0; list && i < x->n; i++)
		exports_tell(x->volumes[i], &list[i]);
	*n = x->n;
	pthread_mutex_unlock(&x->lock);
	if (!list)
		return -ENOMEM;
	qsort(list, *n, sizeof(*list), by_name);
	*out = list;
	return 0;
}

static uint64_t resident_bytes(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (!f)
		return 0;
	if (fscanf(f, "%*u %lu", &pages) != 1)
		pages = 0;
	fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

void exports_status(struct exports *x, struct worker_status *out)
{
	struct store_counters *s = store_counters(x->store);

	memset(out, 0, sizeof(*out));
	out->store_used = s->used;
	out->store_size = store_size(x->store);
	out->store_objects = store_objects(x->store);
	out->store_wanted = store_wanted(x->store);
	out->store_evictions = s->evicted_extents;
	out->store_errors = s->write_errors;
	out->store_rechecks = s->rechecked_blocks;
	out->verify_failures = fill_counters(x->fill)->verify_failures + s->recheck_failures;
	snprintf(out->store_path, sizeof(out->store_path), "%s", store_path(x->store));
	snprintf(out->event_loop, sizeof(out->event_loop), "%s", x->event_loop);
	out->uptime_ms = (clock_now_ns() - x->started_ns) / NSEC_PER_MSEC;
	out->rss_bytes = resident_bytes();
	out->before_pid = x->before_pid;
	out->before_planned = x->before_planned;
	out->gap_ms = x->gap_ms;
}

/* Of the blocks of extents [first, end): how many of 64 are ready. */
static uint8_t presence(const struct object *o, uint64_t first, uint64_t end)
{
	uint64_t have = 0, all = (end - first) * STORE_EXTENT_BLOCKS;

	if (end == o->extents)
		all = (o->id.length + STORE_BLOCK - 1) / STORE_BLOCK - first * STORE_EXTENT_BLOCKS;
	for (uint64_t i = first; i < end; i++)
		have += (uint64_t)__builtin_popcountll(
			atomic_load_explicit(&o->ready[i], memory_order_relaxed));
	if (have >= all)
		return 64;
	return (uint8_t)(have && have * 64 < all ? 1 : have * 64 / all);
}

int exports_presence(struct exports *x, const char *name, uint64_t extents, uint32_t ncells,
		     uint8_t *out)
{
	const struct object *o;
	struct volume *v;
	int rc = 0;

	pthread_mutex_lock(&x->lock);
	v = exports_volume(x, name);
	if (v)
		volume_ref(v);
	pthread_mutex_unlock(&x->lock);
	if (!v)
		return -ENOENT;
	o = v->source->data.object;
	if (ncells && extents * (ncells - 1) >= o->extents)
		rc = -ERANGE;
	for (uint32_t i = 0; !rc && i < ncells; i++) {
		uint64_t first = i * extents, end = first + extents;

		out[i] = presence(o, first, end < o->extents ? end : o->extents);
	}
	volume_unref(v);
	return rc;
}

void exports_latency(struct exports *x, struct latency_view *out)
{
	memset(out, 0, sizeof(*out));
	histogram_merge(&x->latency.local, &out->local);
	histogram_merge(&x->latency.origin, &out->origin);
	out->stall_ns = atomic_load(&x->latency.stall_ns);
}

/* ---- for the NBD server ---- */

static struct nbd_export *directory_find(struct nbd_directory *d, const char *name)
{
	struct exports *x = (struct exports *)((char *)d - offsetof(struct exports, directory));
	struct volume *v;

	pthread_mutex_lock(&x->lock);
	v = name[0] ? exports_volume(x, name) : x->n == 1 ? x->volumes[0] : NULL;
	if (v)
		volume_ref(v);
	pthread_mutex_unlock(&x->lock);
	return v ? &v->export : NULL;
}

static void directory_list(struct nbd_directory *d, bool (*fn)(void *, const char *, const char *),
			   void *arg)
{
	struct exports *x = (struct exports *)((char *)d - offsetof(struct exports, directory));

	pthread_mutex_lock(&x->lock);
	for (size_t i = 0; i < x->n; i++)
		if (!fn(arg, x->volumes[i]->export.name, x->volumes[i]->export.description))
			break;
	pthread_mutex_unlock(&x->lock);
}

void exports_set_store(struct exports *x, struct store *store)
{
	x->store = store;
	x->opener.store = store;
}

int exports_init(struct exports *x, const struct config *cfg, struct fill *fill, int roster_fd,
		 int secrets_fd, struct err *err)
{
	memset(x, 0, sizeof(*x));
	pthread_mutex_init(&x->lock, NULL);
	pthread_mutex_init(&x->promoting, NULL);
	x->cfg = cfg;
	x->fill = fill;
	x->roster_fd = roster_fd;
	x->started_ns = clock_now_ns();
	x->directory.find = directory_find;
	x->directory.list = directory_list;
	x->opener.fill = fill;
	return opener_init(&x->opener, cfg, secrets_fd, err);
}

void exports_fini(struct exports *x)
{
	for (size_t i = 0; i < x->n; i++)
		volume_unref(x->volumes[i]);
	free(x->volumes);
	free(x->buckets);
	reopening_free(x->reopening);
	opener_free(&x->opener);
	pthread_mutex_destroy(&x->lock);
	pthread_mutex_destroy(&x->promoting);
}
