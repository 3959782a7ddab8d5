/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <stdlib.h>
#include <errno.h>

#include "control/api_observe.h"
#include "control/reply.h"

/* Who is meant. */
struct subject {
	bool is_cgroup;
	const char *path; /* of a cgroup */
	struct export_info e;
	struct tuner_device device; /* points into @e */
};

static int subject_find(struct api *a, const char *key, struct subject *s, struct err *err)
{
	int rc;

	if (!key || !key[0])
		return err_set(err, -EINVAL, "?key= must name an image, a device or a cgroup");
	rc = exports_find(a->exports, key, &s->e, err);
	s->device = api_tuner_device(&s->e);
	s->is_cgroup = rc && key[0] == '/' && strncmp(key, "/dev/", 5) != 0;
	s->path = key;
	if (s->is_cgroup) {
		*err = (struct err){0};
		return 0;
	}
	if (!rc && !s->e.device[0])
		return err_set(err, -ENOENT, "'%s' is exported without a device: attach it first",
			       s->e.name);
	return rc;
}

static cJSON *tuned_json(const struct tuned *t)
{
	static const char *const from[] = {"default", "set", "saved"};
	cJSON *o = cJSON_CreateObject();

	for (int k = 0; k < TUNE_KEYS; k++) {
		cJSON *v;

		if (!(t->now.have >> k & 1))
			continue;
		v = cJSON_AddObjectToObject(o, tune_key_name((enum tune_key)k));
		cJSON_AddItemToObject(v, "value",
				      tune_value_json((enum tune_key)k, t->now.value[k]));
		cJSON_AddStringToObject(v, "from", from[t->from[k]]);
	}
	return o;
}

static cJSON *subject_json(struct api *a, const struct subject *s, struct err *err)
{
	struct tuned t;
	int rc = s->is_cgroup ? tuner_cgroup_get(a->tuner, s->path, &t, err)
			      : tuner_get(a->tuner, &s->device, &t, err);
	cJSON *o;

	if (rc)
		return NULL;
	o = cJSON_CreateObject();
	cJSON_AddStringToObject(o, "kind", s->is_cgroup ? "cgroup" : "image");
	cJSON_AddStringToObject(o, "name", s->is_cgroup ? s->path : s->e.name);
	if (!s->is_cgroup) {
		cJSON_AddStringToObject(o, "device", s->e.device);
		cJSON_AddStringToObject(o, "image", s->device.image);
	}
	cJSON_AddItemToObject(o, "keys", tuned_json(&t));
	return o;
}

static cJSON *cgroup_json(struct api *a, const char *path)
{
	struct subject s = {.is_cgroup = true, .path = path};
	struct err err = {0};
	cJSON *o = subject_json(a, &s, &err);

	if (o)
		return o;
	o = cJSON_CreateObject(); /* saved, and not there now */
	cJSON_AddStringToObject(o, "kind", "cgroup");
	cJSON_AddStringToObject(o, "name", path);
	cJSON_AddObjectToObject(o, "keys");
	cJSON_AddStringToObject(o, "error", err.text);
	return o;
}

static void add_cgroups(struct api *a, cJSON *list)
{
	char **paths;
	size_t n = tuner_cgroups(a->tuner, &paths);

	for (size_t i = 0; i < n; i++) {
		cJSON_AddItemToArray(list, cgroup_json(a, paths[i]));
		free(paths[i]);
	}
	free(paths);
}

static void add_devices(struct api *a, cJSON *list)
{
	struct export_info *e = NULL;
	size_t n = 0;

	exports_list(a->exports, &e, &n);
	for (size_t i = 0; i < n; i++) {
		struct subject s = {.e = e[i]};

		s.device = api_tuner_device(&s.e);
		if (e[i].device[0])
			cJSON_AddItemToArray(list, subject_json(a, &s, NULL));
	}
	free(e);
}

void tune_get(struct api *a, const char *key, struct api_reply *out)
{
	cJSON *o = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(o, "subjects"), *one;
	struct err err = {0};
	struct subject s;

	reply_add_hooks(o, a);
	if (!key) {
		add_devices(a, list);
		add_cgroups(a, list);
	} else {
		one = subject_find(a, key, &s, &err) ? NULL : subject_json(a, &s, &err);
		cJSON_AddItemToArray(list, one);
	}
	if (err.code) {
		cJSON_Delete(o);
		reply_err(out, &err);
	} else {
		reply_json(out, 200, o);
	}
}

static int patch_parse(const cJSON *json, bool is_cgroup, struct tuning *t, bool *save,
		       struct err *err)
{
	const cJSON *set = cJSON_GetObjectItemCaseSensitive(json, "set");
	const cJSON *keep = cJSON_GetObjectItemCaseSensitive(json, "save");

	if (!cJSON_IsObject(json) || !cJSON_IsObject(set) || (keep && !cJSON_IsBool(keep)))
		return err_set(err, -EINVAL,
			       "the body must be a JSON object with \"set\", an object of keys and "
			       "values, and perhaps \"save\", true or false");
	*save = cJSON_IsTrue(keep);
	return tune_parse_json(set, is_cgroup ? TUNE_CGROUP_KEYS : TUNE_DEVICE_KEYS, t, err);
}

void tune_patch(struct api *a, const char *key, const char *body, struct api_reply *out)
{
	cJSON *json = cJSON_Parse(body ? body : "");
	struct tuning t = {0};
	struct err err = {0};
	struct subject s;
	bool save = false;
	int rc = subject_find(a, key, &s, &err);

	if (!rc)
		rc = patch_parse(json, s.is_cgroup, &t, &save, &err);
	if (!rc)
		rc = s.is_cgroup ? tuner_cgroup_set(a->tuner, s.path, &t, save, &err)
				 : tuner_set(a->tuner, &s.device, &t, save, &err);
	cJSON_Delete(json);
	if (rc)
		reply_err(out, &err);
	else
		tune_get(a, key, out);
}
