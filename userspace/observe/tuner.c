/* SPDX-License-Identifier: Apache-2.0 */
#include "observe/tuner.h"

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

struct tuned_device {
	char name[SUPERVISOR_NAME_LEN];
	uint64_t read_ahead_before; /* KiB, before it was tuned; UINT64_MAX = not tuned */
};

struct tuner {
	pthread_mutex_t lock; /* the tables and the file; not held while the supervisor is asked */
	struct view *view;
	int supervisor_fd;
	char path[PATH_MAX]; /* of the saved policies */
	struct policy_file saved;
	struct tuned_device *list;
	size_t n;
	char **cgroups; /* tuned since the start */
	size_t ncgroups;
};

static struct tuned_device *find(struct tuner *u, const char *name)
{
	for (size_t i = 0; i < u->n; i++)
		if (strcmp(u->list[i].name, name) == 0)
			return &u->list[i];
	return NULL;
}

static struct tuned_device *find_or_add(struct tuner *u, const char *name)
{
	struct tuned_device *d = find(u, name), *more;

	if (d || strlen(name) >= sizeof(d->name))
		return d;
	more = reallocarray(u->list, u->n + 1, sizeof(*more));
	if (!more)
		return NULL;
	u->list = more;
	d = &more[u->n++];
	*d = (struct tuned_device){.read_ahead_before = UINT64_MAX};
	strcpy(d->name, name);
	return d;
}

struct view *tuner_view(struct tuner *u)
{
	return u->view;
}

static struct tuning saved_of(struct tuner *u, bool is_cgroup, const char *subject)
{
	const struct tuning *t;
	struct tuning out = {0};

	pthread_mutex_lock(&u->lock);
	t = policy_file_find(&u->saved, is_cgroup, subject);
	if (t)
		out = *t;
	pthread_mutex_unlock(&u->lock);
	return out;
}

static int save(struct tuner *u, bool is_cgroup, const char *subject, const struct tuning *t,
		struct err *err)
{
	int rc;

	pthread_mutex_lock(&u->lock);
	rc = policy_file_put(&u->saved, is_cgroup, subject, t, err);
	if (!rc)
		rc = policy_file_save(u->path, &u->saved, err);
	pthread_mutex_unlock(&u->lock);
	return rc;
}

/* ---- readahead, which is the kernel's and needs no observer ---- */

static void note_read_ahead(struct tuner *u, const char *name, uint64_t before)
{
	struct tuned_device *d;

	pthread_mutex_lock(&u->lock);
	d = find_or_add(u, name);
	if (d && (d->read_ahead_before == UINT64_MAX || before == UINT64_MAX))
		d->read_ahead_before = before;
	pthread_mutex_unlock(&u->lock);
}

static uint64_t read_ahead_before(struct tuner *u, const char *name)
{
	struct tuned_device *d;
	uint64_t before;

	pthread_mutex_lock(&u->lock);
	d = find(u, name);
	before = d ? d->read_ahead_before : UINT64_MAX;
	pthread_mutex_unlock(&u->lock);
	return before;
}

static int tune_read_ahead(struct tuner *u, const char *name, const struct tuning *t,
			   struct err *err)
{
	bool resets = t->reset & READ_AHEAD_BIT;
	uint64_t before, now, kb = t->value[TUNE_READ_AHEAD_KB];
	int rc;

	if (!((t->have | t->reset) & READ_AHEAD_BIT))
		return 0;
	if (resets) {
		kb = read_ahead_before(u, name);
		if (kb == UINT64_MAX)
			return 0;
	}
	rc = privileged_read_ahead(u->supervisor_fd, name, UINT64_MAX, &before, err);
	if (!rc)
		rc = privileged_read_ahead(u->supervisor_fd, name, kb, &now, err);
	if (!rc && now != kb)
		rc = err_set(err, -EINVAL,
			     "read_ahead_kb=%llu: the kernel made %llu of it for this device",
			     (unsigned long long)kb, (unsigned long long)now);
	if (!rc)
		note_read_ahead(u, name, resets ? UINT64_MAX : before);
	return rc;
}

/* ---- devices ---- */

static bool tunes_observer(const struct tuning *t)
{
	return (t->have | t->reset) & ~READ_AHEAD_BIT;
}

static int observer_is_off(struct tuner *u, struct err *err)
{
	return err_set(err, -ENOTSUP, "only read_ahead_kb can be tuned; the observer is %s",
		       view_hooks(u->view, NULL));
}

