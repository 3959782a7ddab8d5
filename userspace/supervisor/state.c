/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/state.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/slots.h"

#define STATE_MAGIC   0x545453434e524e43ULL /* "CNRNCSTT" */
#define STATE_LEN_MAX (32 * MIB)
#define INTEGER_MAX   9007199254740992.0 /* 2^53: beyond it JSON's numbers are not exact */
#define DEVICES_MAX   65536

struct file_id file_id_of(int fd)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return (struct file_id){0};
	return (struct file_id){.dev = st.st_dev, .ino = st.st_ino};
}

bool file_id_equal(struct file_id a, struct file_id b)
{
	return a.ino && a.ino == b.ino && a.dev == b.dev;
}

/* ---- print ---- */

static void id_add(cJSON *list, struct file_id id)
{
	cJSON *pair = cJSON_CreateArray();

	cJSON_AddItemToArray(pair, cJSON_CreateNumber((double)id.dev));
	cJSON_AddItemToArray(pair, cJSON_CreateNumber((double)id.ino));
	cJSON_AddItemToArray(list, pair);
}

static void id_put(cJSON *o, const char *key, struct file_id id)
{
	cJSON *pair = cJSON_AddArrayToObject(o, key);

	cJSON_AddItemToArray(pair, cJSON_CreateNumber((double)id.dev));
	cJSON_AddItemToArray(pair, cJSON_CreateNumber((double)id.ino));
}

static void process_put(cJSON *o, const char *key, const struct process *p)
{
	cJSON *pair = cJSON_AddArrayToObject(o, key);

	cJSON_AddItemToArray(pair, cJSON_CreateNumber(p->pid));
	cJSON_AddItemToArray(pair, cJSON_CreateNumber((double)p->started));
}

static void device_put(cJSON *list, const struct state_device *d)
{
	cJSON *o = cJSON_CreateObject(), *links, *ledgers;

	cJSON_AddItemToArray(list, o);
	cJSON_AddStringToObject(o, "name", d->name);
	cJSON_AddStringToObject(o, "way", d->way);
	cJSON_AddStringToObject(o, "identity", d->identity);
	cJSON_AddStringToObject(o, "device", d->device);
	cJSON_AddNumberToObject(o, "size", (double)d->size);
	cJSON_AddNumberToObject(o, "wished", d->wished);
	cJSON_AddNumberToObject(o, "index", d->index);
	cJSON_AddNumberToObject(o, "queues", d->queues);
	cJSON_AddNumberToObject(o, "generation", d->generation);
	cJSON_AddBoolToObject(o, "dead", d->dead);
	cJSON_AddNumberToObject(o, "owner", d->owner);
	process_put(o, "helper", &d->helper);
	if (d->promoted.ino)
		id_put(o, "promoted", d->promoted);
	links = cJSON_AddArrayToObject(o, "links");
	ledgers = cJSON_AddArrayToObject(o, "ledgers");
	for (uint32_t i = 0; i < d->nlinks; i++) {
		id_add(links, d->links[i]);
		id_add(ledgers, d->ledgers[i]);
	}
}

char *state_print(const struct state *s)
{
	cJSON *o = cJSON_CreateObject(), *list;
	char *json;

	cJSON_AddNumberToObject(o, "version", STATE_VERSION);
	cJSON_AddNumberToObject(o, "least", STATE_LEAST);
	cJSON_AddStringToObject(o, "boot", s->boot);
	process_put(o, "supervisor", &s->supervisor);
	process_put(o, "worker", &s->worker);
	cJSON_AddBoolToObject(o, "ready", s->ready);
	cJSON_AddNumberToObject(o, "restarts", s->restarts);
	cJSON_AddNumberToObject(o, "takeovers", s->takeovers);
	cJSON_AddNumberToObject(o, "pending", s->pending);
	cJSON_AddStringToObject(o, "control_socket", s->control_socket);
	cJSON_AddStringToObject(o, "nbd_socket", s->nbd_socket);
	id_put(o, "control", s->control);
	id_put(o, "nbd", s->nbd);
	id_put(o, "roster", s->roster);
	id_put(o, "crash", s->crash);
	id_put(o, "channel", s->channel);
	list = cJSON_AddArrayToObject(o, "devices");
	for (size_t i = 0; i < s->ndevices; i++)
		device_put(list, &s->devices[i]);
	json = list ? cJSON_PrintUnformatted(o) : NULL;
	cJSON_Delete(o);
	return json;
}

