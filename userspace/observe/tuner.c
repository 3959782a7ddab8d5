/* SPDX-License-Identifier: Apache-2.0 */
#include "observe/watch.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "observe/cgroup.h"
#include "observe/policy_file.h"
#include "worker/privileged.h"

#define MOUNTINFO      "/proc/self/mountinfo"
#define READ_AHEAD_BIT (1U << TUNE_READ_AHEAD_KB)

struct watched {
	char name[SUPERVISOR_NAME_LEN];
	int slot;
	uint64_t read_ahead_before; /* KiB, before it was tuned; UINT64_MAX = not tuned */
};

struct watch {
	pthread_mutex_t lock; /* the tables and the file; not held while the supervisor is asked */
	struct view *view;
	int supervisor_fd;
	char path[PATH_MAX]; /* of the saved policies */
	struct policy_file saved;
	struct watched *list;
	size_t n;
	char **cgroups; /* tuned since the start */
	size_t ncgroups;
};

static struct watched *find(struct watch *w, const char *name)
{
	for (size_t i = 0; i < w->n; i++)
		if (strcmp(w->list[i].name, name) == 0)
			return &w->list[i];
	return NULL;
}

static struct watched *find_or_add(struct watch *w, const char *name)
{
	struct watched *d = find(w, name), *more;

	if (d || strlen(name) >= sizeof(d->name))
		return d;
	more = reallocarray(w->list, w->n + 1, sizeof(*more));
	if (!more)
		return NULL;
	w->list = more;
	d = &more[w->n++];
	*d = (struct watched){.slot = -ENOENT, .read_ahead_before = UINT64_MAX};
	strcpy(d->name, name);
	return d;
}

struct view *watch_view(struct watch *w)
{
	return w->view;
}

int watch_slot(struct watch *w, const char *export_name)
{
	struct watched *d;
	int slot;

	pthread_mutex_lock(&w->lock);
	d = find(w, export_name);
	slot = d && d->slot >= 0 ? d->slot : -ENOENT;
	pthread_mutex_unlock(&w->lock);
	return slot;
}

static struct tuning saved_of(struct watch *w, bool is_cgroup, const char *subject)
{
	const struct tuning *t;
	struct tuning out = {0};

	pthread_mutex_lock(&w->lock);
	t = policy_file_find(&w->saved, is_cgroup, subject);
	if (t)
		out = *t;
	pthread_mutex_unlock(&w->lock);
	return out;
}

static int save(struct watch *w, bool is_cgroup, const char *subject, const struct tuning *t,
		struct err *err)
{
	int rc;

	pthread_mutex_lock(&w->lock);
	rc = policy_file_put(&w->saved, is_cgroup, subject, t, err);
	if (!rc)
		rc = policy_file_save(w->path, &w->saved, err);
	pthread_mutex_unlock(&w->lock);
	return rc;
}

/* ---- readahead, which is the kernel's and needs no observer ---- */

static void note_read_ahead(struct watch *w, const char *name, uint64_t before)
{
	struct watched *d;

	pthread_mutex_lock(&w->lock);
	d = find_or_add(w, name);
	if (d && (d->read_ahead_before == UINT64_MAX || before == UINT64_MAX))
		d->read_ahead_before = before;
	pthread_mutex_unlock(&w->lock);
}

static uint64_t read_ahead_before(struct watch *w, const char *name)
{
	struct watched *d;
	uint64_t before;

	pthread_mutex_lock(&w->lock);
	d = find(w, name);
	before = d ? d->read_ahead_before : UINT64_MAX;
	pthread_mutex_unlock(&w->lock);
	return before;
}

static int tune_read_ahead(struct watch *w, const char *name, const struct tuning *t,
			   struct err *err)
{
	bool resets = t->reset & READ_AHEAD_BIT;
	uint64_t before, now, kb = t->value[TUNE_READ_AHEAD_KB];
	int rc;

	if (!((t->have | t->reset) & READ_AHEAD_BIT))
		return 0;
	if (resets) {
		kb = read_ahead_before(w, name);
		if (kb == UINT64_MAX)
			return 0;
	}
	rc = privileged_read_ahead(w->supervisor_fd, name, UINT64_MAX, &before, err);
	if (!rc)
		rc = privileged_read_ahead(w->supervisor_fd, name, kb, &now, err);
	if (!rc && now != kb)
		rc = err_set(err, -EINVAL,
			     "read_ahead_kb=%llu: the kernel made %llu of it for this device",
			     (unsigned long long)kb, (unsigned long long)now);
	if (!rc)
		note_read_ahead(w, name, resets ? UINT64_MAX : before);
	return rc;
}

/* ---- devices ---- */

static bool tunes_observer(const struct tuning *t)
{
	return (t->have | t->reset) & ~READ_AHEAD_BIT;
}

