/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/devices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "nbd/attach/kernel.h"
#include "nbd/attach/sysfs.h"

#define QUEUES_MAX	   8 /* as many as data threads by default */
#define HELPER_MIN_LIFE_NS (1 * NSEC_PER_SEC)

/* One a CPU, so that none waits for another's lock, but no more than data threads that answer; the
 * kernel keeps tags, memory and a thread for each. */
static uint32_t queues_default(const struct config *cfg)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	if (cfg->nbd_threads && (long)cfg->nbd_threads < n)
		n = (long)cfg->nbd_threads;
	return n < 1 ? 1 : n > QUEUES_MAX ? QUEUES_MAX : (uint32_t)n;
}

void devices_settings(struct devices *d, const struct config *cfg)
{
	d->env.runtime_dir = cfg->runtime_dir;
	d->env.nbd_socket = cfg->nbd_socket;
	d->env.store_path = cfg->store_path;
	d->env.deadline_s = (unsigned)((cfg->fill_deadline_ms + 999) / 1000);
	d->env.queues = queues_default(cfg);
}

int devices_open(struct devices *d, const struct config *cfg, struct err *err)
{
	devices_settings(d, cfg);
	return attach_kernel_new(&d->env.kernel, err);
}

void devices_close(struct devices *d)
{
	attach_kernel_free(d->env.kernel);
	d->env.kernel = NULL;
}

int devices_events_fd(const struct devices *d)
{
	return attach_kernel_events_fd(d->env.kernel);
}

void devices_events(struct devices *d)
{
	attach_kernel_events(d->env.kernel, d->list, d->n);
}

static struct attachment *find(struct devices *d, const char *name)
{
	for (size_t i = 0; i < d->n; i++)
		if (strcmp(d->list[i].name, name) == 0)
			return &d->list[i];
	return NULL;
}

/* By name, or by the device: a worker that could not reopen an export knows neither. */
static struct attachment *find_any(struct devices *d, const char *key)
{
	struct attachment *a = find(d, key);

	for (size_t i = 0; !a && i < d->n; i++)
		if (strcmp(d->list[i].device, key) == 0)
			a = &d->list[i];
	return a;
}

const struct attachment *devices_find(struct devices *d, const char *name)
{
	return find_any(d, name);
}

static void forget(struct devices *d, struct attachment *a)
{
	*a = d->list[--d->n];
}

static int revive(struct devices *d, struct attachment *a, struct err *err)
{
	int rc = a->way->revive(&d->env, a, err);

	if (rc)
		return rc;
	a->since_ns = clock_now_ns();
	log_info("attach", "the device reads again", "device=%s export=%s", a->device, a->name);
	return 0;
}

/* A dead attachment out of the way of a new one. */
static int clean(struct devices *d, struct attachment *a, struct err *err)
{
	int rc = a->way->detach(&d->env, a, false, err);

	if (rc)
		return err_prefix(err, "the device of '%s' is dead and can't be replaced", a->name);
	forget(d, a);
	return 0;
}

/* Only kernel devices can be chosen, so a wish for one is a wish for that way. */
static const char *way_wished(const struct device_wish *w)
{
	if (w->way[0] && strcmp(w->way, "auto") != 0)
		return w->way;
	return w->index >= 0 ? attach_kernel_nbd.name : "auto";
}

static int way_choose(const struct devices *d, const struct device_wish *w,
		      const struct attach_way **out, struct err *passed_over, struct err *err)
{
	const char *wished = way_wished(w);

	if (w->promotable && !w->queues && strcmp(wished, "auto") == 0 &&
	    !attach_nbdfuse.available(&d->env, NULL)) {
		*out = &attach_nbdfuse;
		return 0;
	}
	return attach_choose(&d->env, wished, out, passed_over, err);
}

static void identity_of(const struct device_wish *w, char out[ATTACH_IDENTITY_LEN])
{
	if (w->identity[0])
		snprintf(out, ATTACH_IDENTITY_LEN, "%s", w->identity);
	else
		snprintf(out, ATTACH_IDENTITY_LEN, "unsealed:%s", w->name);
}

static int attachment_fill(struct attachment *a, const struct attach_way *way,
			   const struct device_wish *w, struct err *err)
{
	*a = (struct attachment){.way = way,
				 .size = w->size,
				 .wished = w->index,
				 .queues = w->queues,
				 .wait = w->wait};
	if (w->index >= 0 && way != &attach_kernel_nbd)
		return err_set(err, -EINVAL, "a device can be chosen with the way nbd only, not %s",
			       way->name);
	if (strlen(w->name) >= sizeof(a->name) || strlen(w->identity) >= sizeof(a->identity))
		return err_set(err, -ENAMETOOLONG, "export name longer than %d bytes",
			       NBD_NAME_MAX);
	strcpy(a->name, w->name);
	identity_of(w, a->identity);
	return 0;
}

/* The kernel keeps pages of what it read: a device never changes under them. */
static int image_check(const struct attachment *a, const struct device_wish *w, struct err *err)
{
	char identity[ATTACH_IDENTITY_LEN];

	identity_of(w, identity);
	if (w->size == a->size && strcmp(identity, a->identity) == 0)
		return 0;
	return err_set(err, -ESTALE,
		       "%s shows another image than '%s' does now: detach it and attach again",
		       a->device, a->name);
}

int devices_add(struct devices *d, const struct attachment *a, struct err *err)
{
	struct attachment *more = realloc(d->list, (d->n + 1) * sizeof(*more));

	if (!more)
		return err_set(err, -ENOMEM, "out of memory");
	d->list = more;
	d->list[d->n++] = *a; /* since_ns 0: its helper has run for long */
	return 0;
}

