/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the control API share: its server and the commands' client over a real socket,
 * on a fake table of exports and a fake supervisor that is told how to misbehave. Include it once a
 * test. */
#ifndef TESTS_CONTROL_BED_H
#define TESTS_CONTROL_BED_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <cjson/cJSON.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <supervisor_protocol.h>

#include "control/client.h"
#include "control/control.h"
#include "fake_view.h"
#include "origin/origin.h"
#include "worker/adopt.h"
#include "worker/promote.h"
#include "worker/whole.h"

__attribute__((weak)) struct origin_counters origin_counters;

/* ---- a fake worker ---- */

struct exports {
	struct export_info list[8];
	size_t n;
	int refreshes, expected;
	int busy; /* so many removals are refused first */
};

static struct exports table;

static inline struct export_info *table_find(const char *key)
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

	if (strstr(url, "missing"))
		return err_set(err, -ENOENT, "%s: no such blob", url);
	if (e && strcmp(e->url, url) != 0)
		return err_set(err, -EEXIST, "'%s' serves %s; choose another --name", name, e->url);
	if (!e) {
		e = &x->list[x->n++];
		*e = (struct export_info){.length = 1 << 20,
					  .verified = true,
					  .bytes_local = 100,
					  .reads_origin = (1ULL << 60) + 1};
		snprintf(e->url, sizeof(e->url), "%s", url);
		snprintf(e->name, sizeof(e->name), "%s", name[0] ? name : strrchr(url, '/') + 1);
	}
	x->refreshes += refresh;
	*out = *e;
	return 0;
}

int exports_set_promote(struct exports *x, const char *key, const char *promote, bool fresh,
			struct export_info *out, struct err *err)
{
	struct export_info *e = table_find(key);

	(void)x, (void)fresh;
	if (!e || (strcmp(promote, "auto") != 0 && strcmp(promote, "never") != 0))
		return err_set(err, -EINVAL, "promote must be auto or never");
	snprintf(e->promote, sizeof(e->promote), "%s", promote);
	*out = *e;
	return 0;
}

void exports_note_promoted(struct exports *x, const char *name, bool promoted)
{
	(void)x, (void)name, (void)promoted;
}

int exports_promotion_end(struct exports *x, const char *key, bool force, struct err *err)
{
	(void)x, (void)key, (void)force, (void)err;
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

int exports_set_policy(struct exports *x, const char *key, const struct export_policy *policy,
		       struct export_info *out, struct err *err)
{
	struct export_info *e = table_find(key);
	const char *on_deadline = policy->on_deadline;

	(void)x;
	if (!e)
		return err_set(err, -ENOENT, "no export is called %s", key);
	if (on_deadline && strcmp(on_deadline, "eio") != 0 && strcmp(on_deadline, "wait") != 0)
		return err_set(err, -EINVAL, "on_deadline is eio or wait, not %s", on_deadline);
	if (on_deadline)
		e->waits = strcmp(on_deadline, "wait") == 0;
	if (policy->limit)
		e->limit = *policy->limit;
	if (policy->store_limit)
		e->store_limit = *policy->store_limit;
	if (policy->keep)
		e->kept = *policy->keep;
	*out = *e;
	return 0;
}

void exports_expect_mount(struct exports *x, const char *name)
{
	(void)name;
	x->expected++;
}

int exports_remove(struct exports *x, const char *name, bool force, struct err *err)
{
	struct export_info *e = table_find(name);

	if (!e)
		return err_set(err, -ENOENT, "no export is called %s", name);
	if (!force && (e->device[0] || x->busy-- > 0))
		return err_set(err, -EBUSY, "'%s' has open connections", name);
	*e = x->list[--x->n];
	return 0;
}

bool exports_forget(struct exports *x, const char *key)
{
	(void)x, (void)key;
	return false;
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
	memcpy(*out, x->list, sizeof(x->list));
	*n = x->n;
	return 0;
}

void exports_status(struct exports *x, struct worker_status *out)
{
	(void)x;
	*out = (struct worker_status){.store_used = 5,
				      .store_size = 10,
				      .store_evictions = 3,
				      .verify_failures = 2,
				      .uptime_ms = 1500};
	strcpy(out->store_path, "/var/lib/cairn");
	strcpy(out->event_loop, "epoll");
}

void exports_latency(struct exports *x, struct latency_view *out)
{
	(void)x;
	memset(out, 0, sizeof(*out));
	out->local.bucket[histogram_bucket(5000)] = out->local.count = 3; /* each 5 us */
	out->local.sum_ns = 15000;
	out->local.max_ns = 5000;
	out->stall_ns = 2500000000;
}

int exports_presence(struct exports *x, const char *name, uint64_t extents, uint32_t ncells,
		     uint8_t *out)
{
	(void)x, (void)name, (void)extents;
	memset(out, 0, ncells);
	return 0;
}

/* ---- a fake supervisor ---- */

static struct supervisor {
	int fd, code, attaches, detaches;
	uint32_t flags;
	bool sends_fds;			  /* two of them, with each attach */
	struct supervisor_request attach; /* the last one */
	pthread_t thread;
} boss;

static atomic_int adopted;

int exports_adopt(struct exports *x, const char *name, const struct privileged_links *l)
{
	(void)x;
	assert_string_equal(name, "one");
	for (uint32_t i = 0; i < l->n; i++)
		assert_int_equal(close(l->fd[i]) | close(l->ledger[i]), 0);
	atomic_fetch_add(&adopted, (int)l->n);
	return 0;
}

void exports_adopt_early(void *exports, const char *name, const struct privileged_links *l)
{
	exports_adopt(exports, name, l);
}

static inline void boss_reply(const struct supervisor_reply *r)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(4 * sizeof(int))];
	} control_room = {0};
	int fds[4] = {0};
	struct iovec iov = {(void *)r, sizeof(*r)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (r->nfds) {
		m.msg_control = &control_room;
		m.msg_controllen = sizeof(control_room.room);
		control_room.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(fds)),
						       .cmsg_level = SOL_SOCKET,
						       .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control_room.header), fds, sizeof(fds));
	}
	sendmsg(boss.fd, &m, MSG_NOSIGNAL);
}

