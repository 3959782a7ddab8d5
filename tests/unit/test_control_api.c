/* SPDX-License-Identifier: Apache-2.0 */
/* The control server and the commands' client over a real socket, on a fake table of exports and a
 * fake supervisor that is told how to misbehave. */
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

static void boss_reply(const struct supervisor_reply *r)
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

static void *boss_run(void *arg)
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

static int setup(void **state)
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

static int teardown(void **state)
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
static cJSON *ask(const char *method, const char *where, const char *body, unsigned *status)
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

static const char *text(const cJSON *o, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItem(o, key));

	return s ? s : "";
}

static void answers(const char *method, const char *where, const char *body, unsigned status,
		    const char *key, const char *value)
{
	unsigned got;
	cJSON *o = ask(method, where, body, &got);

	if (got != status || (key && !strstr(text(o, key), value)))
		fail_msg("%s %s: %u, %s: %s", method, where, got, key, text(o, key));
	cJSON_Delete(o);
}

static const char one[] = "{\"url\":\"file:///d/one\"}";
static const char one_attached[] = "{\"url\":\"file:///d/one\",\"attach\":\"auto\"}";

static void an_export_is_added_found_and_removed(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one, 201, "uri", "nbd+unix:///one?socket=/run/n.sock");
	answers("POST", "/v1/exports", one, 200, "name", "one");
	answers("GET", "/v1/exports/one", NULL, 200, "url", "file:///d/one");
	answers("GET", "/v1/exports/file%3A%2F%2F%2Fd%2Fone", NULL, 200, "name", "one");
	answers("DELETE", "/v1/exports/one", NULL, 200, "name", "one");
	answers("GET", "/v1/exports/one", NULL, 404, "error", "no export is called one");
	assert_int_equal(boss.attaches + boss.detaches, 0);
}

static void an_upgrade_names_the_next_worker_or_says_why_not(void **state)
{
	unsigned status;
	cJSON *o = ask("POST", "/v1/upgrade", "{}", &status);

	(void)state;
	assert_int_equal(status, 202);
	assert_int_equal(cJSON_GetObjectItem(o, "next_pid")->valueint, 4711);
	cJSON_Delete(o);
	boss.code = -EINVAL;
	answers("POST", "/v1/upgrade", "{}", 400, "error", "told to refuse");
	answers("GET", "/v1/upgrade", NULL, 405, NULL, NULL);
}

static void attaching_twice_gives_the_same_device(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, "device", "/dev/loop5");
	answers("POST", "/v1/exports", one_attached, 200, "device", "/dev/loop5");
	assert_int_equal(boss.attaches, 1);
	assert_int_equal(table.expected, 1);
	answers("GET", "/v1/exports/%2Fdev%2Floop5", NULL, 200, "way", "nbdfuse");
}

static void a_device_and_queues_wished_for_reach_the_supervisor(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, "passed_over", "told to refuse");
	assert_int_equal(boss.attach.index, -1);
	assert_int_equal(boss.attach.queues, 0);
	assert_int_equal(boss.attach.flags, 0);
	answers("DELETE", "/v1/exports/one", NULL, 200, NULL, NULL);
	answers("POST", "/v1/exports",
		"{\"url\":\"file:///d/one\",\"attach\":\"nbd\",\"device\":\"/dev/nbd12\","
		"\"queues\":64}",
		201, NULL, NULL);
	assert_string_equal(boss.attach.way, "nbd");
	assert_int_equal(boss.attach.index, 12);
	assert_int_equal(boss.attach.queues, 64);
	assert_int_equal(boss.attach.value[0] % 4096, 0);
}

static void a_device_or_queues_that_cannot_be_are_refused_with_what_can(void **state)
{
	static const char *const bad[] = {
		"\"device\":\"/dev/sda\"", "\"device\":5",   "\"device\":\"\"", "\"queues\":0",
		"\"queues\":65",	   "\"queues\":1.5", "\"queues\":\"2\""};
	char body[128];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(body, sizeof(body), "{\"url\":\"file:///d/one\",\"attach\":\"auto\",%s}",
			 bad[i]);
		answers("POST", "/v1/exports", body, 400, "error",
			bad[i][1] == 'd' ? "/dev/nbd0" : "1 to 64");
	}
	assert_int_equal(boss.attaches, 0);
	assert_int_equal(table.n, 0);
}

static void another_device_than_the_one_it_has_is_a_conflict(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, NULL, NULL);
	answers("POST", "/v1/exports",
		"{\"url\":\"file:///d/one\",\"attach\":\"auto\",\"device\":\"/dev/nbd1\"}", 409,
		"error", "/dev/loop5");
	assert_int_equal(boss.attaches, 1);
}

