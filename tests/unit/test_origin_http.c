/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "bad_server.h"
#include "origin/origin.h"

#define BLOB_LEN 100000U

static uint8_t blob[BLOB_LEN], dst[BLOB_LEN];

struct bed {
	struct bad_server server;
	struct loop *loop;
	struct origin_client *client;
	struct origin *origin;
	struct err err;
};

static int bed_up(void **state)
{
	struct origin_config cfg = {.deadline_ms = 20000};
	struct bed *b = calloc(1, sizeof(*b));
	char url[128], name[ORIGIN_NAME_MAX + 1];

	for (size_t i = 0; i < BLOB_LEN; i++)
		blob[i] = (uint8_t)(i * 2654435761U >> 13);
	bad_server_start(&b->server, blob, BLOB_LEN);
	b->loop = loop_new(LOOP_AUTO, &b->err);
	b->client = origin_client_new(b->loop, &cfg, &b->err);
	assert_non_null(b->client);
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/some%%2Fdir/a%%20b.img?token=SECRET",
		 b->server.port);
	assert_int_equal(origin_open(url, &cfg, &b->origin, name, &b->err), 0);
	assert_string_equal(name, "a b.img");
	*state = b;
	return 0;
}

static int bed_down(void **state)
{
	struct bed *b = *state;

	origin_unref(b->origin);
	origin_client_free(b->client);
	loop_free(b->loop);
	bad_server_stop(&b->server);
	free(b);
	return 0;
}

#define script(b, ...)                                                                             \
	do {                                                                                       \
		static const enum act acts_[] = {__VA_ARGS__};                                     \
		(b)->server.script = acts_;                                                        \
		(b)->server.nscript = sizeof(acts_) / sizeof(*acts_);                              \
	} while (0)

static int pread_of(struct bed *b, const char *etag, uint64_t off, uint32_t len)
{
	return origin_pread(b->client, b->origin, "a b.img", etag, off, len, dst, &b->err);
}

static void assert_told(struct bed *b, const char *text)
{
	if (!strstr(b->err.text, text))
		fail_msg("\"%s\" does not say \"%s\"", b->err.text, text);
	assert_non_null(strstr(b->err.text, "/some%2Fdir/a%20b.img"));
	assert_null(strstr(b->err.text, "SECRET"));
}

static void a_range_is_read_with_path_and_query_as_written(void **state)
{
	struct bed *b = *state;
	uint64_t bytes = origin_counters.get_bytes, gets = origin_counters.get_requests;

	assert_int_equal(pread_of(b, "\"one\"", 500, 3000), 0);
	assert_memory_equal(dst, blob + 500, 3000);
	assert_non_null(strstr(b->server.last, "GET /some%2Fdir/a%20b.img?token=SECRET HTTP/1.1"));
	assert_non_null(strstr(b->server.last, "Range: bytes=500-3499\r\n"));
	assert_non_null(strstr(b->server.last, "If-Match: \"one\"\r\n"));
	assert_int_equal(origin_counters.get_bytes - bytes, 3000);
	assert_int_equal(origin_counters.get_requests - gets, 1);
}

static void a_server_without_etags_serves(void **state)
{
	struct bed *b = *state;
	struct origin_stat st;

	script(b, NO_ETAG, NO_ETAG);
	assert_int_equal(origin_stat(b->client, b->origin, "a b.img", &st, &b->err), 0);
	assert_int_equal(st.length, BLOB_LEN);
	assert_string_equal(st.etag, "");
	assert_int_equal(pread_of(b, NULL, 0, 10), 0);
}

static void a_server_that_refuses_head_is_asked_for_a_byte(void **state)
{
	struct bed *b = *state;
	struct origin_stat st;

	script(b, HEAD_REFUSED);
	assert_int_equal(origin_stat(b->client, b->origin, "a b.img", &st, &b->err), 0);
	assert_int_equal(st.length, BLOB_LEN);
	assert_string_equal(st.etag, "\"one\"");
	assert_int_equal(b->server.requests, 2);
}

