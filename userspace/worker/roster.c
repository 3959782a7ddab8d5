/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/roster.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"

#define ROSTER_MAGIC   0x54534f5243524e43ULL /* "CNRCROST" */
#define ROSTER_VERSION 1u
#define ROSTER_SLOT    (64 * MIB) /* the memfd is sparse: room costs nothing */

struct roster_header {
	uint64_t magic;
	uint32_t version, reserved;
	uint64_t sequence, len;
	uint8_t sum[SHA256_LEN]; /* of the JSON with this header's sequence and len before it */
};

static void roster_sum(const struct roster_header *h, const char *json, uint8_t sum[SHA256_LEN])
{
	uint64_t frame[2] = {h->sequence, h->len};
	uint8_t both[SHA256_LEN + sizeof(frame)];

	sha256(json, h->len, both);
	memcpy(both + SHA256_LEN, frame, sizeof(frame));
	sha256(both, sizeof(both), sum);
}

/* The slot's JSON in fresh memory with a NUL after it, or NULL. */
static char *slot_read(int fd, unsigned slot, struct roster_header *h)
{
	uint8_t sum[SHA256_LEN];
	char *json;

	if (pread_all(fd, h, sizeof(*h), slot * ROSTER_SLOT) || h->magic != ROSTER_MAGIC ||
	    h->version != ROSTER_VERSION || h->len > ROSTER_SLOT - sizeof(*h))
		return NULL;
	json = malloc(h->len + 1);
	if (!json)
		return NULL;
	if (pread_all(fd, json, h->len, slot * ROSTER_SLOT + sizeof(*h))) {
		free(json);
		return NULL;
	}
	json[h->len] = 0;
	roster_sum(h, json, sum);
	if (memcmp(sum, h->sum, sizeof(sum)) != 0) {
		free(json);
		return NULL;
	}
	return json;
}

/* The newest valid JSON (NULL = none), its sequence and its slot. */
static char *roster_newest(int fd, uint64_t *sequence, unsigned *slot)
{
	struct roster_header h;
	char *best = NULL;

	*sequence = 0;
	*slot = 1;
	for (unsigned i = 0; i < 2; i++) {
		char *json = slot_read(fd, i, &h);

		if (!json || (best && h.sequence < *sequence)) {
			free(json);
			continue;
		}
		free(best);
		best = json;
		*sequence = h.sequence;
		*slot = i;
	}
	return best;
}

static char *roster_print(const struct roster_entry *e, size_t n)
{
	cJSON *list = cJSON_CreateArray();
	char *json = NULL;

	for (size_t i = 0; i < n; i++) {
		cJSON *o = cJSON_CreateObject();

		if (!cJSON_AddItemToArray(list, o) ||
		    !cJSON_AddStringToObject(o, "url", e[i].url) ||
		    !cJSON_AddStringToObject(o, "name", e[i].name) ||
		    !cJSON_AddStringToObject(o, "device", e[i].device) ||
		    !cJSON_AddStringToObject(o, "way", e[i].way))
			goto out;
	}
	json = cJSON_PrintUnformatted(list);
out:
	cJSON_Delete(list);
	return json;
}

int roster_save(int fd, const struct roster_entry *e, size_t n)
{
	struct roster_header h = {.magic = ROSTER_MAGIC, .version = ROSTER_VERSION};
	char *json = roster_print(e, n);
	unsigned slot;
	int rc;

	if (!json)
		return -ENOMEM;
	h.len = strlen(json);
	if (h.len > ROSTER_SLOT - sizeof(h)) {
		free(json);
		return -EFBIG;
	}
	free(roster_newest(fd, &h.sequence, &slot));
	h.sequence++;
	slot = !slot;
	roster_sum(&h, json, h.sum);
	rc = pwrite_all(fd, json, h.len, slot * ROSTER_SLOT + sizeof(h));
	if (!rc)
		rc = pwrite_all(fd, &h, sizeof(h), slot * ROSTER_SLOT);
	free(json);
	return rc;
}

static bool string_take(const cJSON *o, const char *key, char *out, size_t room)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));

	if (!s || strlen(s) >= room)
		return false;
	strcpy(out, s);
	return true;
}

static bool entry_take(const cJSON *o, struct roster_entry *e)
{
	return string_take(o, "url", e->url, sizeof(e->url)) &&
	       string_take(o, "name", e->name, sizeof(e->name)) &&
	       string_take(o, "device", e->device, sizeof(e->device)) &&
	       string_take(o, "way", e->way, sizeof(e->way));
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
	struct stat st;
	uint64_t sequence;
	unsigned slot;
	char *json;
	int rc;

	if (fstat(fd, &st))
		return err_set(err, -errno, "the roster of exports: %s", strerror(errno));
	if (st.st_size == 0) {
		*out = NULL;
		*n = 0;
		return 0;
	}
	json = roster_newest(fd, &sequence, &slot);
	if (!json)
		return err_set(err, -EBADMSG,
			       "the roster of exports is damaged; attach them again");
	rc = roster_parse(json, out, n);
	free(json);
	if (rc)
		return err_set(err, rc, "the roster of exports (write %llu): %s",
			       (unsigned long long)sequence, strerror(-rc));
	return 0;
}
