/* SPDX-License-Identifier: Apache-2.0 */
/* What is kept of exports for the worker's successor, and what becomes of their reads. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "worker/exports_impl.h"

static bool waits(const struct exports *x, const char *on_deadline)
{
	return strcmp(on_deadline[0] ? on_deadline : x->cfg->on_deadline, "wait") == 0;
}

void exports_default_policy(struct exports *x, struct volume *v)
{
	atomic_store(&v->waits, waits(x, ""));
}

void exports_apply_policy(struct exports *x, struct volume *v, const struct roster_entry *e)
{
	snprintf(v->on_deadline, sizeof(v->on_deadline), "%s", e->on_deadline);
	atomic_store(&v->waits, waits(x, e->on_deadline));
	share_set_rate(v->share, e->limit);
	if (e->store)
		volume_set_store_limit(v, e->store);
	volume_set_keep(v, e->keep);
	exports_changed(v);
}

static int check_on_deadline(struct exports *x, const struct volume *v, const char *on_deadline,
			     struct err *err)
{
	if (on_deadline[0] && strcmp(on_deadline, "eio") != 0 && strcmp(on_deadline, "wait") != 0)
		return err_set(err, -EINVAL, "on_deadline is eio or wait, not %.40s", on_deadline);
	if (v->device[0] && waits(x, on_deadline) != atomic_load(&v->waits))
		return err_set(err, -EBUSY,
			       "%s is attached as %s with on_deadline = %s, and its kernel goes by "
			       "that: detach it first",
			       v->export.name, v->device, v->waits ? "wait" : "eio");
	return 0;
}

static int policy_check(struct exports *x, const struct volume *v, const struct export_policy *p,
			struct err *err)
{
	char least[24];

	if (p->limit && *p->limit && *p->limit < EXPORT_LIMIT_MIN)
		return err_set(err, -EINVAL,
			       "a limit is at least %s/s: less would be slower than the time that "
			       "a device gives a read",
			       bytes_format(EXPORT_LIMIT_MIN, least, sizeof(least)));
	if (p->store_limit && *p->store_limit && *p->store_limit < EXPORT_STORE_MIN)
		return err_set(err, -EINVAL,
			       "a limit of the store is at least %s: what is being read needs as "
			       "much",
			       bytes_format(EXPORT_STORE_MIN, least, sizeof(least)));
	return p->on_deadline ? check_on_deadline(x, v, p->on_deadline, err) : 0;
}

static void policy_take(struct exports *x, struct volume *v, const struct export_policy *p)
{
	if (p->on_deadline) {
		snprintf(v->on_deadline, sizeof(v->on_deadline), "%s", p->on_deadline);
		atomic_store(&v->waits, waits(x, p->on_deadline));
	}
	if (p->limit && *p->limit != share_rate(v->share)) {
		share_set_rate(v->share, *p->limit);
		log_info("worker", "limit of an export", "name=%s bytes_a_second=%" PRIu64,
			 v->export.name, *p->limit);
	}
	if (p->keep)
		volume_set_keep(v, *p->keep);
	if (p->store_limit)
		volume_set_store_limit(v, *p->store_limit);
	if (p->keep || p->store_limit)
		log_info("worker", "what an export has of the store",
			 "name=%s most_bytes=%" PRIu64 " keep=%d", v->export.name, v->store_limit,
			 v->keeps);
}

int exports_set_policy(struct exports *x, const char *key, const struct export_policy *policy,
		       struct export_info *out, struct err *err)
{
	struct volume *v;
	int rc;

	pthread_mutex_lock(&x->lock);
	v = exports_lookup(x, key);
	rc = v ? policy_check(x, v, policy, err)
	       : err_set(err, -ENOENT,
			 "no export has the name, URL or device %s: see `cairn status`", key);
	if (!rc) {
		policy_take(x, v, policy);
		exports_changed(v);
		exports_save(x);
		exports_tell(v, out);
	}
	pthread_mutex_unlock(&x->lock);
	return rc;
}