static inline void *boss_run(void *arg)
{
	struct supervisor_request q;

	(void)arg;
	while (recv(boss.fd, &q, sizeof(q), 0) == sizeof(q)) {
		struct supervisor_reply r = {.magic = SUPERVISOR_MAGIC,
					     .version = SUPERVISOR_VERSION,
					     .id = q.id,
					     .code = boss.code};

		boss.attaches += q.op == SUPERVISOR_ATTACH;
		boss.detaches += q.op == SUPERVISOR_DETACH;
		boss.flags = q.flags;
		strcpy(r.text, "told to refuse");
		strcpy(r.device, "/dev/loop5");
		strcpy(r.way, "nbdfuse");
		if (q.op == SUPERVISOR_ATTACH)
			boss.attach = q;
		if (q.op == SUPERVISOR_UPGRADE)
			r.value[0] = 4711;
		r.nfds = boss.sends_fds && q.op == SUPERVISOR_ATTACH ? 4 : 0;
		boss_reply(&r);
	}
	return NULL;
}

/* ---- the bed ---- */

static char dir[] = "/tmp/test_control.XXXXXX", path[64];
static int listener, pair[2];
static struct control *control;
static struct tuner *tuner;

static inline int setup(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct err err;

	(void)state;
	memset(&table, 0, sizeof(table));
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/c.sock", dir);
	strcpy(a.sun_path, path);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, 16),
			 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	boss = (struct supervisor){.fd = pair[1]};
	pthread_create(&boss.thread, NULL, boss_run, NULL);
	fake_view_reset();
	fake.off = true;
	tuner = tuner_new((struct view *)&fake, pair[0], dir);
	assert_non_null(tuner);
	return control_start(listener, "", &table, tuner, pair[0], "/run/n.sock", &control, &err);
}

static inline int teardown(void **state)
{
	(void)state;
	control_stop(control);
	tuner_free(tuner);
	shutdown(pair[0], SHUT_RDWR);
	pthread_join(boss.thread, NULL);
	close(pair[0]);
	close(pair[1]);
	close(listener);
	unlink(path);
	return rmdir(dir);
}

/* The reply's JSON, and its status in *status. */
static inline cJSON *ask(const char *method, const char *where, const char *body, unsigned *status)
{
	struct client_reply r;
	struct err err = {0};
	cJSON *json;

	if (client_call(path, method, where, body, 10000, &r, &err))
		fail_msg("%s %s: %s", method, where, err.text);
	*status = r.status;
	json = cJSON_Parse(r.body);
	free(r.body);
	return json;
}

static inline const char *text(const cJSON *o, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItem(o, key));

	return s ? s : "";
}

static inline void answers(const char *method, const char *where, const char *body, unsigned status,
			   const char *key, const char *value)
{
	unsigned got;
	cJSON *o = ask(method, where, body, &got);

	if (got != status || (key && !strstr(text(o, key), value)))
		fail_msg("%s %s: %u, %s: %s", method, where, got, key ? key : "", text(o, key));
	cJSON_Delete(o);
}

static const char one[] = "{\"url\":\"file:///d/one\"}";
static const char one_attached[] = "{\"url\":\"file:///d/one\",\"attach\":\"auto\"}";

#define bed(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