static void connections_that_come_with_a_device_are_adopted(void **state)
{
	(void)state;
	boss.sends_fds = true;
	atomic_store(&adopted, 0);
	answers("POST", "/v1/exports", one_attached, 201, NULL, NULL);
	assert_int_equal(atomic_load(&adopted), 2);
}

static void another_image_under_the_name_is_a_conflict(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, NULL, NULL);
	answers("POST", "/v1/exports", "{\"url\":\"file:///d/two\",\"name\":\"one\"}", 409, "error",
		"'one' serves file:///d/one");
}

static void a_refused_attach_leaves_no_export_that_was_not_there(void **state)
{
	(void)state;
	boss.code = -ENOTSUP;
	answers("POST", "/v1/exports", one_attached, 501, "error", "told to refuse");
	assert_int_equal(table.n, 0);
	answers("POST", "/v1/exports", one, 201, NULL, NULL);
	answers("POST", "/v1/exports", one_attached, 501, "error", "told to refuse");
	assert_int_equal(table.n, 1);
}

static void detaching_what_is_mounted_is_refused_and_changes_nothing(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, NULL, NULL);
	boss.code = -EBUSY;
	answers("DELETE", "/v1/exports/one", NULL, 409, "error", "told to refuse");
	assert_string_equal(table.list[0].device, "/dev/loop5");
	boss.code = 0;
	answers("DELETE", "/v1/exports/one?force=1", NULL, 200, NULL, NULL);
	assert_int_equal(boss.flags, SUPERVISOR_FORCE);
	assert_int_equal(table.n, 0);
}

static void a_helpers_last_connection_is_waited_for(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, NULL, NULL);
	table.busy = 3;
	answers("DELETE", "/v1/exports/one", NULL, 200, NULL, NULL);
	answers("POST", "/v1/exports", one, 201, NULL, NULL);
	table.busy = 1000; /* a client that never was ours: no waiting */
	answers("DELETE", "/v1/exports/one", NULL, 409, "error", "open connections");
}

static void a_device_the_supervisor_lost_does_not_hold_the_export(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", one_attached, 201, NULL, NULL);
	boss.code = -ENOENT;
	answers("DELETE", "/v1/exports/one", NULL, 200, NULL, NULL);
}

static void refresh_is_passed_on(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", "{\"url\":\"file:///d/one\",\"refresh\":true}", 201, NULL,
		NULL);
	assert_int_equal(table.refreshes, 1);
}

static void a_limit_and_on_deadline_are_passed_on_and_told(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", "{\"url\":\"file:///d/one\",\"on_deadline\":\"wait\"}", 201,
		"on_deadline", "wait");
	answers("PATCH", "/v1/exports/one", "{\"limit\":5000000}", 200, NULL, NULL);
	assert_int_equal(table.list[0].limit, 5000000);
	answers("PATCH", "/v1/exports/one", "{\"limit\":-1}", 400, NULL, NULL);
	answers("PATCH", "/v1/exports/one", "{}", 400, NULL, NULL);
	answers("PATCH", "/v1/exports/two", "{\"limit\":1}", 404, NULL, NULL);
	assert_int_equal(table.list[0].limit, 5000000);
	/* an export that was not there is not there afterwards */
	answers("POST", "/v1/exports", "{\"url\":\"file:///d/two\",\"on_deadline\":\"maybe\"}", 400,
		NULL, NULL);
	assert_int_equal(table.n, 1);
}

static void what_an_export_may_have_of_the_store_is_passed_on_and_told(void **state)
{
	(void)state;
	answers("POST", "/v1/exports", "{\"url\":\"file:///d/one\"}", 201, NULL, NULL);
	table.list[0].limit = 7;
	answers("PATCH", "/v1/exports/one", "{\"store_limit\":5000000000}", 200, NULL, NULL);
	assert_true(table.list[0].store_limit == 5000000000);
	assert_false(table.list[0].kept);
	answers("PATCH", "/v1/exports/one", "{\"keep\":true}", 200, NULL, NULL);
	assert_true(table.list[0].kept);
	assert_true(table.list[0].store_limit == 5000000000);
	answers("PATCH", "/v1/exports/one", "{\"keep\":1}", 400, NULL, NULL);
	answers("PATCH", "/v1/exports/one", "{\"store_limit\":\"1G\"}", 400, NULL, NULL);
	answers("PATCH", "/v1/exports/one", "{\"store_limit\":-1,\"keep\":false}", 400, NULL, NULL);
	assert_true(table.list[0].kept);
	answers("PATCH", "/v1/exports/one", "{\"store_limit\":0,\"keep\":false}", 200, NULL, NULL);
	assert_int_equal(table.list[0].store_limit, 0);
	assert_false(table.list[0].kept);
	assert_int_equal(table.list[0].limit, 7);
}