static void the_shown_url_has_no_secret(void **state)
{
	struct bed *b = *state;
	char url[256];

	origin_url(b->origin, "x/y z", url, sizeof(url));
	assert_non_null(strstr(url, "/some%2Fdir/x/y%20z?token=***"));
	assert_string_equal(origin_kind(b->origin), "http");
	assert_false(origin_is_writable(b->origin));
}

static void errors_name_the_file_and_the_remedy(void **state)
{
	struct bed *b = *state;

	script(b, STATUS + 404, STATUS + 403, STATUS + 412, WHOLE_FOR_RANGE);
	assert_int_equal(pread_of(b, NULL, 0, 10), -ENOENT);
	assert_told(b, "no such file");
	assert_int_equal(pread_of(b, NULL, 0, 10), -EACCES);
	assert_told(b, "check user, password or token");
	assert_int_equal(pread_of(b, "\"x\"", 0, 10), -ESTALE);
	assert_told(b, "publish it again");
	assert_int_equal(pread_of(b, NULL, 7, 10), -EIO);
	assert_told(b, "ignores ranges");
	assert_int_equal(pread_of(b, NULL, BLOB_LEN - 1, 10), -ERANGE);
	assert_told(b, "ends before byte 100009");
}

static void an_unchanged_file_need_not_be_got_again(void **state)
{
	struct bed *b = *state;
	char *buf, etag[ORIGIN_ETAG_MAX];
	size_t len;

	script(b, GOOD, STATUS + 304);
	assert_int_equal(origin_get(b->client, b->origin, "a b.img", BLOB_LEN, NULL, &buf, &len,
				    etag, &b->err),
			 0);
	assert_int_equal(len, BLOB_LEN);
	assert_string_equal(etag, "\"one\"");
	free(buf);
	assert_int_equal(origin_get(b->client, b->origin, "a b.img", BLOB_LEN, etag, &buf, &len,
				    NULL, &b->err),
			 -EALREADY);
}

static void nothing_is_written(void **state)
{
	struct bed *b = *state;

	assert_int_equal(origin_put(b->client, b->origin, "a b.img", "x", 1, false, &b->err),
			 -EROFS);
	assert_told(b, "az:// or file://");
	assert_int_equal(b->server.requests, 0);
}

struct seen_read {
	struct origin_read read;
	int done, rc;
};

static void on_done(struct origin_read *r, int rc)
{
	((struct seen_read *)r)->done++;
	((struct seen_read *)r)->rc = rc;
}

static void a_read_under_way_can_be_canceled(void **state)
{
	struct bed *b = *state;
	struct seen_read s = {.read = {.origin = b->origin,
				       .name = "a b.img",
				       .len = 4,
				       .dst = dst,
				       .done = on_done}};

	script(b, STALL);
	origin_read_submit(b->client, &s.read);
	while (!b->server.requests)
		loop_run_once(b->loop, 10);
	origin_read_cancel(b->client, &s.read);
	assert_int_equal(s.done, 0);
	while (!s.done)
		loop_run_once(b->loop, 1000);
	assert_int_equal(s.rc, -ECANCELED);
	assert_int_equal(pread_of(b, NULL, 0, 10), 0);
}

#define bed_test(f) cmocka_unit_test_setup_teardown(f, bed_up, bed_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(a_range_is_read_with_path_and_query_as_written),
		bed_test(a_server_without_etags_serves),
		bed_test(a_server_that_refuses_head_is_asked_for_a_byte),
		bed_test(the_shown_url_has_no_secret),
		bed_test(errors_name_the_file_and_the_remedy),
		bed_test(an_unchanged_file_need_not_be_got_again),
		bed_test(nothing_is_written),
		bed_test(a_read_under_way_can_be_canceled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