static int attach_new(struct devices *d, const struct device_wish *w, struct attachment **out,
		      struct err *passed_over, struct err *err)
{
	const struct attach_way *way;
	struct attachment *a;
	int rc = way_choose(d, w, &way, passed_over, err);

	if (rc)
		return rc;
	a = realloc(d->list, (d->n + 1) * sizeof(*d->list));
	if (!a)
		return err_set(err, -ENOMEM, "out of memory");
	d->list = a;
	a += d->n;
	rc = attachment_fill(a, way, w, err);
	if (!rc)
		rc = way->attach(&d->env, a, err);
	if (rc && passed_over->code)
		err_prefix(err, "%.300s; %s", passed_over->text, way->name);
	if (rc)
		return rc;
	a->since_ns = clock_now_ns();
	d->n++;
	log_info("attach", "attached", "export=%s device=%s way=%s%s%s%s", w->name, a->device,
		 way->name, passed_over->code ? " instead=\"" : "", passed_over->text,
		 passed_over->code ? "\"" : "");
	*out = a;
	return 0;
}

uint32_t devices_missing(const struct attachment *a)
{
	uint32_t all = a->promoted.ino ? 0 : a->queues ? a->queues : 1;

	return a->nlinks < all ? all - a->nlinks : 0;
}

/* The one that stands, as it is now. */
static int attach_again(struct devices *d, struct attachment *a, const struct device_wish *w,
			struct err *err)
{
	int rc = image_check(a, w, err);

	if (rc)
		return rc;
	if (a->promoted.ino)
		return w->release ? revive(d, a, err) : 0;
	attach_kernel_look(d->env.kernel, a);
	if (!a->dead || a->fresh)
		return 0;
	if (w->revive && a->given_up)
		return err_set(err, -EIO, "its helper ended as soon as it had begun");
	return revive(d, a, err);
}

int devices_attach(struct devices *d, const struct device_wish *w, struct attachment **out,
		   struct err *passed_over, struct err *err)
{
	struct attachment *a = find(d, w->name);
	int rc;

	*passed_over = (struct err){0};
	if (!a && w->revive)
		return err_set(err, -ENOENT, "no device is attached to export '%s'", w->name);
	if (!a)
		return attach_new(d, w, out, passed_over, err);
	if (w->index >= 0 && (a->way != &attach_kernel_nbd || a->index != w->index))
		return err_set(err, -EBUSY, "export '%s' is attached as %s: detach it first",
			       w->name, a->device);
	rc = attach_again(d, a, w, err);
	if (!rc)
		*out = a;
	if (!rc || w->revive || rc == -ESTALE)
		return rc;
	rc = clean(d, a, err);
	return rc ? rc : attach_new(d, w, out, passed_over, err);
}

void devices_sent(struct devices *d, const char *name)
{
	struct attachment *a = find(d, name);

	if (a)
		a->fresh = 0;
}

int devices_detach(struct devices *d, const char *name, bool force, struct err *err)
{
	struct attachment *a = find_any(d, name);
	int rc;

	if (!a)
		return err_set(err, -ENOENT, "no device is attached to export '%s'", name);
	rc = a->way->detach(&d->env, a, force, err);
	if (rc == -EBUSY)
		return rc;
	if (rc)
		return err_prefix(err, "detaching %s", a->device);
	log_info("attach", "detached", "export=%s device=%s", a->name, a->device);
	forget(d, a);
	return 0;
}

void devices_worker_died(struct devices *d)
{
	for (size_t i = 0; i < d->n; i++) {
		d->list[i].fresh = d->list[i].nlinks;
		d->list[i].given_up = false;
	}
}

int devices_promote(struct devices *d, const char *name, int fd, struct err *err)
{
	struct attachment *a = find(d, name);
	int rc;

	if (!a)
		return err_set(err, -ENOENT, "no device is attached to export '%s'", name);
	if (a->promoted.ino)
		return 0;
	if (!a->way->promote)
		return err_set(err, -ENOTSUP,
			       "%s can't be promoted: the kernel changes nothing under a device of "
			       "its own NBD client",
			       a->device);
	rc = a->way->promote(&d->env, a, fd, err);
	if (!rc)
		log_info("attach", "promoted: the store's file is read without the worker",
			 "device=%s export=%s", a->device, a->name);
	return rc;
}

int devices_read_ahead(struct devices *d, const char *name, uint64_t kb, uint64_t *now,
		       struct err *err)
{
	const struct attachment *a = find(d, name);

	if (!a)
		return err_set(err, -ENOENT, "no device is attached to export '%s'", name);
	return device_read_ahead(a->device + strlen("/dev/"), kb, now, err);
}

void devices_child_died(struct devices *d, pid_t pid)
{
	for (size_t i = 0; i < d->n; i++) {
		if (d->list[i].pid != pid)
			continue;
		d->list[i].pid = 0;
		d->list[i].dead = true;
		/* one that dies at once would be started for ever */
		d->list[i].given_up = clock_now_ns() - d->list[i].since_ns < HELPER_MIN_LIFE_NS;
		log_warn("attach", "the helper of a device died", "device=%s export=%s pid=%d%s",
			 d->list[i].device, d->list[i].name, pid,
			 d->list[i].given_up ? " remedy=\"detach and attach again\"" : "");
	}
}

void devices_detach_all(struct devices *d)
{
	while (d->n) {
		struct attachment *a = &d->list[d->n - 1];
		struct err err = {0};

		if (a->way->detach(&d->env, a, false, &err)) {
			log_warn("attach",
				 "taking away a device in use: its reads fail from now on",
				 "device=%s export=%s why=\"%s\"", a->device, a->name, err.text);
			a->way->detach(&d->env, a, true, NULL);
		}
		d->n--;
	}
	free(d->list);
	d->list = NULL;
}
