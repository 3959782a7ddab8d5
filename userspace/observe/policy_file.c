/* SPDX-License-Identifier: Apache-2.0 */
#include "observe/policy_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"

#define FORMAT	"cairn-policy"
#define VERSION 1

static const char *const sections[2] = {"images", "cgroups"};

static struct policy_entry *find(const struct policy_file *f, bool is_cgroup, const char *subject)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->list[i].is_cgroup == is_cgroup && strcmp(f->list[i].subject, subject) == 0)
			return &f->list[i];
	return NULL;
}

const struct tuning *policy_file_find(const struct policy_file *f, bool is_cgroup,
				      const char *subject)
{
	const struct policy_entry *e = find(f, is_cgroup, subject);

	return e ? &e->tuning : NULL;
}

static struct policy_entry *add(struct policy_file *f, bool is_cgroup, const char *subject)
{
	struct policy_entry *more;

	more = reallocarray(f->list, f->n + 1, sizeof(*more));
	if (!more)
		return NULL;
	f->list = more;
	more[f->n] = (struct policy_entry){.is_cgroup = is_cgroup, .subject = strdup(subject)};
	return more[f->n].subject ? &more[f->n++] : NULL;
}

int policy_file_put(struct policy_file *f, bool is_cgroup, const char *subject,
		    const struct tuning *change, struct err *err)
{
	struct policy_entry *e = find(f, is_cgroup, subject);

	if (!e && !change->have)
		return 0;
	if (!e && f->n >= POLICY_FILE_ENTRIES)
		return err_set(err, -ENOSPC, "%d policies are saved already; reset some to default",
			       POLICY_FILE_ENTRIES);
	if (!e && !(e = add(f, is_cgroup, subject)))
		return err_set(err, -ENOMEM, "out of memory");
	tuning_merge(&e->tuning, change);
	e->tuning.reset = 0;
	if (!e->tuning.have) {
		free(e->subject);
		*e = f->list[--f->n];
	}
	return 0;
}

void policy_file_free(struct policy_file *f)
{
	for (size_t i = 0; i < f->n; i++)
		free(f->list[i].subject);
	free(f->list);
	*f = (struct policy_file){0};
}

/* ---- reading ---- */

static int section_read(const cJSON *section, bool is_cgroup, struct policy_file *f,
			struct err *err)
{
	const cJSON *m;

	if (!cJSON_IsObject(section))
		return err_set(err, -EINVAL, "\"%s\" is no object", sections[is_cgroup]);
	cJSON_ArrayForEach (m, section) {
		struct tuning t = {0};
		int rc = tune_parse_json(m, is_cgroup ? TUNE_CGROUP_KEYS : TUNE_DEVICE_KEYS, &t,
					 err);

		if (!rc)
			rc = policy_file_put(f, is_cgroup, m->string, &t, err);
		if (rc)
			return rc;
	}
	return 0;
}

static int text_read(const char *text, size_t len, struct policy_file *f, struct err *err)
{
	cJSON *json = cJSON_ParseWithLength(text, len);
	const char *format = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "format"));
	const cJSON *version = cJSON_GetObjectItemCaseSensitive(json, "version");
	int rc = 0;

	if (!format || strcmp(format, FORMAT) != 0 || !cJSON_IsNumber(version))
		rc = err_set(err, -EINVAL, "it is no file of policies");
	else if (version->valuedouble != VERSION)
		rc = err_set(err, -EINVAL, "it is of version %g, and this cairnd reads %d",
			     version->valuedouble, VERSION);
	for (int i = 0; !rc && i < 2; i++)
		rc = section_read(cJSON_GetObjectItemCaseSensitive(json, sections[i]), i, f, err);
	cJSON_Delete(json);
	return rc;
}

int policy_file_load(const char *path, struct policy_file *out, struct err *err)
{
	char aside[PATH_MAX], *text;
	struct policy_file f = {0};
	size_t len;
	int rc = file_read_all(path, POLICY_FILE_LIMIT, &text, &len);

	*out = f;
	if (rc == -ENOENT)
		return 0;
	if (rc && rc != -EFBIG)
		return err_set(err, rc, "can't read %s: %s", path, strerror(-rc));
	if (rc) {
		err_set(err, -EINVAL, "it is larger than 4 MiB");
	} else {
		rc = text_read(text, len, &f, err);
		free(text);
	}
	if (!rc) {
		*out = f;
		return 0;
	}
	policy_file_free(&f);
	snprintf(aside, sizeof(aside), "%s.damaged", path);
	if (rename(path, aside))
		snprintf(aside, sizeof(aside), "nowhere (%s)", strerror(errno));
	err_prefix(err, "the saved policies in %s are ignored and the file moved to %s", path,
		   aside);
	err->code = -EINVAL;
	return -EINVAL;
}

/* ---- writing ---- */

static cJSON *tuning_json(const struct tuning *t)
{
	cJSON *o = cJSON_CreateObject();

	for (int k = 0; k < TUNE_KEYS; k++)
		if (t->have >> k & 1)
			cJSON_AddItemToObject(o, tune_key_name((enum tune_key)k),
					      tune_value_json((enum tune_key)k, t->value[k]));
	return o;
}

static char *file_text(const struct policy_file *f)
{
	cJSON *o = cJSON_CreateObject(), *s[2];
	char *text;

	cJSON_AddStringToObject(o, "format", FORMAT);
	cJSON_AddNumberToObject(o, "version", VERSION);
	for (int i = 0; i < 2; i++)
		s[i] = cJSON_AddObjectToObject(o, sections[i]);
	for (size_t i = 0; i < f->n; i++)
		cJSON_AddItemToObject(s[f->list[i].is_cgroup], f->list[i].subject,
				      tuning_json(&f->list[i].tuning));
	text = cJSON_Print(o);
	cJSON_Delete(o);
	return text;
}

static int file_replace(const char *path, const char *text)
{
	char tmp[PATH_MAX];
	int fd, rc;

	snprintf(tmp, sizeof(tmp), "%s.new", path);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	rc = pwrite_all(fd, text, strlen(text), 0);
	/* Without this a power cut may leave the new name with no bytes behind it. */
	if (!rc && fdatasync(fd))
		rc = -errno;
	close(fd);
	if (!rc && rename(tmp, path))
		rc = -errno;
	if (rc)
		unlink(tmp);
	return rc;
}

int policy_file_save(const char *path, const struct policy_file *f, struct err *err)
{
	char *text = file_text(f);
	int rc = text ? file_replace(path, text) : -ENOMEM;

	free(text);
	if (rc)
		return err_set(err, rc, "the policy is in force but can't be saved to %s: %s", path,
			       strerror(-rc));
	return 0;
}