static int observer_is_off(struct watch *w, struct err *err)
{
	return err_set(err, -ENOTSUP, "only read_ahead_kb can be tuned now; the observer: %s",
		       view_hooks(w->view, NULL));
}

static int tune_slot(struct watch *w, const char *name, const struct tuning *t, struct err *err)
{
	int slot = watch_slot(w, name), rc;
	struct policy p;
	bool set;

	if (!tunes_observer(t))
		return 0;
	if (slot < 0)
		return observer_is_off(w, err);
	rc = view_policy(w->view, slot, &p, &set);
	if (!rc) {
		p = tuning_policy(t, p);
		rc = view_policy_set(w->view, slot, &p);
	}
	return rc ? err_set(err, rc, "the policy of '%s' can't be set: %s", name, strerror(-rc))
		  : 0;
}

int watch_tune(struct watch *w, const struct watch_device *d, const struct tuning *t, bool keep,
	       struct err *err)
{
	int rc = tune_slot(w, d->export_name, t, err);

	if (!rc)
		rc = tune_read_ahead(w, d->export_name, t, err);
	if (!rc && keep)
		rc = save(w, false, d->image, t, err);
	return rc;
}

void watch_attached(struct watch *w, const struct watch_device *d)
{
	struct tuning t = saved_of(w, false, d->image);
	int slot = view_add(w->view, d->export_name, d->len);
	struct watched *entry;
	struct err err = {0};

	if (slot < 0 && slot != -ENOTSUP)
		log_warn("observe", "a device is not watched", "export=%s why=\"%s\"",
			 d->export_name, strerror(-slot));
	pthread_mutex_lock(&w->lock);
	entry = find_or_add(w, d->export_name);
	if (entry)
		entry->slot = slot;
	pthread_mutex_unlock(&w->lock);
	if (slot >= 0 && tune_slot(w, d->export_name, &t, &err))
		log_warn("observe", "a saved policy is not in force", "%s", err.text);
	if (tune_read_ahead(w, d->export_name, &t, &err))
		log_warn("observe", "a saved read_ahead_kb is not in force", "export=%s why=\"%s\"",
			 d->export_name, err.text);
}

void watch_detached(struct watch *w, const char *export_name)
{
	struct watched *d;
	int slot = -ENOENT;

	pthread_mutex_lock(&w->lock);
	d = find(w, export_name);
	if (d) {
		slot = d->slot;
		*d = w->list[--w->n];
	}
	pthread_mutex_unlock(&w->lock);
	if (slot >= 0)
		view_remove(w->view, slot);
}

/* ---- what is in force ---- */

static void tuned_from_policy(const struct policy *p, bool set, const struct tuning *saved,
			      struct tuned *out)
{
	const struct policy none = {0};
	struct tuning defaults;

	tuning_of_policy(&none, &defaults);
	tuning_of_policy(p, &out->now);
	for (int k = 0; k < TUNE_KEYS; k++) {
		if (!(out->now.have >> k & 1))
			continue;
		if (saved->have >> k & 1 && saved->value[k] == out->now.value[k])
			out->from[k] = TUNED_SAVED;
		else if (set && out->now.value[k] != defaults.value[k])
			out->from[k] = TUNED_SET;
	}
}

static void tuned_read_ahead(struct watch *w, const char *name, const struct tuning *saved,
			     struct tuned *out)
{
	uint64_t now;

	if (privileged_read_ahead(w->supervisor_fd, name, UINT64_MAX, &now, NULL))
		return;
	out->now.have |= READ_AHEAD_BIT;
	out->now.value[TUNE_READ_AHEAD_KB] = now;
	if (saved->have & READ_AHEAD_BIT && saved->value[TUNE_READ_AHEAD_KB] == now)
		out->from[TUNE_READ_AHEAD_KB] = TUNED_SAVED;
	else if (read_ahead_before(w, name) != UINT64_MAX)
		out->from[TUNE_READ_AHEAD_KB] = TUNED_SET;
}

int watch_tuned(struct watch *w, const struct watch_device *d, struct tuned *out, struct err *err)
{
	struct tuning saved = saved_of(w, false, d->image);
	int slot = watch_slot(w, d->export_name), rc = 0;
	struct policy p = {0};
	bool set = false;

	*out = (struct tuned){0};
	if (slot >= 0) {
		rc = view_policy(w->view, slot, &p, &set);
		if (rc)
			return err_set(err, rc, "the policy of '%s' can't be read: %s",
				       d->export_name, strerror(-rc));
		tuned_from_policy(&p, set, &saved, out);
	}
	tuned_read_ahead(w, d->export_name, &saved, out);
	return 0;
}

/* ---- cgroups ---- */

