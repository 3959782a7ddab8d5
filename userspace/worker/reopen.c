/* SPDX-License-Identifier: Apache-2.0 */
/* An entry that waits belongs to the table's lock; the thread that works on one holds a copy, and
 * looks for the entry again when it is done: it may have been forgotten meanwhile. */
#include "worker/reopen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/adopt.h"

#define THREADS	     8
#define PAUSE_S	     2	/* between two tries of an entry */
#define TRIES_SILENT 15 /* how often the same failure is said: each so many tries */

struct waiting {
	struct roster_entry e;
	char *text;   /* e, as it stands in the roster */
	time_t again; /* not before this, by the monotonic clock */
	unsigned tries;
	bool is_tried; /* by a thread */
};

struct reopening {
	struct exports *x;
	struct adopter *adopter;
	struct opener opener; /* the table's, with a deadline of its own */
	struct waiting *list;
	size_t n;
	pthread_t threads[THREADS];
	size_t nthreads;
	pthread_cond_t wake;
	bool stopping;
};

/* ---- the list, under the table's lock ---- */

size_t reopening_list(struct reopening *r, const char **out)
{
	for (size_t i = 0; r && out && i < r->n; i++)
		out[i] = r->list[i].text;
	return r ? r->n : 0;
}

static struct waiting *waiting_find(struct reopening *r, const char *key)
{
	for (size_t i = 0; r && i < r->n; i++) {
		const struct roster_entry *e = &r->list[i].e;

		if (strcmp(e->name, key) == 0 || strcmp(e->url, key) == 0 ||
		    (e->device[0] && strcmp(e->device, key) == 0))
			return &r->list[i];
	}
	return NULL;
}

static void waiting_drop(struct reopening *r, struct waiting *w)
{
	free(w->text);
	*w = r->list[--r->n];
}

int reopening_check(struct reopening *r, const char *url, const char *name, struct err *err)
{
	struct waiting *w = waiting_find(r, name);

	if (!w || strcmp(w->e.name, name) != 0 || strcmp(w->e.url, url) == 0)
		return 0;
	return err_set(
		err, -EEXIST,
		"the name %s is another image's, which is being opened again: choose another "
		"--name, or detach it",
		name);
}

void reopening_free(struct reopening *r)
{
	if (!r)
		return;
	pthread_cond_destroy(&r->wake);
	while (r->n)
		waiting_drop(r, &r->list[r->n - 1]);
	free(r->list);
	free(r);
}

bool exports_forget(struct exports *x, const char *key)
{
	struct waiting *w;

	pthread_mutex_lock(&x->lock);
	w = waiting_find(x->reopening, key);
	if (w) {
		waiting_drop(x->reopening, w);
		exports_save(x);
	}
	pthread_mutex_unlock(&x->lock);
	return w;
}

static bool wait_for(struct exports *x, const struct roster_entry *e)
{
	struct reopening *r = x->reopening;
	struct waiting *list;
	char *text;

	if (!r) {
		r = calloc(1, sizeof(*r));
		if (!r)
			return false;
		r->x = x;
		pthread_cond_init(&r->wake, NULL);
		x->reopening = r;
	}
	list = reallocarray(r->list, r->n + 1, sizeof(*list));
	if (!list)
		return false;
	r->list = list;
	text = roster_text(e);
	if (!text)
		return false;
	list[r->n++] = (struct waiting){.e = *e, .text = text};
	return true;
}

/* ---- opening ---- */

static void entry_note(struct exports *x, struct volume *v, const struct roster_entry *e)
{
	exports_apply_policy(x, v, e);
	snprintf(v->device, sizeof(v->device), "%s", e->device);
	snprintf(v->way, sizeof(v->way), "%s", e->way);
	snprintf(v->promote, sizeof(v->promote), "%s", e->promote);
	v->promoted = e->promoted;
	if (v->promoted)
		object_promoted(v->source->data.object);
	volume_set_fetching(v, e->fetch);
	exports_changed(v);
}

static int reopen_from_store(struct exports *x, const struct roster_entry *e, struct err *err)
{
	struct opener_known k = {.digest = e->digest, .etag = e->etag, .length = e->length};
	struct image_source *source;
	struct volume *v;
	int rc = opener_reopen(&x->opener, e->url, &k, &source, err);

	if (!rc)
		rc = exports_make(x, e->url, e->name, &source, &v, err);
	if (rc)
		return rc;
	entry_note(x, v, e);
	rc = exports_insert(x, v);
	if (rc)
		volume_unref(v);
	return rc;
}

void exports_reopen(struct exports *x)
{
	struct roster_entry *e = NULL;
	struct err why = {0};
	size_t n = 0, later = 0;

	if (x->roster_fd < 0)
		return;
	if (roster_load(x->roster_fd, &e, &n, &why) < 0) {
		log_error("worker", "roster of exports lost", "%s", why.text);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		struct err err = {0};

		if (!reopen_from_store(x, &e[i], &err))
			continue;
		later++;
		if (!wait_for(x, &e[i]))
			log_error("worker", "export lost", "name=%s why=\"out of memory\"",
				  e[i].name);
	}
	if (n)
		log_info("worker", "exports opened again", "n=%zu to_ask_for=%zu", n - later,
			 later);
	free(e);
}

/* ---- those that only the origin has ---- */

