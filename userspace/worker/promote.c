/* SPDX-License-Identifier: Apache-2.0 */
/* The object is kept before the supervisor is asked, and let go after the device is gone or reads
 * from us again; when nobody can say whether it does, it stays kept. */
#include "worker/promote.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/adopt.h"
#include "worker/exports_impl.h"
#include "worker/privileged.h"
#include "worker/whole.h"

#define LOOK_MS	 1000
#define FETCH_MS 20
#define BLOCK	 4096

#define EROFS_MAGIC_AT 1024
#define EROFS_MAGIC    0xe0f5e1e2U

struct promoter {
	struct exports *x;
	int supervisor_fd;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stopping;
};

/* ---- may it be? ---- */

static bool holds_erofs(const struct object *o)
{
	uint32_t magic;

	return o->id.length >= EROFS_MAGIC_AT + sizeof(magic) &&
	       pread(o->data_fd, &magic, sizeof(magic), EROFS_MAGIC_AT) == sizeof(magic) &&
	       le32toh(magic) == EROFS_MAGIC;
}

/* Why not yet, or never; or NULL. */
static const char *hindrance(const struct volume *v, bool fresh)
{
	const struct object *o = v->source->data.object;

	if (!v->source->manifest)
		return "the image is not sealed: nothing says that the store's file is right";
	if (strcmp(v->way, "nbd") == 0)
		return "the kernel changes nothing under a device of its own NBD client: attach "
		       "with --way nbdfuse";
	if (o->id.length % BLOCK)
		return "the image's length is no multiple of 4096";
	if (!object_has_all(o))
		return "the image is not complete on this node (see cairn fetch)";
	if (!fresh && !holds_erofs(o))
		return "complete, but only a mounted erofs survives the change: detach and attach "
		       "again";
	return NULL;
}

/* ---- promote, release; under x->promoting ---- */

static void note(struct exports *x, struct volume *v, bool promoted, const char *why)
{
	pthread_mutex_lock(&x->lock);
	v->promoted = promoted;
	snprintf(v->promote_note, sizeof(v->promote_note), "%s", why);
	exports_changed(v);
	exports_save(x);
	pthread_mutex_unlock(&x->lock);
}

/* The supervisor did not say that it did not. */
static bool may_have_happened(int rc)
{
	return rc == -ETIMEDOUT || rc == -EPIPE || rc == -ECONNRESET || rc == -EBADMSG;
}

static int promote(struct promoter *p, struct volume *v, struct err *err)
{
	struct object *o = v->source->data.object;
	int fd, rc = object_promote(o);

	if (rc)
		return err_set(err, rc, "the store can't keep it: %s", strerror(-rc));
	fd = object_data_open(o);
	rc = fd < 0 ? fd : privileged_promote(p->supervisor_fd, v->export.name, fd, err);
	if (fd >= 0)
		close(fd);
	else
		err_set(err, rc, "the store's file: %s", strerror(-rc));
	if (rc && !may_have_happened(rc))
		object_release(o);
	else
		note(p->x, v, true, rc ? err->text : "");
	return rc;
}

static void try_promote(struct promoter *p, struct volume *v, bool fresh)
{
	struct err err = {0};
	const char *why;
	int rc;

	if (v->promoted || v->promote_refused || !v->device[0] || strcmp(v->promote, "auto") != 0)
		return;
	why = hindrance(v, fresh);
	if (!why) {
		rc = promote(p, v, &err);
		if (!rc || rc == -EAGAIN)
			return;
		log_warn("worker", "a device is not promoted", "export=%s why=\"%s\"",
			 v->export.name, err.text);
		why = err.text;
		v->promote_refused = !may_have_happened(rc);
	}
	if (!v->promoted && strncmp(why, v->promote_note, sizeof(v->promote_note) - 1) != 0)
		note(p->x, v, false, why);
}

