/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/roster.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define ROSTER_MAGIC 0x54534f5243524e43ULL /* "CNRCROST" */

/* As text: a JSON number is exact up to 2^53 only. */
static bool length_put(cJSON *o, uint64_t length)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, length);
	return cJSON_AddStringToObject(o, "length", text);
}

char *roster_text(const struct roster_entry *e)
{
	cJSON *o = cJSON_CreateObject();
	char *json = NULL;

	if (cJSON_AddStringToObject(o, "url", e->url) &&
	    cJSON_AddStringToObject(o, "name", e->name) &&
	    cJSON_AddStringToObject(o, "device", e->device) &&
	    cJSON_AddStringToObject(o, "way", e->way) &&
	    cJSON_AddStringToObject(o, "on_deadline", e->on_deadline) &&
	    cJSON_AddNumberToObject(o, "limit", (double)e->limit) &&
	    cJSON_AddNumberToObject(o, "store", (double)e->store) &&
	    cJSON_AddBoolToObject(o, "keep", e->keep) &&
	    cJSON_AddStringToObject(o, "promote", e->promote) &&
	    cJSON_AddBoolToObject(o, "promoted", e->promoted) &&
	    cJSON_AddBoolToObject(o, "fetch", e->fetch) &&
	    cJSON_AddStringToObject(o, "digest", e->digest) &&
	    cJSON_AddStringToObject(o, "etag", e->etag) && length_put(o, e->length))
		json = cJSON_PrintUnformatted(o);
	cJSON_Delete(o);
	return json;
}

/* "[a,b,c]" */
static char *join(const char *const *texts, size_t n, size_t *len)
{
	size_t size = 2, at = 0;
	char *all;

	for (size_t i = 0; i < n; i++)
		size += strlen(texts[i]) + 1;
	all = malloc(size);
	if (!all)
		return NULL;
	all[at++] = '[';
	for (size_t i = 0; i < n; i++) {
		size_t one = strlen(texts[i]);

		if (i)
			all[at++] = ',';
		memcpy(all + at, texts[i], one);
		at += one;
	}
	all[at++] = ']';
	*len = at;
	return all;
}

int roster_save(int fd, struct slots_last *last, const char *const *texts, size_t n)
{
	size_t len;
	char *all = join(texts, n, &len);
	int rc = all ? slots_save(fd, ROSTER_MAGIC, last, all, len) : -ENOMEM;

	free(all);
	return rc;
}

/* What may be missing: "" then. */
static bool text_take_if(const cJSON *o, const char *key, char *out, size_t room)
{
	out[0] = 0;
	return !cJSON_HasObjectItem(o, key) || json_text_take(o, key, out, room);
}

/* What may be missing: 0 then. */
static uint64_t number_take_if(const cJSON *o, const char *key)
{
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(o, key);

	return cJSON_IsNumber(n) && n->valuedouble > 0 ? (uint64_t)n->valuedouble : 0;
}

static bool entry_take(const cJSON *o, struct roster_entry *e)
{
	char length[24];

	if (!text_take_if(o, "length", length, sizeof(length)) ||
	    !text_take_if(o, "on_deadline", e->on_deadline, sizeof(e->on_deadline)) ||
	    !text_take_if(o, "promote", e->promote, sizeof(e->promote)))
		return false;
	e->length = strtoull(length, NULL, 10);
	e->limit = number_take_if(o, "limit");
	e->store = number_take_if(o, "store");
	e->keep = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o, "keep"));
	e->promoted = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o, "promoted"));
	e->fetch = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o, "fetch"));
	return json_text_take(o, "url", e->url, sizeof(e->url)) &&
	       json_text_take(o, "name", e->name, sizeof(e->name)) &&
	       json_text_take(o, "device", e->device, sizeof(e->device)) &&
	       json_text_take(o, "way", e->way, sizeof(e->way)) &&
	       text_take_if(o, "digest", e->digest, sizeof(e->digest)) &&
	       text_take_if(o, "etag", e->etag, sizeof(e->etag));
}

static int roster_parse(const char *json, struct roster_entry **out, size_t *n)
{
	cJSON *list = cJSON_Parse(json), *o;
	struct roster_entry *e = NULL;
	size_t i = 0, count = (size_t)cJSON_GetArraySize(list);
	int rc = -EBADMSG;

	if (!cJSON_IsArray(list))
		goto out;
	rc = -ENOMEM;
	e = count ? calloc(count, sizeof(*e)) : NULL;
	if (count && !e)
		goto out;
	rc = -EBADMSG;
	cJSON_ArrayForEach (o, list)
		if (!entry_take(o, &e[i++]))
			goto out;
	rc = 0;
	*out = e;
	*n = count;
	e = NULL;
out:
	free(e);
	cJSON_Delete(list);
	return rc;
}

int roster_load(int fd, struct roster_entry **out, size_t *n, struct err *err)
{
	uint64_t sequence;
	size_t len;
	char *json;
	int rc = slots_load(fd, ROSTER_MAGIC, &json, &len, &sequence);

	if (rc == -EBADMSG)
		return err_set(err, rc, "the roster of exports is damaged; attach them again");
	if (rc)
		return err_set(err, rc, "the roster of exports: %s", strerror(-rc));
	if (!json) {
		*out = NULL;
		*n = 0;
		return 0;
	}
	rc = roster_parse(json, out, n);
	free(json);
	if (rc)
		return err_set(err, rc, "the roster of exports (write %llu): %s",
			       (unsigned long long)sequence, strerror(-rc));
	return 0;
}
