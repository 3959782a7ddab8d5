/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define HELPER_MIN_LIFE_NS (1 * NSEC_PER_SEC)

static struct attachment *find(struct devices *d, const char *name)
{
	for (size_t i = 0; i < d->n; i++)
		if (strcmp(d->list[i].name, name) == 0)
			return &d->list[i];
	return NULL;
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

int devices_attach(struct devices *d, const char *name, const char *way_name,
		   const struct attachment **out, struct err *err)
{
	struct attachment *a = find(d, name), *more;
	const struct attach_way *way;
	int rc;

	if (a && (!a->dead || !revive(d, a, err))) {
		*out = a;
		return 0;
	}
	rc = a ? clean(d, a, err) : 0;
	if (!rc)
		rc = attach_choose(&d->env, way_name, &way, err);
	if (rc)
		return rc;
	more = realloc(d->list, (d->n + 1) * sizeof(*d->list));
	if (!more)
		return err_set(err, -ENOMEM, "out of memory");
	d->list = more;
	a = &more[d->n];
	*a = (struct attachment){.way = way};
	if (strlen(name) >= sizeof(a->name))
		return err_set(err, -ENAMETOOLONG, "export name longer than %d bytes",
			       NBD_NAME_MAX);
	strcpy(a->name, name);
	rc = way->attach(&d->env, a, err);
	if (rc)
		return rc;
	a->since_ns = clock_now_ns();
	d->n++;
	log_info("attach", "attached", "export=%s device=%s way=%s", name, a->device, way->name);
	*out = a;
	return 0;
}

int devices_detach(struct devices *d, const char *name, bool force, struct err *err)
{
	struct attachment *a = find(d, name);
	int rc;

	if (!a)
		return err_set(err, -ENOENT, "no device is attached to export '%s'", name);
	rc = a->way->detach(&d->env, a, force, err);
	if (rc == -EBUSY)
		return rc;
	if (rc)
		return err_prefix(err, "detaching %s", a->device);
	log_info("attach", "detached", "export=%s device=%s", name, a->device);
	forget(d, a);
	return 0;
}

void devices_worker_died(struct devices *d)
{
	for (size_t i = 0; i < d->n; i++) {
		d->list[i].dead = true;
		d->list[i].given_up = false;
	}
}

void devices_revive(struct devices *d)
{
	for (size_t i = 0; i < d->n; i++) {
		struct attachment *a = &d->list[i];
		struct err err = {0};

		if (!a->dead || a->given_up || !revive(d, a, &err))
			continue;
		a->given_up = true;
		log_error("attach", "the device is dead: detach it and attach again",
			  "device=%s export=%s why=\"%s\"", a->device, a->name, err.text);
	}
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