/* ---- parse ---- */

static bool u32_take(const cJSON *o, const char *key, uint32_t max, uint32_t *out)
{
	double v;

	if (!json_integer_take(o, key, 0, max, &v))
		return false;
	*out = (uint32_t)v;
	return true;
}

static bool int_take(const cJSON *o, const char *key, int min, int *out)
{
	double v;

	if (!json_integer_take(o, key, min, 1 << 30, &v))
		return false;
	*out = (int)v;
	return true;
}

static bool pair_of(const cJSON *pair, double max_first, double *first, double *second)
{
	return cJSON_IsArray(pair) && cJSON_GetArraySize(pair) == 2 &&
	       json_integer_of(cJSON_GetArrayItem(pair, 0), 0, max_first, first) &&
	       json_integer_of(cJSON_GetArrayItem(pair, 1), 0, INTEGER_MAX, second);
}

static bool id_of(const cJSON *pair, struct file_id *out)
{
	double dev, ino;

	if (!pair_of(pair, INTEGER_MAX, &dev, &ino))
		return false;
	*out = (struct file_id){(uint64_t)dev, (uint64_t)ino};
	return true;
}

static bool id_take(const cJSON *o, const char *key, struct file_id *out)
{
	return id_of(cJSON_GetObjectItemCaseSensitive(o, key), out);
}

static bool process_take(const cJSON *o, const char *key, struct process *out)
{
	double pid, started;

	if (!pair_of(cJSON_GetObjectItemCaseSensitive(o, key), 1 << 30, &pid, &started))
		return false;
	*out = (struct process){(pid_t)pid, (uint64_t)started};
	return true;
}

/* *n is set to their number. */
static bool ids_take(const cJSON *o, const char *key, struct file_id *out, uint32_t *n)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(o, key), *pair;
	uint32_t i = 0;

	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > ATTACH_LINKS_MAX)
		return false;
	cJSON_ArrayForEach (pair, list)
		if (!id_of(pair, &out[i++]))
			return false;
	*n = i;
	return true;
}

/* The device's path goes into other paths: nothing but /dev/loopN and /dev/nbdN. */
static bool device_is_named(const struct state_device *d)
{
	char loop[64], nbd[64];

	if (d->index < 0)
		return !d->device[0];
	snprintf(loop, sizeof(loop), "/dev/loop%d", d->index);
	snprintf(nbd, sizeof(nbd), "/dev/nbd%d", d->index);
	return strcmp(d->device, loop) == 0 || strcmp(d->device, nbd) == 0;
}

static bool device_take(const cJSON *o, struct state_device *d)
{
	const cJSON *dead = cJSON_GetObjectItemCaseSensitive(o, "dead");
	uint32_t nledgers = 0;
	double size = 0;

	if (!json_text_take(o, "name", d->name, sizeof(d->name)) || !d->name[0] ||
	    !json_text_take(o, "way", d->way, sizeof(d->way)) ||
	    !json_text_take(o, "identity", d->identity, sizeof(d->identity)) ||
	    !json_text_take(o, "device", d->device, sizeof(d->device)) ||
	    !json_integer_take(o, "size", 0, INTEGER_MAX, &size) ||
	    !int_take(o, "wished", -1, &d->wished) || !int_take(o, "index", -1, &d->index) ||
	    !u32_take(o, "queues", ATTACH_LINKS_MAX, &d->queues) ||
	    !u32_take(o, "generation", UINT32_MAX, &d->generation) ||
	    !int_take(o, "owner", 0, &d->owner) || !process_take(o, "helper", &d->helper) ||
	    !ids_take(o, "links", d->links, &d->nlinks) ||
	    !ids_take(o, "ledgers", d->ledgers, &nledgers))
		return false;
	if (cJSON_HasObjectItem(o, "promoted") && !id_take(o, "promoted", &d->promoted))
		return false;
	d->size = (uint64_t)size;
	d->dead = cJSON_IsTrue(dead);
	return cJSON_IsBool(dead) && nledgers == d->nlinks && device_is_named(d);
}