static void requests_that_make_no_sense_are_told_why(void **state)
{
	char *huge = malloc(200000);

	(void)state;
	answers("POST", "/v1/exports", "{", 400, "error", "must be a JSON object");
	answers("POST", "/v1/exports", NULL, 400, "error", "must be a JSON object");
	answers("POST", "/v1/exports", "[]", 400, "error", "must be a JSON object");
	answers("POST", "/v1/exports", "{\"url\":7}", 400, "error", "\"url\" must be");
	answers("POST", "/v1/exports", "{\"url\":\"x\",\"name\":7}", 400, "error", "must be text");
	answers("POST", "/v1/exports", "{\"url\":\"file:///missing\"}", 404, "error",
		"no such blob");
	answers("PUT", "/v1/exports", one, 405, "error", "method");
	answers("POST", "/metrics", one, 405, "error", "method");
	answers("GET", "/", NULL, 404, "error", "/v1/status");
	memset(huge, ' ', 199999);
	huge[199999] = 0;
	answers("POST", "/v1/exports", huge, 413, "error", "64 KiB");
	free(huge);
}

static void the_status_tells_counters_exactly(void **state)
{
	struct client_reply r;
	struct err err;
	cJSON *o;

	(void)state;
	answers("POST", "/v1/exports", one, 201, NULL, NULL);
	assert_int_equal(client_call(path, "GET", "/v1/status", NULL, 10000, &r, &err), 0);
	assert_non_null(strstr(r.body, "1152921504606846977")); /* 2^60 + 1: no double holds it */
	o = cJSON_Parse(r.body);
	assert_string_equal(text(o, "event_loop"), "epoll");
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(o, "images")), 1);
	assert_string_equal(text(cJSON_GetObjectItem(o, "store"), "path"), "/var/lib/cairn");
	cJSON_Delete(o);
	free(r.body);
}

static void counters_do_not_fall_when_an_export_goes(void **state)
{
	struct client_reply r;
	struct err err;

	(void)state;
	answers("POST", "/v1/exports", one, 201, NULL, NULL);
	answers("DELETE", "/v1/exports/one", NULL, 200, NULL, NULL);
	assert_int_equal(client_call(path, "GET", "/metrics", NULL, 10000, &r, &err), 0);
	assert_non_null(strstr(r.body, "\ncairn_served_bytes_total{source=\"local\"} 100\n"));
	assert_non_null(strstr(r.body, "\ncairn_images 0\n"));
	free(r.body);
}

static void latencies_are_a_histogram_whose_buckets_add_up(void **state)
{
	struct client_reply r;
	struct err err;

	(void)state;
	assert_int_equal(client_call(path, "GET", "/metrics", NULL, 10000, &r, &err), 0);
#define READ_SECONDS "\ncairn_read_seconds"
	assert_non_null(
		strstr(r.body, READ_SECONDS "_bucket{source=\"local\",le=\"0.000004\"} 0\n"));
	assert_non_null(
		strstr(r.body, READ_SECONDS "_bucket{source=\"local\",le=\"0.000016\"} 3\n"));
	assert_non_null(strstr(r.body, READ_SECONDS "_bucket{source=\"local\",le=\"+Inf\"} 3\n"));
	assert_non_null(strstr(r.body, READ_SECONDS "_sum{source=\"local\"} 0.000015000\n"));
	assert_non_null(strstr(r.body, READ_SECONDS "_count{source=\"origin\"} 0\n"));
	assert_non_null(strstr(r.body, "\ncairn_reader_stall_seconds_total 2.500000\n"));
	free(r.body);
}

static void every_metric_has_its_help_and_type(void **state)
{
	struct client_reply r;
	struct err err;
	char *line, *save, name[128], want[160], kind[32], *copy;
	int samples = 0;

	(void)state;
	assert_int_equal(client_call(path, "GET", "/metrics", NULL, 10000, &r, &err), 0);
	copy = strdup(r.body);
	for (line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (line[0] == '#')
			continue;
		samples++;
		assert_int_equal(sscanf(line, "%127[a-z_]", name), 1);
		if (strncmp(name, "cairn_read_seconds_", 19) == 0)
			name[18] = 0; /* a histogram's parts */
		snprintf(want, sizeof(want), "# HELP %s ", name);
		assert_non_null(strstr(r.body, want));
		snprintf(want, sizeof(want), "# TYPE %s ", name);
		assert_non_null(strstr(r.body, want));
		sscanf(strstr(r.body, want) + strlen(want), "%31s", kind);
		assert_int_equal(strcmp(kind, "counter") == 0,
				 strlen(name) > 6 && !strcmp(name + strlen(name) - 6, "_total"));
	}
	assert_true(samples > 20);
	free(copy);
	free(r.body);
}

