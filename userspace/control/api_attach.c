/* SPDX-License-Identifier: Apache-2.0 */
#include "control/api_attach.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "control/api_exports.h"
#include "control/api_observe.h"
#include "control/api_status.h"
#include "control/reply.h"
#include "nbd/attach/kernel_device.h"
#include "worker/adopt.h"
#include "worker/privileged.h"
#include "worker/promote.h"

/* of 20 ms: until the closed connections of a helper are seen as closed */
#define REMOVE_TRIES  100
#define RELEASE_TRIES 25 /* of 20 ms */

struct add_request {
	const char *url, *name, *attach;
	const char *on_deadline, *promote; /* NULL: not said */
	bool refresh;
	int index;	 /* of the device wished, -1 = any */
	uint32_t queues; /* 0 = as many as fit */
};

/* "device" and "queues", where there. */
static int add_parse_device(const cJSON *json, struct add_request *q, struct err *err)
{
	const cJSON *device = cJSON_GetObjectItemCaseSensitive(json, "device");
	const cJSON *queues = cJSON_GetObjectItemCaseSensitive(json, "queues");

	q->index = -1;
	q->queues = 0;
	if (device) {
		q->index = cJSON_IsString(device) ? kernel_device_index(device->valuestring) : -1;
		if (q->index < 0)
			return err_set(err, -EINVAL,
				       "device %.60s: a kernel NBD device is called /dev/nbd0, "
				       "/dev/nbd1, ..",
				       cJSON_IsString(device) ? device->valuestring : "?");
	}
	if (queues &&
	    (!cJSON_IsNumber(queues) || queues->valuedouble < 1 ||
	     queues->valuedouble > SUPERVISOR_LINKS_MAX || queues->valuedouble != queues->valueint))
		return err_set(err, -EINVAL, "queues must be a number from 1 to %d",
			       SUPERVISOR_LINKS_MAX);
	if (queues)
		q->queues = (uint32_t)queues->valueint;
	return 0;
}

/* Strings stay @json's. */
static int add_parse(const cJSON *json, struct add_request *q, struct err *err)
{
	const cJSON *name = cJSON_GetObjectItemCaseSensitive(json, "name");
	const cJSON *attach = cJSON_GetObjectItemCaseSensitive(json, "attach");
	const cJSON *refresh = cJSON_GetObjectItemCaseSensitive(json, "refresh");
	const cJSON *on_deadline = cJSON_GetObjectItemCaseSensitive(json, "on_deadline");
	const cJSON *promote = cJSON_GetObjectItemCaseSensitive(json, "promote");

	if (!cJSON_IsObject(json))
		return err_set(err, -EINVAL, "the body must be a JSON object with \"url\"");
	q->url = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "url"));
	if (!q->url || !q->url[0])
		return err_set(err, -EINVAL, "\"url\" must be the URL of an image");
	if ((name && !cJSON_IsString(name)) || (attach && !cJSON_IsString(attach)) ||
	    (refresh && !cJSON_IsBool(refresh)) || (on_deadline && !cJSON_IsString(on_deadline)) ||
	    (promote && !cJSON_IsString(promote)))
		return err_set(err, -EINVAL,
			       "\"name\", \"attach\", \"on_deadline\" and \"promote\" must be "
			       "text, \"refresh\" true or false");
	q->name = name ? name->valuestring : "";
	q->attach = attach ? attach->valuestring : "none";
	q->refresh = cJSON_IsTrue(refresh);
	q->on_deadline = on_deadline ? on_deadline->valuestring : NULL;
	q->promote = promote ? promote->valuestring : NULL;
	if (strlen(q->name) > NBD_NAME_MAX)
		return err_set(err, -ENAMETOOLONG, "\"name\" is longer than %d bytes",
			       NBD_NAME_MAX);
	return add_parse_device(json, q, err);
}

/* Connections that a detached device's helper held take a moment to be seen as closed. */
static int remove_patiently(struct api *a, const char *name, bool force, struct err *err)
{
	int rc = exports_remove(a->exports, name, force, err);

	for (int i = 0; rc == -EBUSY && i < REMOVE_TRIES; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 20 * 1000000}, NULL);
		rc = exports_remove(a->exports, name, force, err);
	}
	return rc;
}

/* The device stands: its connections, if it has any of its own, and who it is. */
static int attach_take(struct api *a, const struct privileged_device *d, struct export_info *e,
		       struct err *err)
{
	struct tuner_device t;
	int rc = exports_adopt(a->exports, e->name, &d->links);

	if (!rc)
		rc = exports_set_device(a->exports, e->name, d->device, d->way_used);
	if (rc) {
		privileged_detach(a->supervisor_fd, e->name, true, NULL);
		return err_set(err, rc, "export '%s' was removed meanwhile", e->name);
	}
	snprintf(e->device, sizeof(e->device), "%s", d->device);
	snprintf(e->way, sizeof(e->way), "%s", d->way_used);
	exports_find(a->exports, e->name, e, NULL); /* its slot, too */
	t = api_tuner_device(e);
	tuner_attached(a->tuner, &t);
	return 0;
}

/* The device is promoted at once. */
static bool may_promote(const struct add_request *q, const struct export_info *e)
{
	return q->promote && strcmp(q->promote, "auto") == 0 && strcmp(q->attach, "auto") == 0 &&
	       e->verified && e->complete;
}