static int not_watched(struct tuner *u, const struct tuner_device *d, struct err *err)
{
	uint32_t hooks;

	view_hooks(u->view, &hooks);
	if (!hooks)
		return observer_is_off(u, err);
	return err_set(err, -ENOTSUP,
		       "only read_ahead_kb can be tuned; the device of '%s' is not watched: %s",
		       d->export_name, strerror(-d->slot));
}

static int tune_slot(struct tuner *u, const struct tuner_device *d, const struct tuning *t,
		     struct err *err)
{
	struct policy p;
	bool set;
	int rc;

	if (!tunes_observer(t))
		return 0;
	rc = view_policy(u->view, d->slot, &p, &set);
	if (!rc) {
		p = tuning_policy(t, p);
		rc = view_policy_set(u->view, d->slot, &p);
	}
	return rc ? err_set(err, rc, "the policy of '%s' can't be set: %s", d->export_name,
			    strerror(-rc))
		  : 0;
}

int tuner_set(struct tuner *u, const struct tuner_device *d, const struct tuning *t, bool keep,
	      struct err *err)
{
	int rc = tunes_observer(t) && d->slot < 0 ? not_watched(u, d, err) : 0;

	if (!rc) /* which the kernel may refuse, so before the rest */
		rc = tune_read_ahead(u, d->export_name, t, err);
	if (!rc)
		rc = tune_slot(u, d, t, err);
	if (!rc && keep)
		rc = save(u, false, d->image, t, err);
	return rc;
}

void tuner_attached(struct tuner *u, const struct tuner_device *d)
{
	struct tuning t = saved_of(u, false, d->image);
	struct err err = {0};
	struct policy p;
	bool set = false;

	if (d->slot >= 0 && !view_policy(u->view, d->slot, &p, &set) && !set &&
	    tune_slot(u, d, &t, &err))
		log_warn("observe", "a saved policy is not in force", "why=\"%s\"", err.text);
	if (tune_read_ahead(u, d->export_name, &t, &err))
		log_warn("observe", "a saved read_ahead_kb is not in force", "export=%s why=\"%s\"",
			 d->export_name, err.text);
}