static void the_listening_socket_outlives_the_server(void **state)
{
	struct err err;

	(void)state;
	control_stop(control);
	assert_int_equal(
		control_start(listener, "", &table, tuner, pair[0], "/run/n.sock", &control, &err),
		0);
	answers("GET", "/v1/exports/x", NULL, 404, NULL, NULL);
}

static void metrics_alone_are_served_over_tcp(void **state)
{
	struct control *c;
	struct err err = {0};

	(void)state;
	assert_int_equal(control_start(listener, "nonsense", &table, tuner, -1, "", &c, &err),
			 -EINVAL);
	assert_int_equal(control_start(listener, "192.0.2.1:9100", &table, tuner, -1, "", &c, &err),
			 -EADDRNOTAVAIL);
	assert_non_null(strstr(err.text, "metrics_listen = 192.0.2.1:9100"));
}

static void no_daemon_is_an_error_with_the_remedy(void **state)
{
	struct client_reply r;
	struct err err = {0};

	(void)state;
	assert_int_equal(client_call("/nonexistent/c.sock", "GET", "/", NULL, 1000, &r, &err),
			 -ENOENT);
	assert_non_null(strstr(err.text, "no cairnd listens on /nonexistent/c.sock; start it"));
	assert_non_null(strstr(err.text, "$CAIRN_SOCKET"));
}

/* A daemon that says @reply and hangs up. */
static void *say(void *reply)
{
	char sink[4096];
	int fd = accept(listener, NULL, NULL);

	/* A client that gave up meanwhile has its own error, which is looked at. */
	if (recv(fd, sink, sizeof(sink), 0) >= 0)
		(void)!send(fd, reply, strlen(reply), MSG_NOSIGNAL);
	close(fd);
	return NULL;
}

static void a_cut_or_senseless_answer_is_an_error(void **state)
{
	static const char *const bad[] = {
		"",
		"hello\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\nbody",
		"HTTP/1.1 200 OK\r\nContent-Length: 5",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nfour",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n",
	};
	struct client_reply r;
	struct err err;
	pthread_t t;

	(void)state;
	control_stop(control);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		pthread_create(&t, NULL, say, (void *)bad[i]);
		assert_int_equal(client_call(path, "GET", "/", NULL, 5000, &r, &err), -EBADMSG);
		pthread_join(t, NULL);
	}
	control = NULL;
}

static void a_daemon_that_does_not_answer_is_given_up(void **state)
{
	struct client_reply r;
	struct err err;

	(void)state;
	control_stop(control);
	control = NULL;
	assert_int_equal(client_call(path, "GET", "/", NULL, 50, &r, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "does not answer"));
}

#define bed(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed(an_export_is_added_found_and_removed),
		bed(an_upgrade_names_the_next_worker_or_says_why_not),
		bed(attaching_twice_gives_the_same_device),
		bed(a_device_and_queues_wished_for_reach_the_supervisor),
		bed(a_device_or_queues_that_cannot_be_are_refused_with_what_can),
		bed(another_device_than_the_one_it_has_is_a_conflict),
		bed(connections_that_come_with_a_device_are_adopted),
		bed(another_image_under_the_name_is_a_conflict),
		bed(a_refused_attach_leaves_no_export_that_was_not_there),
		bed(detaching_what_is_mounted_is_refused_and_changes_nothing),
		bed(a_helpers_last_connection_is_waited_for),
		bed(a_device_the_supervisor_lost_does_not_hold_the_export),
		bed(refresh_is_passed_on),
		bed(a_limit_and_on_deadline_are_passed_on_and_told),
		bed(what_an_export_may_have_of_the_store_is_passed_on_and_told),
		bed(requests_that_make_no_sense_are_told_why),
		bed(the_status_tells_counters_exactly),
		bed(counters_do_not_fall_when_an_export_goes),
		bed(latencies_are_a_histogram_whose_buckets_add_up),
		bed(every_metric_has_its_help_and_type),
		bed(the_listening_socket_outlives_the_server),
		bed(metrics_alone_are_served_over_tcp),
		bed(no_daemon_is_an_error_with_the_remedy),
		bed(a_cut_or_senseless_answer_is_an_error),
		bed(a_daemon_that_does_not_answer_is_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
