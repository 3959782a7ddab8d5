/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the control API, as they arrive behind HTTP: every answer has a status of HTTP's, and
 * is JSON (or, of /metrics, text) that says what was wrong when it says that something was.
 *
 * Input, in lines: method, path, query (force, key, cells by first letter), and the body.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdbool.h>

#define FAKE_CELLS 4096 /* they are cleared for each input */
#include "../unit/fake_view.h"
#include "base/log.h"
#include "control/api.h"
#include "fuzz.h"
#include "observe/policy_file.h"
#include "origin/origin.h"
#include "worker/adopt.h"

__attribute__((weak)) struct origin_counters origin_counters;

/* ---- a worker with one export that has a device, and one that has none ---- */

struct exports {
	struct export_info list[4];
	size_t n;
};

static struct exports table;

static void table_reset(void)
{
	memset(&table, 0, sizeof(table));
	table.n = 2;
	for (int i = 0; i < 2; i++) {
		struct export_info *e = &table.list[i];

		strcpy(e->name, i ? "two" : "one");
		snprintf(e->url, sizeof(e->url), "file:///d/%s", e->name);
		e->length = (200ULL << 20) + 1;
		e->slot = i - 1;
		e->reads_origin = (1ULL << 60) + 1;
	}
	strcpy(table.list[1].device, "/dev/nbd5");
	strcpy(table.list[1].way, "nbd");
	table.list[1].verified = true;
	strcpy(table.list[1].digest, "sha256:00");
}

static struct export_info *table_find(const char *key)
{
	for (size_t i = 0; i < table.n; i++) {
		struct export_info *e = &table.list[i];

		if (strcmp(e->name, key) == 0 || strcmp(e->url, key) == 0 ||
		    (key[0] && strcmp(e->device, key) == 0))
			return e;
	}
	return NULL;
}

int exports_add(struct exports *x, const char *url, const char *name, bool refresh,
		struct export_info *out, struct err *err)
{
	struct export_info *e = table_find(name[0] ? name : url);

	(void)refresh;
	must(strlen(url) < sizeof(e->url));
	if (!e && x->n == 4)
		return err_set(err, -ENOSPC, "%s: full", url);
	if (!e) {
		e = &x->list[x->n++];
		*e = (struct export_info){.length = 1 << 20, .slot = -1};
		snprintf(e->url, sizeof(e->url), "%s", url);
		snprintf(e->name, sizeof(e->name), "%s", name[0] ? name : "made");
	}
	*out = *e;
	return 0;
}

int exports_remove(struct exports *x, const char *name, bool force, struct err *err)
{
	struct export_info *e = table_find(name);

	if (!e)
		return err_set(err, -ENOENT, "no export is called %s", name);
	if (!force && e->device[0])
		return err_set(err, -EBUSY, "'%s' has open connections", name);
	*e = x->list[--x->n];
	return 0;
}

int exports_set_device(struct exports *x, const char *name, const char *device, const char *way)
{
	struct export_info *e = table_find(name);

	(void)x;
	if (!e)
		return -ENOENT;
	snprintf(e->device, sizeof(e->device), "%s", device);
	snprintf(e->way, sizeof(e->way), "%s", way);
	return 0;
}

int exports_find(struct exports *x, const char *key, struct export_info *out, struct err *err)
{
	struct export_info *e = table_find(key);

	(void)x;
	if (!e)
		return err_set(err, -ENOENT, "no export is called %s", key);
	*out = *e;
	return 0;
}

int exports_list(struct exports *x, struct export_info **out, size_t *n)
{
	*out = malloc(sizeof(x->list));
	must(*out);
	memcpy(*out, x->list, sizeof(x->list));
	*n = x->n;
	return 0;
}

void exports_status(struct exports *x, struct worker_status *out)
{
	(void)x;
	memset(out, 0, sizeof(*out));
	strcpy(out->store_path, "/var/lib/cairn");
	strcpy(out->event_loop, "epoll");
}

void exports_latency(struct exports *x, struct latency_view *out)
{
	(void)x;
	memset(out, 0, sizeof(*out));
}

int exports_presence(struct exports *x, const char *name, uint64_t extents, uint32_t ncells,
		     uint8_t *out)
{
	struct export_info *e = table_find(name);

	(void)x;
	if (!e)
		return -ENOENT;
	must(extents && ncells);
	must((ncells - 1) * extents * (4 * MIB) < e->length);
	memset(out, 0, ncells);
	return 0;
}

int exports_adopt(struct exports *x, const char *name, const struct privileged_links *l)
{
	(void)x, (void)name;
	must(l->n == 0);
	return 0;
}

int exports_set_policy(struct exports *x, const char *key, const struct export_policy *policy,
		       struct export_info *out, struct err *err)
{
	struct export_info *e = table_find(key);

