/* SPDX-License-Identifier: Apache-2.0 */
/* The routes of top, heat and tune, on a fake table of exports, a fake view and a fake supervisor.
 */
#include "check.h"

#include <cjson/cJSON.h>

#include "control/api.h"
#include "fake_view.h"
#include "store/store.h"
#include "worker/promote.h"
#include "worker/whole.h"

/* ---- a fake worker ---- */

struct exports {
	struct export_info e;
	uint8_t present; /* of each cell */
};

static struct exports table;
static struct api api;
static char dir[64];

int exports_find(struct exports *x, const char *key, struct export_info *out, struct err *err)
{
	if (strcmp(key, x->e.name) != 0 && strcmp(key, x->e.url) != 0 &&
	    (!x->e.device[0] || strcmp(key, x->e.device) != 0))
		return err_set(err, -ENOENT, "no export has the name, URL or device %s", key);
	*out = x->e;
	return 0;
}

int exports_list(struct exports *x, struct export_info **out, size_t *n)
{
	*out = malloc(sizeof(x->e));
	**out = x->e;
	*n = 1;
	return 0;
}

int exports_presence(struct exports *x, const char *name, uint64_t extents, uint32_t ncells,
		     uint8_t *out)
{
	assert_string_equal(name, x->e.name);
	if (extents * (ncells - 1) * STORE_EXTENT >= x->e.length)
		return -ERANGE;
	memset(out, x->present, ncells);
	return 0;
}

void exports_latency(struct exports *x, struct latency_view *out)
{
	(void)x;
	memset(out, 0, sizeof(*out));
	out->origin.bucket[histogram_bucket(9000000)] = out->origin.count = 4;
	out->origin.max_ns = 9000000;
}

int exports_add(struct exports *x, const char *url, const char *name, bool refresh,
		struct export_info *out, struct err *err)
{
	(void)x, (void)url, (void)name, (void)refresh, (void)out;
	return err_set(err, -EIO, "not asked for here");
}

bool exports_forget(struct exports *x, const char *key)
{
	(void)x, (void)key;
	return false;
}

int exports_set_promote(struct exports *x, const char *key, const char *promote, bool fresh,
			struct export_info *out, struct err *err)
{
	(void)x, (void)key, (void)promote, (void)fresh, (void)out;
	return err_set(err, -EIO, "not asked for here");
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
	(void)x, (void)key, (void)on, (void)out;
	return err_set(err, -EIO, "not asked for here");
}

int exports_set_policy(struct exports *x, const char *key, const struct export_policy *policy,
		       struct export_info *out, struct err *err)
{
	(void)x, (void)key, (void)policy, (void)out;
	return err_set(err, -EIO, "not asked for here");
}

void exports_expect_mount(struct exports *x, const char *name)
{
	(void)x, (void)name;
}

int exports_remove(struct exports *x, const char *name, bool force, struct err *err)
{
	(void)x, (void)name, (void)force;
	return err_set(err, -EIO, "not asked for here");
}

int exports_set_device(struct exports *x, const char *name, const char *device, const char *way)
{
	(void)x, (void)name, (void)device, (void)way;
	return 0;
}

void exports_status(struct exports *x, struct worker_status *out)
{
	(void)x;
	memset(out, 0, sizeof(*out));
}

/* ---- a fake supervisor ---- */

int privileged_attach(int fd, struct privileged_device *d, struct err *err)
{
	(void)fd, (void)d;
	return err_set(err, -EIO, "not asked for here");
}

int privileged_detach(int fd, const char *export_name, bool force, struct err *err)
{
	(void)fd, (void)export_name, (void)force;
	return err_set(err, -EIO, "not asked for here");
}

int privileged_upgrade(int fd, uint64_t *next, struct err *err)
{
	(void)fd, (void)next;
	return err_set(err, -EIO, "not asked for here");
}

int privileged_read_ahead(int fd, const char *export_name, uint64_t kb, uint64_t *now,
			  struct err *err)
{
	(void)fd, (void)err;
	assert_string_equal(export_name, "one");
	return fake_read_ahead(kb, now);
}

/* ---- the bed ---- */

static void attach(void)
{
	struct tuner_device d = {table.e.name, table.e.digest, table.e.slot};

	strcpy(table.e.device, "/dev/loop7");
	tuner_attached(api.tuner, &d);
}