static int release(struct promoter *p, struct volume *v, struct err *err)
{
	struct export_info e;
	struct privileged_device d = {.name = v->export.name,
				      .way = "",
				      .index = -1,
				      .revive = true,
				      .release = true,
				      .serve = exports_adopt_early,
				      .arg = p->x};
	int rc;

	exports_find(p->x, v->export.name, &e, NULL);
	d.identity = e.digest;
	d.len = export_device_len(&e);
	rc = privileged_attach(p->supervisor_fd, &d, err);
	if (!rc)
		rc = exports_adopt(p->x, v->export.name, &d.links);
	if (rc)
		return rc;
	note(p->x, v, false, "");
	object_release(v->source->data.object);
	return 0;
}

void promotion_end(struct exports *x, const char *name)
{
	struct volume *v = exports_volume_get(x, name, NULL);
	bool was;

	if (!v)
		return;
	pthread_mutex_lock(&x->promoting);
	was = v->promoted;
	v->promoted = false;
	if (was)
		object_release(v->source->data.object);
	pthread_mutex_unlock(&x->promoting);
	volume_unref(v);
}

int exports_promotion_end(struct exports *x, const char *key, bool force, struct err *err)
{
	struct volume *v = exports_volume_get(x, key, err);
	struct object *o;
	int rc = 0;

	if (!v)
		return -ENOENT;
	o = v->source->data.object;
	pthread_mutex_lock(&x->promoting);
	if (v->promoted && !force && o->promotions == 1 && object_is_read_elsewhere(o)) {
		rc = err_set(err, -EBUSY, "the store's file of %s is mounted: unmount it first",
			     v->export.name);
	} else if (v->promoted) {
		note(x, v, false, "");
		object_release(o);
	}
	pthread_mutex_unlock(&x->promoting);
	volume_unref(v);
	return rc;
}

void exports_note_promoted(struct exports *x, const char *name, bool promoted)
{
	struct volume *v = exports_volume_get(x, name, NULL);

	if (v && promoted && !v->promoted) {
		object_promoted(v->source->data.object);
		note(x, v, true, "");
	} else if (v && !promoted && v->promoted) {
		note(x, v, false, "");
		object_release(v->source->data.object);
	}
	if (v)
		volume_unref(v);
}

/* The store's file for a mount of its own. */
static int promote_file(struct exports *x, struct volume *v, struct err *err)
{
	struct object *o = v->source->data.object;
	const char *name = v->export.name;
	int rc;

	if (v->device[0])
		return err_set(err, -EBUSY, "%s is attached as %s: detach it first", name,
			       v->device);
	if (v->promoted)
		return 0;
	if (!v->source->manifest)
		return err_set(err, -ENOTSUP, "%s is not sealed: see cairn image seal", name);
	if (!object_has_all(o))
		return err_set(err, -EAGAIN,
			       "%s is not complete on this node: fetch it first (--wait, or cairn "
			       "fetch)",
			       name);
	if (!holds_erofs(o))
		return err_set(err, -ENOTSUP, "%s holds no erofs", name);
	rc = object_promote(o);
	if (rc)
		return err_set(err, rc, "the store can't keep %s: %s", name, strerror(-rc));
	pthread_mutex_lock(&x->lock);
	snprintf(v->promote, sizeof(v->promote), "erofs-file");
	pthread_mutex_unlock(&x->lock);
	note(x, v, true, "");
	return 0;
}

static int promote_device(struct exports *x, struct volume *v, const char *wish, bool fresh,
			  struct err *err)
{
	if (v->promoted && strcmp(v->promote, "erofs-file") == 0)
		return err_set(err, -EBUSY, "the store's file of %s is for a mount: unmount it",
			       v->export.name);
	pthread_mutex_lock(&x->lock);
	snprintf(v->promote, sizeof(v->promote), "%s", wish);
	v->promote_note[0] = 0;
	exports_changed(v);
	v->promote_refused = false;
	exports_save(x);
	pthread_mutex_unlock(&x->lock);
	if (v->promoted && strcmp(wish, "never") == 0)
		return release(x->promoter, v, err);
	try_promote(x->promoter, v, fresh);
	return 0;
}