static void note_cgroup(struct watch *w, const char *path)
{
	char **more;

	pthread_mutex_lock(&w->lock);
	for (size_t i = 0; i < w->ncgroups; i++)
		if (strcmp(w->cgroups[i], path) == 0)
			goto out;
	more = reallocarray(w->cgroups, w->ncgroups + 1, sizeof(*more));
	if (!more)
		goto out;
	w->cgroups = more;
	more[w->ncgroups] = strdup(path);
	w->ncgroups += more[w->ncgroups] != NULL;
out:
	pthread_mutex_unlock(&w->lock);
}

static int cgroup_apply(struct watch *w, const char *path, uint64_t id, const struct tuning *t,
			struct err *err)
{
	const struct policy none = {0};
	struct tuning now, defaults;
	struct policy p = {0};
	bool set;
	int rc = view_cgroup_policy(w->view, id, &p, &set);

	if (rc == -ENOTSUP)
		return observer_is_off(w, err);
	p = tuning_policy(t, p);
	p.cgroup = id;
	tuning_of_policy(&p, &now);
	tuning_of_policy(&none, &defaults);
	if (!t->have && memcmp(&now, &defaults, sizeof(now)) == 0) /* room for another */
		rc = view_cgroup_policy_unset(w->view, id);
	else
		rc = view_cgroup_policy_set(w->view, id, &p);
	if (rc == -ENOSPC)
		return err_set(err, rc, "policies of %d cgroups are in force already; reset some",
			       OBSERVE_CGROUPS);
	if (rc && rc != -ENOENT)
		return err_set(err, rc, "the policy of %s can't be set: %s", path, strerror(-rc));
	return 0;
}

int watch_cgroup_tune(struct watch *w, const char *path, const struct tuning *t, bool keep,
		      struct err *err)
{
	uint64_t id;
	int rc = cgroup_find(MOUNTINFO, path, &id, err);

	if (!rc)
		rc = cgroup_apply(w, path, id, t, err);
	if (rc)
		return rc;
	note_cgroup(w, path);
	return keep ? save(w, true, path, t, err) : 0;
}

int watch_cgroup_tuned(struct watch *w, const char *path, struct tuned *out, struct err *err)
{
	struct tuning saved = saved_of(w, true, path);
	struct policy p = {0};
	uint64_t id;
	bool set = false;
	int rc = cgroup_find(MOUNTINFO, path, &id, err);

	*out = (struct tuned){0};
	if (rc)
		return rc;
	rc = view_cgroup_policy(w->view, id, &p, &set);
	if (rc == -ENOTSUP)
		return observer_is_off(w, err);
	tuned_from_policy(&p, set, &saved, out);
	out->now.have &= TUNE_CGROUP_KEYS;
	return 0;
}

static void cgroups_apply_saved(struct watch *w)
{
	for (size_t i = 0; i < w->saved.n; i++) {
		const struct policy_entry *e = &w->saved.list[i];
		struct err err = {0};
		uint64_t id;
		int rc;

		if (!e->is_cgroup)
			continue;
		rc = cgroup_find(MOUNTINFO, e->subject, &id, &err);
		if (!rc)
			rc = cgroup_apply(w, e->subject, id, &e->tuning, &err);
		if (rc)
			log_warn("observe", "the saved policy of a cgroup is not in force",
				 "why=\"%s\"", err.text);
	}
}

static void push(char ***list, size_t *n, const char *path)
{
	char **more = reallocarray(*list, *n + 1, sizeof(*more));

	if (!more)
		return;
	*list = more;
	more[*n] = strdup(path);
	*n += more[*n] != NULL;
}

size_t watch_cgroups(struct watch *w, char ***out)
{
	size_t n = 0;

	*out = NULL;
	pthread_mutex_lock(&w->lock);
	for (size_t i = 0; i < w->saved.n; i++)
		if (w->saved.list[i].is_cgroup)
			push(out, &n, w->saved.list[i].subject);
	for (size_t i = 0; i < w->ncgroups; i++)
		if (!policy_file_find(&w->saved, true, w->cgroups[i]))
			push(out, &n, w->cgroups[i]);
	pthread_mutex_unlock(&w->lock);
	return n;
}

/* ---- life ---- */

struct watch *watch_new(struct view *view, int supervisor_fd, const char *folder)
{
	struct watch *w = calloc(1, sizeof(*w));
	struct err err = {0};

	if (!w)
		return NULL;
	pthread_mutex_init(&w->lock, NULL);
	w->view = view;
	w->supervisor_fd = supervisor_fd;
	snprintf(w->path, sizeof(w->path), "%s/" POLICY_FILE_NAME, folder);
	if (policy_file_load(w->path, &w->saved, &err))
		log_error("observe", "saved policies lost", "why=\"%s\"", err.text);
	cgroups_apply_saved(w);
	return w;
}

void watch_free(struct watch *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->ncgroups; i++)
		free(w->cgroups[i]);
	free(w->cgroups);
	free(w->list);
	policy_file_free(&w->saved);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