static int set_up(void **state)
{
	(void)state;
	fake_view_reset();
	memset(&table, 0, sizeof(table));
	strcpy(table.e.name, "one");
	strcpy(table.e.url, "file:///d/one");
	strcpy(table.e.digest, "sha256:11");
	table.e.length = 1ULL << 30; /* 256 extents */
	table.e.reads_local = (1ULL << 60) + 1;
	scratch_new(dir);
	api = (struct api){.exports = &table, .supervisor_fd = -1};
	pthread_mutex_init(&api.lock, NULL);
	api.tuner = tuner_new((struct view *)&fake, -1, dir);
	return api.tuner ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	tuner_free(api.tuner);
	scratch_free(dir);
	return 0;
}

static char *call(const char *method, const char *path, const char *key, const char *cells,
		  const char *body, unsigned status)
{
	struct api_query q = {.key = key, .cells = cells};
	struct api_reply r;

	api_call(&api, method, path, &q, body, &r);
	if (r.status != status)
		fail_msg("%s %s: %u: %s", method, path, r.status, r.body);
	return r.body;
}

static cJSON *ask(const char *path, const char *key, const char *cells)
{
	char *text = call("GET", path, key, cells, NULL, 200);
	cJSON *o = cJSON_Parse(text);

	assert_non_null(o);
	free(text);
	return o;
}

static void refuses(const char *method, const char *path, const char *key, const char *cells,
		    const char *body, unsigned status, const char *why)
{
	char *text = call(method, path, key, cells, body, status);

	if (!strstr(text, why))
		fail_msg("%s %s: '%s' does not hold '%s'", method, path, text, why);
	free(text);
}

static double number(const cJSON *o, const char *key)
{
	const cJSON *n = cJSON_GetObjectItem(o, key);

	assert_true(cJSON_IsNumber(n));
	return n->valuedouble;
}

static const char *text(const cJSON *o, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItem(o, key));

	assert_non_null(s);
	return s;
}

/* ---- top ---- */

static void top_has_the_hottest_extents_first(void **state)
{
	cJSON *o, *hot;

	(void)state;
	attach();
	for (uint32_t i = 0; i < 256; i++)
		fake.heat[i] = i * 37 % 256; /* each once */
	o = ask("/v1/top", NULL, NULL);
	hot = cJSON_GetObjectItem(cJSON_GetObjectItem(o, "images")->child, "hottest");
	assert_int_equal(cJSON_GetArraySize(hot), 16);
	for (int i = 0; i < 16; i++) {
		const cJSON *h = cJSON_GetArrayItem(hot, i);
		uint64_t extent = (uint64_t)number(h, "off") / STORE_EXTENT;

		assert_int_equal(number(h, "heat"), 255 - i);
		assert_int_equal(extent * 37 % 256, 255 - i);
		assert_int_equal(number(h, "len"), STORE_EXTENT);
	}
	cJSON_Delete(o);
}

static void top_tells_hooks_losses_latency_and_exact_counters(void **state)
{
	char *body;
	cJSON *o, *l;

	(void)state;
	attach();
	body = call("GET", "/v1/top", NULL, NULL, NULL, 200);
	assert_non_null(strstr(body, "1152921504606846977")); /* 2^60 + 1: no double holds it */
	o = cJSON_Parse(body);
	assert_string_equal(text(o, "hooks"), "requests");
	assert_int_equal(number(o, "events_lost"), 3);
	l = cJSON_GetObjectItem(cJSON_GetObjectItem(o, "latency"), "origin");
	assert_int_equal(number(l, "count"), 4);
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(l, "buckets")), 1);
	cJSON_Delete(o);
	free(body);
}

static void top_shows_a_stream_whatever_its_record_holds(void **state)
{
	cJSON *o, *s;

	(void)state;
	attach();
	fake.nstreams = 2;
	fake.streams[0] = (struct observe_window){.verdict = STREAM_STRIDE, .stride = -8192};
	memset(&fake.streams[1], 0xff, sizeof(fake.streams[1])); /* comm without its NUL */
	memset(fake.streams[1].comm, 'x', sizeof(fake.streams[1].comm));
	o = ask("/v1/top", NULL, NULL);
	s = cJSON_GetObjectItem(cJSON_GetObjectItem(o, "images")->child, "streams")->child;
	assert_string_equal(text(s, "verdict"), "stride");
	assert_int_equal(number(s, "stride"), -8192);
	assert_string_equal(text(s->next, "verdict"), "new");
	assert_string_equal(text(s->next, "comm"), "xxxxxxxxxxxxxxxx");
	cJSON_Delete(o);
}

