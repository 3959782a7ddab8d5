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

void exports_apply_policy(struct exports *x, struct volume *v, const char *on_deadline,
			  uint64_t limit)
{
	snprintf(v->on_deadline, sizeof(v->on_deadline), "%s", on_deadline);
	atomic_store(&v->waits, waits(x, on_deadline));
	share_set_rate(v->share, limit);
}

static int policy_check(struct exports *x, const struct volume *v, const char *on_deadline,
			const uint64_t *limit, struct err *err)
{
	char least[24];

	if (on_deadline && on_deadline[0] && strcmp(on_deadline, "eio") != 0 &&
	    strcmp(on_deadline, "wait") != 0)
		return err_set(err, -EINVAL, "on_deadline is eio or wait, not %.40s", on_deadline);
	if (limit && *limit && *limit < EXPORT_LIMIT_MIN)
		return err_set(err, -EINVAL,
			       "a limit is at least %s/s: less would be slower than the time that "
			       "a device gives a read",
			       bytes_format(EXPORT_LIMIT_MIN, least, sizeof(least)));
	if (on_deadline && v->device[0] && waits(x, on_deadline) != atomic_load(&v->waits))
		return err_set(err, -EBUSY,
			       "%s is attached as %s with on_deadline = %s, and its kernel goes by "
			       "that: detach it first",
			       v->export.name, v->device, v->waits ? "wait" : "eio");
	return 0;
}

int exports_set_policy(struct exports *x, const char *key, const char *on_deadline,
		       const uint64_t *limit, struct export_info *out, struct err *err)
{
	struct volume *v;
	int rc;

	pthread_mutex_lock(&x->lock);
	v = exports_lookup(x, key);
	rc = v ? policy_check(x, v, on_deadline, limit, err)
	       : err_set(err, -ENOENT,
			 "no export has the name, URL or device %s: see `cairn status`", key);
	if (!rc && on_deadline) {
		snprintf(v->on_deadline, sizeof(v->on_deadline), "%s", on_deadline);
		atomic_store(&v->waits, waits(x, on_deadline));
	}
	if (!rc && limit && *limit != share_rate(v->share)) {
		share_set_rate(v->share, *limit);
		log_info("worker", "limit of an export", "name=%s bytes_a_second=%" PRIu64,
			 v->export.name, *limit);
	}
	if (!rc) {
		exports_save(x);
		exports_tell(v, out);
	}
	pthread_mutex_unlock(&x->lock);
	return rc;
}