/* @note: why the first way was passed over, or "". */
static int attach(struct api *a, const struct add_request *q, struct export_info *e,
		  char note[SUPERVISOR_TEXT_LEN], struct err *err)
{
	struct privileged_device d = {.name = e->name,
				      .way = q->attach,
				      .identity = e->digest,
				      .len = export_device_len(e),
				      .queues = q->queues,
				      .index = q->index,
				      .wait = e->waits,
				      .promotable = may_promote(q, e),
				      .serve = exports_adopt_early,
				      .arg = a->exports};
	int rc;

	if (a->supervisor_fd < 0)
		return err_set(err, -ENOTSUP,
			       "this daemon runs without a supervisor and cannot attach");
	rc = privileged_attach(a->supervisor_fd, &d, err);
	if (rc)
		return rc;
	memcpy(note, d.passed_over, SUPERVISOR_TEXT_LEN);
	return attach_take(a, &d, e, err);
}

/* What stands already is what was asked for? */
static int device_check(const struct add_request *q, const struct export_info *e, struct err *err)
{
	if (q->index < 0 || kernel_device_index(e->device) == q->index)
		return 0;
	return err_set(err, -EBUSY, "%s is attached as %s: detach it first", e->name, e->device);
}

static int policy_set(struct api *a, const struct add_request *q, bool fresh, struct export_info *e,
		      struct err *err)
{
	const struct export_policy policy = {.on_deadline = q->on_deadline};
	char name[NBD_NAME_MAX + 1];
	int rc;

	strcpy(name, e->name);
	rc = exports_set_policy(a->exports, name, &policy, e, err);
	if (rc && fresh) /* as if it had not been asked for */
		remove_patiently(a, name, true, NULL);
	return rc;
}

static int promote_set(struct api *a, const struct add_request *q, bool fresh, bool attached,
		       struct export_info *e, struct err *err)
{
	char name[NBD_NAME_MAX + 1];
	int rc;

	strcpy(name, e->name);
	rc = exports_set_promote(a->exports, name, q->promote, attached, e, err);
	if (rc && fresh && !attached)
		remove_patiently(a, name, true, NULL);
	return rc;
}

void export_post(struct api *a, const char *body, struct api_reply *out)
{
	cJSON *json = cJSON_Parse(body ? body : ""), *o;
	struct export_info e, before;
	struct add_request q = {0};
	struct err err = {0};
	char note[SUPERVISOR_TEXT_LEN] = "";
	bool fresh = false, attached = false;
	int rc = add_parse(json, &q, &err);

	if (rc)
		goto out;
	fresh = exports_find(a->exports, q.name[0] ? q.name : q.url, &before, NULL) != 0;
	rc = exports_add(a->exports, q.url, q.name, q.refresh, &e, &err);
	if (!rc && q.on_deadline)
		rc = policy_set(a, &q, fresh, &e, &err);
	if (rc)
		goto out;
	if (strcmp(q.attach, "none") != 0 && !e.device[0]) {
		exports_expect_mount(a->exports, e.name);
		rc = attach(a, &q, &e, note, &err);
		if (rc && fresh) /* as if it had not been asked for */
			remove_patiently(a, e.name, true, NULL);
		attached = !rc;
	} else if (e.device[0]) {
		rc = device_check(&q, &e, &err);
	}
	if (!rc && q.promote)
		rc = promote_set(a, &q, fresh, attached, &e, &err);
	if (rc)
		goto out;
	o = export_json(a, &e);
	cJSON_AddBoolToObject(o, "newly_attached", attached);
	cJSON_AddStringToObject(o, "passed_over", note);
	reply_json(out, fresh ? 201 : 200, o);
out:
	if (rc)
		reply_err(out, &err);
	cJSON_Delete(json);
}

/* A device that stands on an export which this worker could not reopen. False: there is none. */
static bool orphan_delete(struct api *a, const char *key, bool force, struct api_reply *out)
{
	struct err err = {0};
	bool forgotten;
	int rc = a->supervisor_fd < 0 ? -ENOENT
				      : privileged_detach(a->supervisor_fd, key, force, &err);

	forgotten = (!rc || rc == -ENOENT) && exports_forget(a->exports, key);
	if (!forgotten && (rc == -ENOENT || rc == -ENAMETOOLONG))
		return false;
	if (rc && !forgotten)
		reply_err(out, &err);
	else
		reply_json(out, 200, cJSON_CreateObject());
	return true;
}

/* A mount that ended a moment ago lets go of its file a little later. */
static int promotion_end_patiently(struct api *a, const char *name, bool force, struct err *err)
{
	int rc = exports_promotion_end(a->exports, name, force, err);

	for (int i = 0; rc == -EBUSY && i < RELEASE_TRIES; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 20 * 1000000}, NULL);
		rc = exports_promotion_end(a->exports, name, force, err);
	}
	return rc;
}

void export_delete(struct api *a, const char *key, bool force, struct api_reply *out)
{
	struct export_info e;
	struct err err = {0};
	int rc = exports_find(a->exports, key, &e, &err);
	bool had_device = !rc && e.device[0];

	if (rc == -ENOENT && orphan_delete(a, key, force, out))
		return;
	if (had_device && a->supervisor_fd >= 0) {
		rc = privileged_detach(a->supervisor_fd, e.name, force, &err);
		if (rc == -ENOENT) /* the supervisor lost it: nothing stands on the export */
			rc = 0;
		if (!rc) {
			tuner_detached(a->tuner, e.name);
			exports_set_device(a->exports, e.name, "", "");
		}
	}
	if (!rc && e.file[0])
		rc = promotion_end_patiently(a, e.name, force, &err);
	if (!rc) {
		exports_find(a->exports, e.name, &e, NULL); /* the counts as they are now */
		rc = had_device ? remove_patiently(a, e.name, force, &err)
				: exports_remove(a->exports, e.name, force, &err);
	}
	if (rc) {
		reply_err(out, &err);
		return;
	}
	api_totals_retire(a, &e);
	reply_json(out, 200, export_json(a, &e));
}