static void top_without_an_observer_says_why_and_has_the_rest(void **state)
{
	cJSON *o;

	(void)state;
	fake.off = true;
	table.e.slot = -ENOTSUP;
	attach();
	o = ask("/v1/top", NULL, NULL);
	assert_string_equal(text(o, "hooks"), "off: this kernel has no BTF");
	assert_null(cJSON_GetObjectItem(cJSON_GetObjectItem(o, "images")->child, "streams"));
	assert_non_null(cJSON_GetObjectItem(o, "latency"));
	cJSON_Delete(o);
}

/* ---- heat ---- */

static double sum(const cJSON *o, const char *key)
{
	const cJSON *n;
	double all = 0;

	cJSON_ArrayForEach (n, cJSON_GetObjectItem(o, key))
		all += n->valuedouble;
	return all;
}

static void heat_is_summed_into_as_few_cells_as_asked(void **state)
{
	static const struct {
		const char *cells;
		int n;
	} asks[] = {{NULL, 256}, {"256", 256}, {"255", 128}, {"100", 86}, {"3", 3}, {"1", 1}};

	(void)state;
	attach();
	table.present = 17;
	for (uint32_t i = 0; i < 256; i++)
		fake.heat[i] = i;
	for (size_t i = 0; i < sizeof(asks) / sizeof(asks[0]); i++) {
		cJSON *o = ask("/v1/exports/one/heat", NULL, asks[i].cells);

		assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(o, "heat")), asks[i].n);
		assert_int_equal(sum(o, "heat"), 255 * 256 / 2);
		assert_int_equal(sum(o, "present"), 17 * asks[i].n);
		cJSON_Delete(o);
	}
}

static void an_image_of_ten_tebibytes_fits_the_default(void **state)
{
	cJSON *o;
	char *body;

	(void)state;
	table.e.length = 10ULL << 40;
	fake.cells = (uint32_t)(table.e.length >> HEAT_EXTENT_SHIFT);
	assert_true(fake.cells <= FAKE_CELLS);
	fake.heat[fake.cells - 1] = 5;
	attach();
	body = call("GET", "/v1/exports/one/heat", NULL, NULL, NULL, 200);
	assert_true(strlen(body) < 100000);
	o = cJSON_Parse(body);
	assert_true(cJSON_GetArraySize(cJSON_GetObjectItem(o, "heat")) <= 4096);
	assert_int_equal(sum(o, "heat"), 5);
	cJSON_Delete(o);
	free(body);
}

static void granules_wider_than_cells_are_shared_out(void **state)
{
	cJSON *o;

	(void)state;
	attach();
	fake.heat_shift = HEAT_EXTENT_SHIFT + 3;
	fake.cells = 32;
	fake.heat[31] = 80;
	o = ask("/v1/exports/one/heat", NULL, NULL);
	assert_int_equal(sum(o, "heat"), 80);
	assert_int_equal(cJSON_GetArrayItem(cJSON_GetObjectItem(o, "heat"), 255)->valuedouble, 10);
	cJSON_Delete(o);
}

static void heat_of_what_is_not_observed_is_presence_alone(void **state)
{
	cJSON *o;

	(void)state;
	table.present = 64;
	table.e.slot = -ENOENT;
	o = ask("/v1/exports/file:///d/one/heat", NULL, "16");
	assert_true(cJSON_IsFalse(cJSON_GetObjectItem(o, "observed")));
	assert_int_equal(sum(o, "heat"), 0);
	assert_int_equal(sum(o, "present"), 16 * 64);
	cJSON_Delete(o);
}

static void an_image_whose_url_ends_in_heat_is_still_found(void **state)
{
	cJSON *o;

	(void)state;
	strcpy(table.e.url, "file:///d/heat");
	o = ask("/v1/exports/file:///d/heat", NULL, NULL);
	assert_string_equal(text(o, "name"), "one");
	assert_non_null(cJSON_GetObjectItem(o, "uri") ? o : cJSON_GetObjectItem(o, "way"));
	cJSON_Delete(o);
	o = ask("/v1/exports/file:///d/heat/heat", NULL, NULL);
	assert_non_null(cJSON_GetObjectItem(o, "heat"));
	cJSON_Delete(o);
}