	(void)x;
	must(policy->on_deadline || policy->limit || policy->store_limit || policy->keep);
	if (!e)
		return err_set(err, -ENOENT, "no export is called %s", key);
	e->limit = policy->limit ? *policy->limit : e->limit;
	e->store_limit = policy->store_limit ? *policy->store_limit : e->store_limit;
	e->kept = policy->keep ? *policy->keep : e->kept;
	*out = *e;
	return 0;
}

int exports_set_promote(struct exports *x, const char *key, const char *promote, bool fresh,
			struct export_info *out, struct err *err)
{
	struct export_info *e = table_find(key);

	(void)x, (void)fresh;
	if (!e)
		return err_set(err, -ENOENT, "no export is called %s", key);
	snprintf(e->promote, sizeof(e->promote), "%s", promote);
	*out = *e;
	return 0;
}

int exports_promotion_end(struct exports *x, const char *key, bool force, struct err *err)
{
	(void)x;
	if (!force && table_find(key) && table_find(key)->promoted)
		return err_set(err, -EBUSY, "'%s' is still read", key);
	return 0;
}

int exports_fetch(struct exports *x, const char *key, bool on, struct export_info *out,
		  struct err *err)
{
	struct export_info *e = table_find(key);

	(void)x;
	if (!e)
		return err_set(err, -ENOENT, "no export is called %s", key);
	e->fetching = on;
	*out = *e;
	return 0;
}

void exports_expect_mount(struct exports *x, const char *name)
{
	(void)x;
	must(table_find(name));
}

bool exports_forget(struct exports *x, const char *key)
{
	(void)x;
	return strcmp(key, "waits") == 0;
}

/* ---- a supervisor ---- */

int privileged_attach(int fd, struct privileged_device *d, struct err *err)
{
	(void)fd;
	must(d->name[0] && strlen(d->name) < SUPERVISOR_NAME_LEN);
	if (strlen(d->way) >= SUPERVISOR_WAY_LEN)
		return err_set(err, -EINVAL, "no such way");
	must(d->queues <= SUPERVISOR_LINKS_MAX && d->index >= -1);
	must(d->len % 4096 == 0 && strlen(d->identity) < SUPERVISOR_IDENTITY_LEN);
	if (d->index == 7)
		return err_set(err, -EBUSY, "another's");
	strcpy(d->device, "/dev/nbd6");
	strcpy(d->way_used, "nbd");
	d->passed_over[0] = 0;
	d->links.n = 0;
	return 0;
}

int privileged_detach(int fd, const char *name, bool force, struct err *err)
{
	(void)fd, (void)force;
	return strlen(name) % 2 ? 0 : err_set(err, -ENOENT, "no device on %s", name);
}

int privileged_read_ahead(int fd, const char *name, uint64_t kb, uint64_t *now, struct err *err)
{
	(void)fd, (void)name, (void)err;
	return fake_read_ahead(kb, now);
}

/* ---- */

static char folder[] = "/dev/shm/cairn-fuzz.XXXXXX", saved[64];

static void remove_folder(void)
{
	unlink(saved);
	rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_set_level(LOG_ERROR_);
	must(mkdtemp(folder));
	snprintf(saved, sizeof(saved), "%s/%s", folder, POLICY_FILE_NAME);
	atexit(remove_folder);
	return 0;
}

static void answer_is_lawful(const struct api_reply *r, const char *path)
{
	cJSON *json;

	must(r->status >= 200 && r->status < 600 && r->body && r->type);
	if (r->status < 300 && strcmp(path, "/metrics") == 0) {
		must(strncmp(r->type, "text/plain", 10) == 0);
		return;
	}
	must(strcmp(r->type, "application/json") == 0);
	json = cJSON_Parse(r->body);
	must(json);
	if (r->status >= 400) {
		const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(json, "error"));

		must(text && text[0]);
		must(cJSON_GetNumberValue(cJSON_GetObjectItem(json, "errno")) > 0);
	}
	cJSON_Delete(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	char *method = take_string(&in, '\n'), *path = take_string(&in, '\n');
	char *query = take_string(&in, '\n'), *body;
	struct api_query q = {.force = query[0] == 'f',
			      .key = query[0] == 'k' ? query + 1 : NULL,
			      .cells = query[0] == 'c' ? query + 1 : NULL};
	struct api_reply r = {0};
	struct api api = {.exports = &table, .supervisor_fd = -1, .nbd_socket = "/run/n.sock"};
	bool has_body = in.left > 0;

	body = take_string(&in, 0);
	table_reset();
	fake_view_reset();
	fake.off = query[0] == 'o';
	pthread_mutex_init(&api.lock, NULL);
	api.tuner = tuner_new((struct view *)&fake, -1, folder);
	must(api.tuner);
	api_call(&api, method, path, &q, has_body ? body : NULL, &r);
	answer_is_lawful(&r, path);
	free(r.body);
	tuner_free(api.tuner);
	unlink(saved);
	pthread_mutex_destroy(&api.lock);
	free(method);
	free(path);
	free(query);
	free(body);
	return 0;
}