int exports_set_promote(struct exports *x, const char *key, const char *wish, bool fresh,
			struct export_info *out, struct err *err)
{
	bool file = strcmp(wish, "erofs-file") == 0;
	struct volume *v;
	int rc;

	if (!file && strcmp(wish, "auto") != 0 && strcmp(wish, "never") != 0)
		return err_set(err, -EINVAL, "promote must be auto, never or erofs-file");
	v = exports_volume_get(x, key, err);
	if (!v)
		return -ENOENT;
	pthread_mutex_lock(&x->promoting);
	if (file)
		rc = promote_file(x, v, err);
	else if (x->promoter)
		rc = promote_device(x, v, wish, fresh, err);
	else
		rc = err_set(err, -ENOTSUP, "this daemon runs without a supervisor");
	pthread_mutex_lock(&x->lock);
	exports_tell(v, out);
	pthread_mutex_unlock(&x->lock);
	pthread_mutex_unlock(&x->promoting);
	volume_unref(v);
	return rc;
}

/* ---- the thread ---- */

/* Fresh array of references, the caller's. */
static struct volume **volumes_all(struct exports *x, size_t *n)
{
	struct volume **list;

	pthread_mutex_lock(&x->lock);
	list = calloc(x->n ? x->n : 1, sizeof(struct volume *));
	*n = list ? x->n : 0;
	for (size_t i = 0; i < *n; i++)
		list[i] = volume_ref(x->volumes[i]);
	pthread_mutex_unlock(&x->lock);
	return list;
}

/* True: something is being fetched. */
static bool look(struct promoter *p, bool all)
{
	size_t n;
	struct volume **list = volumes_all(p->x, &n);
	bool fetching = false;

	for (size_t i = 0; i < n; i++) {
		bool was = atomic_load(&list[i]->fetching), more = whole_step(p->x, list[i], all);

		fetching = fetching || more;
		if (all || (was && !more)) {
			pthread_mutex_lock(&p->x->promoting);
			try_promote(p, list[i], false);
			pthread_mutex_unlock(&p->x->promoting);
		}
		volume_unref(list[i]);
	}
	free(list);
	return fetching;
}

/* True when told to stop. */
static bool sleep_ms(struct promoter *p, long ms)
{
	uint64_t at_ns = clock_now_ns() + (uint64_t)ms * NSEC_PER_MSEC;
	struct timespec at = {.tv_sec = (time_t)(at_ns / NSEC_PER_SEC),
			      .tv_nsec = (long)(at_ns % NSEC_PER_SEC)};
	bool stopping;

	pthread_mutex_lock(&p->lock);
	if (!p->stopping)
		pthread_cond_clockwait(&p->wake, &p->lock, CLOCK_MONOTONIC, &at);
	stopping = p->stopping;
	pthread_mutex_unlock(&p->lock);
	return stopping;
}

static void *promoter_run(void *arg)
{
	struct promoter *p = arg;
	uint64_t next_ns = 0;
	bool fetching;

	do {
		bool all = clock_now_ns() >= next_ns;

		if (all)
			store_let_go_unread(p->x->store);
		if (all)
			next_ns = clock_now_ns() + LOOK_MS * NSEC_PER_MSEC;
		fetching = look(p, all);
	} while (!sleep_ms(p, fetching ? FETCH_MS : LOOK_MS));
	return NULL;
}

int promoter_start(struct exports *x, int supervisor_fd, struct promoter **out, struct err *err)
{
	struct promoter *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return err_set(err, -ENOMEM, "out of memory");
	p->x = x;
	p->supervisor_fd = supervisor_fd;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	rc = pthread_create(&p->thread, NULL, promoter_run, p);
	if (rc) {
		free(p);
		return err_set(err, -rc, "can't start a thread: %s", strerror(rc));
	}
	x->promoter = p;
	*out = p;
	return 0;
}

void promoter_wake(struct promoter *p)
{
	if (p)
		pthread_cond_signal(&p->wake);
}

void promoter_stop(struct promoter *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_cond_signal(&p->wake);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	p->x->promoter = NULL;
	free(p);
}