static int devices_take(const cJSON *o, struct state *s)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(o, "devices"), *d;
	int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : -1;

	if (n < 0 || n > DEVICES_MAX)
		return -EBADMSG;
	s->devices = n ? calloc((size_t)n, sizeof(*s->devices)) : NULL;
	if (n && !s->devices)
		return -ENOMEM;
	cJSON_ArrayForEach (d, list)
		if (!device_take(d, &s->devices[s->ndevices++]))
			return -EBADMSG;
	return 0;
}

static int state_take(const cJSON *o, struct state *s)
{
	const cJSON *ready = cJSON_GetObjectItemCaseSensitive(o, "ready");

	s->ready = cJSON_IsTrue(ready);
	if (!cJSON_IsBool(ready) || !json_text_take(o, "boot", s->boot, sizeof(s->boot)) ||
	    !process_take(o, "supervisor", &s->supervisor) ||
	    !process_take(o, "worker", &s->worker) ||
	    !u32_take(o, "restarts", UINT32_MAX, &s->restarts) ||
	    !u32_take(o, "takeovers", UINT32_MAX, &s->takeovers) ||
	    !u32_take(o, "pending", UINT32_MAX, &s->pending) ||
	    !json_text_take(o, "control_socket", s->control_socket, sizeof(s->control_socket)) ||
	    !json_text_take(o, "nbd_socket", s->nbd_socket, sizeof(s->nbd_socket)) ||
	    !id_take(o, "control", &s->control) || !id_take(o, "nbd", &s->nbd) ||
	    !id_take(o, "roster", &s->roster) || !id_take(o, "crash", &s->crash) ||
	    !id_take(o, "channel", &s->channel))
		return -EBADMSG;
	return devices_take(o, s);
}

static bool version_is_read(const cJSON *o, double version)
{
	double least = version;

	json_integer_take(o, "least", 1, UINT32_MAX, &least);
	return version >= STATE_OLDEST && least <= STATE_VERSION;
}

int state_parse(const char *json, size_t len, struct state *out, struct err *err)
{
	cJSON *o = len <= STATE_LEN_MAX ? cJSON_ParseWithLength(json, len) : NULL;
	struct state s = {0};
	double version = 0;
	int rc = -EBADMSG;

	if (!o || !json_integer_take(o, "version", 1, UINT32_MAX, &version))
		err_set(err, rc, "the supervisor's record is damaged");
	else if (!version_is_read(o, version))
		rc = err_set(err, -EPROTONOSUPPORT,
			     "the supervisor's record is of version %.0f, and this cairnd (%s) "
			     "knows %u to %u",
			     version, CAIRN_VERSION, STATE_OLDEST, STATE_VERSION);
	else {
		rc = state_take(o, &s);
		if (rc)
			err_set(err, rc, "the supervisor's record is damaged");
	}
	cJSON_Delete(o);
	if (rc)
		state_clear(&s);
	else
		*out = s;
	return rc;
}

void state_clear(struct state *s)
{
	free(s->devices);
	*s = (struct state){0};
}

int state_save(int fd, const struct state *s)
{
	char *json = state_print(s);
	size_t len = json ? strlen(json) : 0;
	int rc = !json		       ? -ENOMEM
		 : len > STATE_LEN_MAX ? -EFBIG
				       : slots_save(fd, STATE_MAGIC, NULL, json, len);

	free(json);
	return rc;
}

int state_load(int fd, struct state *out, struct err *err)
{
	char *json;
	size_t len;
	int rc = slots_load(fd, STATE_MAGIC, &json, &len, NULL);

	if (!rc && !json)
		rc = -ENOENT;
	if (rc)
		return err_set(err, rc, "the supervisor's record: %s", strerror(-rc));
	rc = state_parse(json, len, out, err);
	free(json);
	return rc;
}