/* The same image as before, where that is known. */
static int is_the_same(const struct roster_entry *e, const struct image_source *s, struct err *err)
{
	char digest[8 + 2 * SHA256_LEN] = "";

	if (s->manifest) {
		memcpy(digest, "sha256:", 7);
		hex_encode(s->manifest->digest, SHA256_LEN, digest + 7);
	}
	if (!e->length || (e->length == s->length && strcmp(e->digest, digest) == 0))
		return 0;
	return err_set(err, -ESTALE, "another image was published there");
}

static int reopen_from_origin(struct reopening *r, const struct roster_entry *e, struct volume **v,
			      struct err *err)
{
	struct image_source *source;
	int rc = opener_open(&r->opener, e->url, false, &source, err);

	if (rc)
		return rc;
	rc = is_the_same(e, source, err);
	if (rc) {
		image_source_unref(source);
		return rc;
	}
	return exports_make(r->x, e->url, e->name, &source, v, err);
}

static bool is_final(int rc)
{
	return rc == -ENOENT || rc == -ESTALE || rc == -EINVAL;
}

/* Under the lock. True: the export is there, and its device's connections can be asked for. */
static bool reopened(struct reopening *r, const struct roster_entry *e, struct volume *v, int rc,
		     const struct err *err)
{
	struct waiting *w = waiting_find(r, e->name);

	if (!rc && w && !exports_volume(r->x, e->name))
		rc = exports_insert(r->x, v);
	else if (!rc)
		rc = -EEXIST; /* forgotten, or added anew, meanwhile */
	if (w && rc && rc != -EEXIST && !is_final(rc)) {
		w->is_tried = false;
		w->again = (time_t)(clock_now_ns() / NSEC_PER_SEC) + PAUSE_S;
		if (w->tries++ % TRIES_SILENT == 0)
			log_warn("worker", "export can't be opened again yet", "name=%s why=\"%s\"",
				 e->name, err->text);
		return false;
	}
	if (w) {
		waiting_drop(r, w);
		exports_save(r->x);
	}
	if (rc && rc != -EEXIST)
		log_error("worker", "export lost", "name=%s why=\"%s\"", e->name, err->text);
	return !rc;
}

static void try_one(struct reopening *r, const struct roster_entry *e)
{
	struct err err = {0};
	struct volume *v = NULL;
	int rc = reopen_from_origin(r, e, &v, &err);
	bool is_new;

	if (!rc)
		entry_note(r->x, v, e);
	pthread_mutex_lock(&r->x->lock);
	is_new = reopened(r, e, v, rc, &err);
	pthread_mutex_unlock(&r->x->lock);
	if (v && !is_new) {
		volume_unref(v);
	} else if (is_new && e->device[0]) {
		adopter_lost(r->adopter, e->name);
		exports_watch(r->x, e->name, v->export.size);
	}
}

/* Under the lock: one that is due, or NULL and when to look again. */
static struct waiting *next_due(struct reopening *r, time_t *look)
{
	time_t now = (time_t)(clock_now_ns() / NSEC_PER_SEC);

	*look = now + 60;
	for (size_t i = 0; i < r->n; i++) {
		struct waiting *w = &r->list[i];

		if (w->is_tried)
			continue;
		if (w->again <= now)
			return w;
		if (w->again < *look)
			*look = w->again;
	}
	return NULL;
}

static void *reopening_run(void *arg)
{
	struct reopening *r = arg;
	struct roster_entry e;
	struct waiting *w;
	time_t look;

	pthread_mutex_lock(&r->x->lock);
	while (!r->stopping && r->n) {
		w = next_due(r, &look);
		if (!w) {
			struct timespec at = {.tv_sec = look + 1};

			pthread_cond_clockwait(&r->wake, &r->x->lock, CLOCK_MONOTONIC, &at);
			continue;
		}
		w->is_tried = true;
		e = w->e;
		pthread_mutex_unlock(&r->x->lock);
		try_one(r, &e);
		pthread_mutex_lock(&r->x->lock);
	}
	pthread_mutex_unlock(&r->x->lock);
	return NULL;
}

static void watch_devices(struct exports *x)
{
	struct export_info *e = NULL;
	size_t n = 0;

	if (exports_list(x, &e, &n))
		return;
	for (size_t i = 0; i < n; i++)
		if (e[i].device[0])
			exports_watch(x, e[i].name, export_device_len(&e[i]));
	free(e);
}

void reopening_start(struct exports *x, struct adopter *a)
{
	struct reopening *r = x->reopening;

	watch_devices(x);
	if (!r)
		return;
	r->adopter = a;
	r->opener = x->opener;
	r->opener.origin.deadline_ms = REOPEN_DEADLINE_MS;
	while (r->nthreads < THREADS && r->nthreads < r->n) {
		if (pthread_create(&r->threads[r->nthreads], NULL, reopening_run, r))
			break;
		r->nthreads++;
	}
	if (!r->nthreads)
		log_error("worker", "no thread to open exports again", "n=%zu", r->n);
}

void reopening_stop(struct exports *x)
{
	struct reopening *r = x->reopening;

	if (!r)
		return;
	pthread_mutex_lock(&x->lock);
	r->stopping = true;
	pthread_cond_broadcast(&r->wake);
	pthread_mutex_unlock(&x->lock);
	for (size_t i = 0; i < r->nthreads; i++)
		pthread_join(r->threads[i], NULL);
}