static void cells_out_of_range_are_refused(void **state)
{
	static const char *const bad[] = {
		"0", "-1", "65537", "x", "4x", "", "99999999999999999999"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refuses("GET", "/v1/exports/one/heat", NULL, bad[i], NULL, 400, "1 to 65536");
	refuses("GET", "/v1/exports/two/heat", NULL, NULL, NULL, 404, "two");
}

/* ---- tune ---- */

static void tune_sets_and_tells(void **state)
{
	cJSON *o, *keys;

	(void)state;
	attach();
	free(call("PATCH", "/v1/tune", "/dev/loop7", NULL,
		  "{\"set\":{\"half_life\":5,\"enable\":\"false\",\"read_ahead_kb\":256}}", 200));
	assert_int_equal(fake.policy[0].half_life_ms, 5000);
	assert_int_equal(fake.policy[0].flags, POLICY_SET | POLICY_DISABLED);
	assert_int_equal(fake.read_ahead, 256);
	o = ask("/v1/tune", NULL, NULL);
	keys = cJSON_GetObjectItem(cJSON_GetObjectItem(o, "subjects")->child, "keys");
	assert_int_equal(number(cJSON_GetObjectItem(keys, "half_life"), "value"), 5);
	assert_string_equal(text(cJSON_GetObjectItem(keys, "half_life"), "from"), "set");
	assert_string_equal(text(cJSON_GetObjectItem(keys, "min_run"), "from"), "default");
	cJSON_Delete(o);
}

static void a_bad_key_or_value_changes_nothing(void **state)
{
	(void)state;
	attach();
	refuses("PATCH", "/v1/tune", "one", NULL, "{\"set\":{\"min_run\":9,\"halflife\":5}}", 400,
		"there are enable, half_life");
	refuses("PATCH", "/v1/tune", "one", NULL, "{\"set\":{\"min_run\":9,\"half_life\":0}}", 400,
		"1 to 86400 seconds");
	refuses("PATCH", "/v1/tune", "one", NULL, "{\"min_run\":9}", 400, "\\\"set\\\"");
	refuses("PATCH", "/v1/tune", "one", NULL, "{\"set\":{},\"save\":3}", 400, "true or false");
	refuses("PATCH", "/v1/tune", "one", NULL, "nonsense", 400, "JSON object");
	refuses("PATCH", "/v1/tune", NULL, NULL, "{\"set\":{}}", 400, "must name");
	refuses("PATCH", "/v1/tune", "two", NULL, "{\"set\":{}}", 404, "two");
	refuses("PATCH", "/v1/tune", "/no/such/cgroup", NULL, "{\"set\":{}}", 400, "is no cgroup");
	refuses("DELETE", "/v1/tune", "one", NULL, NULL, 405, "method");
	assert_int_equal(fake.policy[0].flags, 0);
}

static void tuning_what_has_no_device_is_refused(void **state)
{
	(void)state;
	refuses("PATCH", "/v1/tune", "one", NULL, "{\"set\":{\"min_run\":9}}", 404,
		"without a device");
	refuses("GET", "/v1/tune", "one", NULL, NULL, 404, "without a device");
}

static void tuning_without_an_observer_says_why(void **state)
{
	(void)state;
	fake.off = true;
	table.e.slot = -ENOTSUP;
	attach();
	refuses("PATCH", "/v1/tune", "one", NULL, "{\"set\":{\"min_run\":9}}", 501,
		"off: this kernel has no BTF");
	free(call("PATCH", "/v1/tune", "one", NULL, "{\"set\":{\"read_ahead_kb\":9}}", 200));
	assert_int_equal(fake.read_ahead, 9);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(top_has_the_hottest_extents_first),
		T(top_tells_hooks_losses_latency_and_exact_counters),
		T(top_shows_a_stream_whatever_its_record_holds),
		T(top_without_an_observer_says_why_and_has_the_rest),
		T(heat_is_summed_into_as_few_cells_as_asked),
		T(an_image_of_ten_tebibytes_fits_the_default),
		T(granules_wider_than_cells_are_shared_out),
		T(heat_of_what_is_not_observed_is_presence_alone),
		T(an_image_whose_url_ends_in_heat_is_still_found),
		T(cells_out_of_range_are_refused),
		T(tune_sets_and_tells),
		T(a_bad_key_or_value_changes_nothing),
		T(tuning_what_has_no_device_is_refused),
		T(tuning_without_an_observer_says_why),
	};

	return cmocka_run_group_tests_name("control_observe", tests, NULL, NULL);
}
