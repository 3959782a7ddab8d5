/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/attach/device_note.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/process.h"

#define NOTE_VERSION 1
#define NOTE_MAX     (16 * KIB)

int device_note_sign(struct device_note *n)
{
	int rc = boot_id(n->boot);

	n->pid = getpid();
	return rc ? rc : process_started(n->pid, &n->started);
}

bool device_note_writer_lives(const struct device_note *n)
{
	struct process writer = {n->pid, n->started};
	char boot[NOTE_BOOT_LEN];

	return !boot_id(boot) && strcmp(boot, n->boot) == 0 && process_is(&writer);
}

static char *note_print(const struct device_note *n)
{
	cJSON *o = cJSON_CreateObject(), *ports;
	char *json;

	cJSON_AddNumberToObject(o, "version", NOTE_VERSION);
	cJSON_AddNumberToObject(o, "index", n->index);
	cJSON_AddStringToObject(o, "identity", n->identity);
	cJSON_AddNumberToObject(o, "pid", n->pid);
	cJSON_AddNumberToObject(o, "started", (double)n->started); /* below 2^53 for long */
	cJSON_AddStringToObject(o, "boot", n->boot);
	ports = cJSON_AddArrayToObject(o, "ports");
	for (uint32_t i = 0; i < n->nports; i++)
		cJSON_AddItemToArray(ports, cJSON_CreateNumber(n->ports[i]));
	json = cJSON_PrintUnformatted(o);
	cJSON_Delete(o);
	return json;
}

int device_note_save(const char *path, const struct device_note *n)
{
	char next[PATH_MAX], *json = note_print(n);
	int rc = 0;
	FILE *f;

	if (!json)
		return -ENOMEM;
	snprintf(next, sizeof(next), "%.*s.new", PATH_MAX - 8, path);
	f = fopen(next, "we");
	if (!f)
		rc = -errno;
	if (f && fputs(json, f) < 0)
		rc = -EIO;
	if (f && fclose(f) && !rc)
		rc = -errno;
	free(json);
	if (!rc && rename(next, path))
		rc = -errno;
	if (rc)
		unlink(next);
	return rc;
}

static bool ports_take(const cJSON *o, struct device_note *n)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(o, "ports"), *p;
	double port;

	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > NOTE_PORTS_MAX)
		return false;
	cJSON_ArrayForEach (p, list) {
		if (!json_integer_of(p, 1, UINT16_MAX, &port))
			return false;
		n->ports[n->nports++] = (uint16_t)port;
	}
	return true;
}

int device_note_parse(const char *json, struct device_note *out)
{
	struct device_note n = {0};
	double version, index, pid, started;
	cJSON *o = cJSON_Parse(json);
	bool good = json_integer_take(o, "version", 0, 1 << 20, &version) &&
		    version == NOTE_VERSION && json_integer_take(o, "index", -1, 1 << 20, &index) &&
		    json_integer_take(o, "pid", 1, 1 << 30, &pid) &&
		    json_integer_take(o, "started", 0, (double)(1ULL << 53), &started) &&
		    json_text_take(o, "identity", n.identity, sizeof(n.identity)) &&
		    json_text_take(o, "boot", n.boot, sizeof(n.boot)) && ports_take(o, &n);

	cJSON_Delete(o);
	if (!good)
		return -EBADMSG;
	n.index = (int)index;
	n.pid = (pid_t)pid;
	n.started = (uint64_t)started;
	*out = n;
	return 0;
}

int device_note_load(const char *path, struct device_note *out)
{
	char *json;
	size_t len;
	int rc = file_read_all(path, NOTE_MAX, &json, &len);

	if (rc)
		return rc;
	rc = device_note_parse(json, out);
	free(json);
	return rc;
}