void tuner_detached(struct tuner *u, const char *export_name)
{
	struct tuned_device *d;

	pthread_mutex_lock(&u->lock);
	d = find(u, export_name);
	if (d)
		*d = u->list[--u->n];
	pthread_mutex_unlock(&u->lock);
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

static void tuned_read_ahead(struct tuner *u, const char *name, const struct tuning *saved,
			     struct tuned *out)
{
	uint64_t now;

	if (privileged_read_ahead(u->supervisor_fd, name, UINT64_MAX, &now, NULL))
		return;
	out->now.have |= READ_AHEAD_BIT;
	out->now.value[TUNE_READ_AHEAD_KB] = now;
	if (saved->have & READ_AHEAD_BIT && saved->value[TUNE_READ_AHEAD_KB] == now)
		out->from[TUNE_READ_AHEAD_KB] = TUNED_SAVED;
	else if (read_ahead_before(u, name) != UINT64_MAX)
		out->from[TUNE_READ_AHEAD_KB] = TUNED_SET;
}

int tuner_get(struct tuner *u, const struct tuner_device *d, struct tuned *out, struct err *err)
{
	struct tuning saved = saved_of(u, false, d->image);
	int rc;
	struct policy p = {0};
	bool set = false;

	*out = (struct tuned){0};
	if (d->slot >= 0) {
		rc = view_policy(u->view, d->slot, &p, &set);
		if (rc)
			return err_set(err, rc, "the policy of '%s' can't be read: %s",
				       d->export_name, strerror(-rc));
		tuned_from_policy(&p, set, &saved, out);
	}
	tuned_read_ahead(u, d->export_name, &saved, out);
	return 0;
}

/* ---- cgroups ---- */

static void note_cgroup(struct tuner *u, const char *path)
{
	char **more;

	pthread_mutex_lock(&u->lock);
	for (size_t i = 0; i < u->ncgroups; i++)
		if (strcmp(u->cgroups[i], path) == 0)
			goto out;
	more = reallocarray(u->cgroups, u->ncgroups + 1, sizeof(*more));
	if (!more)
		goto out;
	u->cgroups = more;
	more[u->ncgroups] = strdup(path);
	u->ncgroups += more[u->ncgroups] != NULL;
out:
	pthread_mutex_unlock(&u->lock);
}

static int cgroup_apply(struct tuner *u, const char *path, uint64_t id, const struct tuning *t,
			struct err *err)
{
	const struct policy none = {0};
	struct tuning now, defaults;
	struct policy p = {0};
	bool set;
	int rc = view_cgroup_policy(u->view, id, &p, &set);

	if (rc == -ENOTSUP)
		return observer_is_off(u, err);
	p = tuning_policy(t, p);
	p.cgroup = id;
	tuning_of_policy(&p, &now);
	tuning_of_policy(&none, &defaults);
	if (!t->have && memcmp(&now, &defaults, sizeof(now)) == 0) /* room for another */
		rc = view_cgroup_policy_unset(u->view, id);
	else
		rc = view_cgroup_policy_set(u->view, id, &p);
	if (rc == -ENOSPC)
		return err_set(err, rc, "policies of %d cgroups are in force already; reset some",
			       OBSERVE_CGROUPS);
	if (rc && rc != -ENOENT)
		return err_set(err, rc, "the policy of %s can't be set: %s", path, strerror(-rc));
	return 0;
}

int tuner_cgroup_set(struct tuner *u, const char *path, const struct tuning *t, bool keep,
		     struct err *err)
{
	uint64_t id;
	int rc = cgroup_find(MOUNTINFO, path, &id, err);

	if (!rc)
		rc = cgroup_apply(u, path, id, t, err);
	if (rc)
		return rc;
	note_cgroup(u, path);
	return keep ? save(u, true, path, t, err) : 0;
}

int tuner_cgroup_get(struct tuner *u, const char *path, struct tuned *out, struct err *err)
{
	struct tuning saved = saved_of(u, true, path);
	struct policy p = {0};
	uint64_t id;
	bool set = false;
	int rc = cgroup_find(MOUNTINFO, path, &id, err);

	*out = (struct tuned){0};
	if (rc)
		return rc;
	rc = view_cgroup_policy(u->view, id, &p, &set);
	if (rc == -ENOTSUP)
		return observer_is_off(u, err);
	tuned_from_policy(&p, set, &saved, out);
	out->now.have &= TUNE_CGROUP_KEYS;
	return 0;
}

static void cgroups_apply_saved(struct tuner *u)
{
	for (size_t i = 0; i < u->saved.n; i++) {
		const struct policy_entry *e = &u->saved.list[i];
		struct err err = {0};
		uint64_t id;
		int rc;

		if (!e->is_cgroup)
			continue;
		rc = cgroup_find(MOUNTINFO, e->subject, &id, &err);
		if (!rc)
			rc = cgroup_apply(u, e->subject, id, &e->tuning, &err);
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

size_t tuner_cgroups(struct tuner *u, char ***out)
{
	size_t n = 0;

	*out = NULL;
	pthread_mutex_lock(&u->lock);
	for (size_t i = 0; i < u->saved.n; i++)
		if (u->saved.list[i].is_cgroup)
			push(out, &n, u->saved.list[i].subject);
	for (size_t i = 0; i < u->ncgroups; i++)
		if (!policy_file_find(&u->saved, true, u->cgroups[i]))
			push(out, &n, u->cgroups[i]);
	pthread_mutex_unlock(&u->lock);
	return n;
}

/* ---- life ---- */

struct tuner *tuner_new(struct view *view, int supervisor_fd, const char *folder)
{
	struct tuner *u = calloc(1, sizeof(*u));
	struct err err = {0};

	if (!u)
		return NULL;
	pthread_mutex_init(&u->lock, NULL);
	u->view = view;
	u->supervisor_fd = supervisor_fd;
	snprintf(u->path, sizeof(u->path), "%s/" POLICY_FILE_NAME, folder);
	if (policy_file_load(u->path, &u->saved, &err))
		log_error("observe", "saved policies lost", "why=\"%s\"", err.text);
	cgroups_apply_saved(u);
	return u;
}

void tuner_free(struct tuner *u)
{
	if (!u)
		return;
	for (size_t i = 0; i < u->ncgroups; i++)
		free(u->cgroups[i]);
	free(u->cgroups);
	free(u->list);
	policy_file_free(&u->saved);
	pthread_mutex_destroy(&u->lock);
	free(u);
}
