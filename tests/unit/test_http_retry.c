/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/clock.h"
#include "bad_server.h"
#include "origin/http.h"

#define BLOB_LEN (300U << 10)

#define STALL_MS 150

static uint8_t blob[BLOB_LEN], dst[BLOB_LEN];
static uint32_t stall_ms; /* of the jobs of this test; 0 = long */
static int started;	  /* attempts, to see their order */

struct bed {
	struct bad_server server;
	struct loop *loop;
	struct http_client *client;
	char url[128];
};

static int bed_up(void **state)
{
	struct http_options opt = {
		.connections = 2, .connect_timeout_ms = 1000, .stall_timeout_ms = 10000};
	struct bed *b = calloc(1, sizeof(*b));
	struct err err;

	for (size_t i = 0; i < BLOB_LEN; i++)
		blob[i] = (uint8_t)(i * 2654435761U >> 13);
	memset(dst, 0, sizeof(dst));
	stall_ms = 0;
	started = 0;
	bad_server_start(&b->server, blob, BLOB_LEN);
	b->loop = loop_new(LOOP_AUTO, &err);
	assert_non_null(b->loop);
	b->client = http_client_new(b->loop, &opt, &err);
	assert_non_null(b->client);
	http_client_set_backoff(b->client, 10, 40);
	snprintf(b->url, sizeof(b->url), "http://127.0.0.1:%u/blob", b->server.port);
	*state = b;
	return 0;
}

static int bed_down(void **state)
{
	struct bed *b = *state;

	http_client_free(b->client);
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

/* A request and what its callbacks saw. */
struct job {
	struct http_request http;
	uint32_t progress;
	int prepared, done, rc, place;
};

static int job_prepare(struct http_request *r)
{
	((struct job *)r)->prepared++;
	((struct job *)r)->place = started++;
	return http_request_header(r, "x-attempt: %d", ((struct job *)r)->prepared);
}

static void job_progress(struct http_request *r, uint32_t got)
{
	struct job *j = (struct job *)r;

	assert_true(got > j->progress);
	assert_memory_equal(r->dst + j->progress, blob + r->off + j->progress, got - j->progress);
	j->progress = got;
}

static void job_done(struct http_request *r, int rc)
{
	struct job *j = (struct job *)r;

	j->rc = rc;
	j->done++;
}

static struct job range_job(struct bed *b, uint64_t off, uint32_t len)
{
	struct job j = {.http = {.method = HTTP_GET,
				 .url = b->url,
				 .range_header = "Range",
				 .off = off,
				 .len = len,
				 .dst = dst,
				 .prepare = job_prepare,
				 .progress = job_progress,
				 .done = job_done,
				 .stall_timeout_ms = stall_ms,
				 .deadline_ns = clock_now_ns() + 30 * NSEC_PER_SEC}};

	return j;
}

static int finish(struct bed *b, struct job *j)
{
	while (!j->done)
		loop_run_once(b->loop, 1000);
	assert_int_equal(j->done, 1);
	return j->rc;
}

static int run(struct bed *b, struct job *j)
{
	http_submit(b->client, &j->http);
	assert_int_equal(j->done, 0);
	return finish(b, j);
}

static void assert_read(struct bed *b, uint64_t off, uint32_t len, uint32_t attempts)
{
	struct job j = range_job(b, off, len);
	int rc = run(b, &j);

	if (rc)
		print_error("%s\n", j.http.cause);
	assert_int_equal(rc, 0);
	assert_memory_equal(dst, blob + off, len);
	if (stall_ms) /* a busy machine stalls by itself */
		assert_true(j.http.attempts >= attempts);
	else
		assert_int_equal(j.http.attempts, attempts);
	assert_int_equal(j.prepared, j.http.attempts);
	assert_int_equal(j.progress, len);
	assert_string_equal(j.http.answer.etag, "\"one\"");
}

static void assert_fails(struct bed *b, struct job *j, int rc, const char *cause)
{
	assert_int_equal(run(b, j), rc);
	if (!strstr(j->http.cause, cause))
		fail_msg("\"%s\" does not say \"%s\"", j->http.cause, cause);
}

static void a_range_is_read_and_the_connection_reused(void **state)
{
	struct bed *b = *state;

	assert_read(b, 0, BLOB_LEN, 1);
	assert_read(b, 12345, 4096, 1);
	assert_read(b, BLOB_LEN - 1, 1, 1);
	assert_int_equal(b->server.connections, 1);
}

static void a_transient_status_is_tried_again(void **state)
{
	struct bed *b = *state;

	script(b, STATUS + 408, STATUS + 429, STATUS + 500, STATUS + 502, STATUS + 503,
	       STATUS + 504);
	assert_read(b, 1000, 5000, 7);
}

static void a_reset_or_a_hang_up_is_tried_again(void **state)
{
	struct bed *b = *state;

	script(b, RESET, HANG_UP, GOOD);
	assert_read(b, 0, 5000, 3);
}

static void what_is_not_http_is_refused(void **state)
{
	struct bed *b = *state;
	struct job j = range_job(b, 0, 10);

	script(b, GARBAGE);
	assert_fails(b, &j, -EIO, "HTTP");
}

static void a_body_that_ends_early_is_resumed_where_it_stopped(void **state)
{
	struct bed *b = *state;

	script(b, SHORT_BODY, RESET_BODY, SHORT_RANGE, GOOD);
	assert_read(b, 1024, 200000, 4);
	assert_non_null(strstr(b->server.last, "Range: bytes=176024-201023\r\n"));
	assert_non_null(
		strstr(b->server.last, "If-Match: \"one\"\r\n")); /* though none was asked for */
}

static void a_stall_is_cut_and_resumed(void **state)
{
	struct bed *b = *state;
	uint64_t begin = clock_now_ns();

	stall_ms = STALL_MS;
	script(b, STALL, STALL_BODY);
	assert_read(b, 0, 8192, 3);
	assert_true(clock_now_ns() - begin >= 2 * STALL_MS * NSEC_PER_MSEC);
}

static void retry_after_is_waited_for(void **state)
{
	struct bed *b = *state;
	uint64_t begin = clock_now_ns();

	b->server.extra = "Retry-After: 1\r\n";
	script(b, STATUS + 503);
	assert_read(b, 0, 100, 2);
	assert_true(clock_now_ns() - begin >= 1 * NSEC_PER_SEC);
}

static void a_retry_after_beyond_the_deadline_ends_at_once(void **state)
{
	struct bed *b = *state;
	struct job j = range_job(b, 0, 10);
	uint64_t begin = clock_now_ns();

	b->server.extra = "Retry-After: 60\r\n";
	b->server.error_code = "ServerBusy";
	script(b, STATUS + 503);
	assert_fails(b, &j, -ETIMEDOUT, "HTTP 503 ServerBusy, asks to wait 60 s");
	assert_true(clock_now_ns() - begin < 15 * NSEC_PER_SEC);
}

static void the_deadline_holds_and_the_cause_is_told(void **state)
{
	struct bed *b = *state;
	struct job j;

	stall_ms = STALL_MS;
	j = range_job(b, 0, 10);
	script(b, STALL, STALL, STALL, STALL, STALL, STALL, STALL, STALL);
	j.http.deadline_ns = clock_now_ns() + 600 * NSEC_PER_MSEC;
	assert_fails(b, &j, -ETIMEDOUT, "no byte for 0.1");
	assert_true(clock_now_ns() < j.http.deadline_ns + 5 * NSEC_PER_SEC);
}

static void no_server_is_waited_for_until_the_deadline(void **state)
{
	struct bed *b = *state;
	struct job j = range_job(b, 0, 10);

	j.http.url = "http://127.0.0.1:1/blob";
	j.http.deadline_ns = clock_now_ns() + 200 * NSEC_PER_MSEC;
	assert_fails(b, &j, -ETIMEDOUT, "refused");
	assert_true(j.http.attempts > 2);
}

static void the_whole_blob_for_a_part_is_refused(void **state)
{
	struct bed *b = *state;
	struct job tail = range_job(b, 100, 50), head = range_job(b, 0, 50);

	script(b, WHOLE_FOR_RANGE, WHOLE_FOR_RANGE);
	assert_fails(b, &tail, -EIO, "ignores ranges");
	assert_fails(b, &head, -EIO, "ignores ranges");
	assert_int_equal(tail.progress + head.progress, 0);
}

static void the_whole_blob_for_all_of_it_is_taken(void **state)
{
	struct bed *b = *state;

	script(b, WHOLE_FOR_RANGE);
	assert_read(b, 0, BLOB_LEN, 1);
}

static void a_range_of_other_bytes_is_refused(void **state)
{
	struct bed *b = *state;
	struct job wrong = range_job(b, 100, 50), none = range_job(b, 100, 50);

	script(b, WRONG_RANGE, NO_RANGE);
	assert_fails(b, &wrong, -EIO, "wrong Content-Range: asked for 100-149, got 101-150");
	assert_fails(b, &none, -EIO, "wrong Content-Range");
	assert_int_equal(wrong.progress + none.progress, 0);
}

static void a_body_longer_than_asked_is_refused(void **state)
{
	struct bed *b = *state;
	struct job j = range_job(b, 0, 5000);

	script(b, LONG_BODY);
	assert_fails(b, &j, -EIO, "more than the 5000 bytes");
}

static void final_statuses_are_not_tried_again(void **state)
{
	struct bed *b = *state;
	static const struct {
		int status, rc;
	} cases[] = {{400, -EIO},    {401, -EACCES}, {403, -EACCES}, {404, -ENOENT},
		     {409, -EEXIST}, {412, -ESTALE}, {416, -ERANGE}, {501, -EIO}};

	b->server.error_code = "BlobNotFound";
	script(b, STATUS + 400, STATUS + 401, STATUS + 403, STATUS + 404, STATUS + 409,
	       STATUS + 412, STATUS + 416, STATUS + 501);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct job j = range_job(b, 0, 10);

		assert_fails(b, &j, cases[i].rc, "BlobNotFound");
		assert_int_equal(j.http.attempts, 1);
		assert_int_equal(j.http.answer.status, cases[i].status);
		assert_string_equal(j.http.answer.body, "sorry");
	}
}

static void a_range_behind_the_end_is_out_of_range(void **state)
{
	struct bed *b = *state;
	struct job over = range_job(b, BLOB_LEN - 10, 20), behind = range_job(b, BLOB_LEN, 20);

	assert_fails(b, &over, -ERANGE, "has only 307200 bytes");
	assert_fails(b, &behind, -ERANGE, "416");
}

static void if_match_is_sent_and_checked(void **state)
{
	struct bed *b = *state;
	struct job j = range_job(b, 0, 10), changed = range_job(b, 0, 10),
		   weak = range_job(b, 0, 10);

	script(b, GOOD, CHANGED, GOOD);
	j.http.if_match = changed.http.if_match = "\"one\"";
	weak.http.if_match = "W/\"one\"";
	assert_int_equal(run(b, &j), 0);
	assert_non_null(strstr(b->server.last, "If-Match: \"one\"\r\n"));
	assert_fails(b, &changed, -ESTALE, "\"two\"");
	assert_int_equal(run(b, &weak), 0); /* a weak one never matches: compared, not sent */
	assert_null(strstr(b->server.last, "If-Match"));
}

static void a_blob_that_changes_between_attempts_is_not_mixed(void **state)
{
	struct bed *b = *state;
	struct job j = range_job(b, 0, 10000);

	script(b, SHORT_BODY, CHANGED);
	assert_fails(b, &j, -ESTALE, "\"two\"");
}

static void the_answers_headers_are_bounded(void **state)
{
	struct bed *b = *state;
	struct job j = range_job(b, 0, 10);

	script(b, HUGE_HEADERS);
	assert_fails(b, &j, -EIO, "headers are over");
}

static void a_header_that_would_smuggle_is_refused(void **state)
{
	struct bed *b = *state;
	struct job j = range_job(b, 0, 10);

	j.http.if_match = "\"x\"\r\nHost: evil";
	assert_int_equal(run(b, &j), -EINVAL);
	assert_int_equal(b->server.requests, 0);
}

static void requests_beyond_the_limit_wait_in_order(void **state)
{
	struct bed *b = *state;
	static struct job jobs[7];

	b->server.delay_ms = 20;
	for (int i = 0; i < 7; i++) {
		jobs[i] = range_job(b, (uint64_t)i * 100, 100);
		jobs[i].http.dst = dst + i * 100;
		http_submit(b->client, &jobs[i].http);
	}
	for (int i = 0; i < 7; i++) {
		assert_int_equal(finish(b, &jobs[i]), 0);
		assert_int_equal(jobs[i].place, i);
	}
	assert_memory_equal(dst, blob, 700);
	assert_true(b->server.most_serving <= 2);
}

static void a_busy_origin_is_asked_less_at_once(void **state)
{
	struct http_options opt = {
		.connections = 8, .connect_timeout_ms = 1000, .stall_timeout_ms = 10000};
	struct bed *b = *state;
	struct job busy = range_job(b, 0, 10), more[8];
	struct window window = {0};
	struct err err;

	http_client_free(b->client);
	b->client = http_client_new(b->loop, &opt, &err);
	assert_non_null(b->client);
	http_client_set_backoff(b->client, 300, 300);
	script(b, STATUS + 503);
	busy.http.window = &window;
	http_submit(b->client, &busy.http);
	while (!busy.http.retry_ns)
		loop_run_once(b->loop, 10);
	b->server.delay_ms = 50;
	b->server.most_serving = 0;
	for (int i = 0; i < 8; i++) {
		more[i] = range_job(b, 0, 10);
		more[i].http.window = &window;
		http_submit(b->client, &more[i].http);
	}
	for (int i = 0; i < 8; i++)
		assert_int_equal(finish(b, &more[i]), 0);
	assert_int_equal(finish(b, &busy), 0);
	assert_true(b->server.most_serving <= 5); /* 4, and one after as many good answers */
}

static void a_busy_origin_holds_up_no_other(void **state)
{
	struct bed *b = *state;
	struct window full = {.most = 2, .limit = 1, .active = 1}, another = {0};
	struct job held = range_job(b, 0, 10), other = range_job(b, 0, 10);
	struct drr_flow flow[2];

	for (int i = 0; i < 2; i++)
		drr_flow_init(&flow[i], DRR_DEMAND);
	held.http.window = &full;
	held.http.flow = &flow[0];
	other.http.window = &another;
	other.http.flow = &flow[1];
	http_submit(b->client, &held.http);
	assert_int_equal(run(b, &other), 0);
	assert_int_equal(held.http.attempts, 0);
	full.active = 0;
	assert_read(b, 0, 10, 1);
	assert_int_equal(finish(b, &held), 0);
}

static void a_request_can_be_canceled_in_every_state(void **state)
{
	struct bed *b = *state;
	struct job active = range_job(b, 0, 10), also = range_job(b, 0, 10),
		   queued = range_job(b, 0, 10);
	struct job waiting = range_job(b, 0, 10);

	script(b, STALL, STALL, STATUS + 503);
	http_submit(b->client, &active.http);
	http_submit(b->client, &also.http);
	http_submit(b->client, &queued.http);
	while (b->server.requests < 2)
		loop_run_once(b->loop, 10);
	http_cancel(&queued.http);
	http_cancel(&active.http);
	http_cancel(&also.http);
	assert_int_equal(active.done + also.done + queued.done, 0);
	assert_int_equal(finish(b, &queued), -ECANCELED);
	assert_int_equal(finish(b, &active), -ECANCELED);
	assert_int_equal(finish(b, &also), -ECANCELED);
	http_client_set_backoff(b->client, 2000, 2000);
	http_submit(b->client, &waiting.http);
	while (!waiting.http.retry_ns)
		loop_run_once(b->loop, 10);
	http_cancel(&waiting.http);
	assert_int_equal(finish(b, &waiting), -ECANCELED);
	assert_read(b, 0, 100, 1);
}

static struct job again;
static struct bed *again_bed;

static void resubmit(struct http_request *r, int rc)
{
	job_done(r, rc);
	http_submit(again_bed->client, &again.http);
}

static void done_may_submit_again(void **state)
{
	struct bed *b = *state;
	struct job j = range_job(b, 0, 10);

	again_bed = b;
	again = range_job(b, 50, 10);
	j.http.done = resubmit;
	assert_int_equal(run(b, &j), 0);
	assert_int_equal(finish(b, &again), 0);
}

static struct job whole_job(struct bed *b, size_t limit)
{
	struct job j = range_job(b, 0, 0);

	j.http.range_header = NULL;
	j.http.progress = NULL;
	j.http.limit = limit;
	return j;
}

static void a_whole_blob_is_read_over_retries(void **state)
{
	struct bed *b = *state;
	struct job j = whole_job(b, BLOB_LEN);

	script(b, SHORT_BODY, STATUS + 503, GOOD);
	assert_int_equal(run(b, &j), 0);
	assert_int_equal(j.http.buf_len, BLOB_LEN);
	assert_memory_equal(j.http.buf, blob, BLOB_LEN);
	assert_int_equal(j.http.buf[BLOB_LEN], 0);
	free(j.http.buf);
}

static void a_whole_blob_over_the_limit_is_refused(void **state)
{
	struct bed *b = *state;
	struct job told = whole_job(b, BLOB_LEN - 1), untold = whole_job(b, BLOB_LEN - 1);

	assert_fails(b, &told, -EFBIG, "307200 bytes");
	script(b, GOOD, LONG_BODY);
	assert_fails(b, &untold, -EFBIG, "more than");
}

static void not_modified_is_told(void **state)
{
	struct bed *b = *state;
	struct job j = whole_job(b, BLOB_LEN);

	script(b, STATUS + 304);
	j.http.if_none_match = "\"one\"";
	assert_fails(b, &j, -EALREADY, "304");
	assert_non_null(strstr(b->server.last, "If-None-Match: \"one\"\r\n"));
}

static void a_put_sends_its_body_again_on_each_attempt(void **state)
{
	struct bed *b = *state;
	struct job j = {.http = {.method = HTTP_PUT,
				 .url = b->url,
				 .body = blob,
				 .body_len = 3000,
				 .prepare = job_prepare,
				 .done = job_done}};

	script(b, STATUS + 503, RESET, GOOD);
	assert_int_equal(run(b, &j), 0);
	assert_int_equal(b->server.requests,
			 3); /* of which libcurl may do one for a dead connection */
	assert_int_equal(b->server.put_len, 3000);
	assert_memory_equal(b->server.put, blob, 3000);
	assert_string_equal(j.http.answer.etag, "\"new\"");
	assert_null(strstr(b->server.last, "Expect"));
}

static void a_head_tells_length_and_etag(void **state)
{
	struct bed *b = *state;
	struct job j = {.http = {.method = HTTP_HEAD, .url = b->url, .done = job_done}};

	script(b, STATUS + 500, GOOD);
	assert_int_equal(run(b, &j), 0);
	assert_int_equal(j.http.answer.length, BLOB_LEN);
	assert_string_equal(j.http.answer.etag, "\"one\"");
}

static void redirects_are_followed_only_where_allowed_and_take_no_password_along(void **state)
{
	struct bed *b = *state;
	struct job no = range_job(b, 0, 10), yes = range_job(b, 0, 10);
	struct bad_server other;
	char elsewhere[64];

	bad_server_start(&other, blob, BLOB_LEN);
	snprintf(elsewhere, sizeof(elsewhere), "http://localhost:%u/x", other.port);
	b->server.redirect = elsewhere;
	script(b, REDIRECT, REDIRECT);
	assert_fails(b, &no, -EIO, "302");
	yes.http.max_redirects = 5;
	yes.http.userpwd = "me:secret";
	assert_int_equal(run(b, &yes), 0);
	assert_non_null(strstr(b->server.last, "Authorization: Basic"));
	assert_null(strstr(other.last, "Authorization"));
	assert_non_null(strstr(other.last, "Range: bytes=0-9"));
	bad_server_stop(&other);
}

static void retry_after_takes_seconds_and_dates(void **state)
{
	struct http_answer a;
	static const struct {
		const char *line;
		uint32_t ms;
	} cases[] = {
		{"Retry-After: 7\r\n", 7000},
		{"retry-after:0\r\n", 0},
		{"Retry-After: Sun, 06 Nov 1994 08:49:40 GMT\r\n", 3000},
		{"Retry-After: Sun, 06 Nov 1994 08:49:30 GMT\r\n", 0},
		{"Retry-After: soon\r\n", 0},
		{"Retry-After: -5\r\n", 0},
		{"Retry-After: 99999999999\r\n", 86400000},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		http_answer_reset(&a);
		http_answer_header(&a, cases[i].line, strlen(cases[i].line), 784111777);
		assert_int_equal(a.retry_after_ms, cases[i].ms);
	}
}

static void a_retry_after_date_is_one_of_the_servers_clock(void **state)
{
	static const char after[] = "Retry-After: Sun, 06 Nov 1994 08:49:40 GMT\r\n";
	static const char date[] = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
	struct http_answer a;

	(void)state;
	for (int first = 0; first < 2; first++) {
		http_answer_reset(&a); /* our own clock is a day behind, then ahead */
		http_answer_header(&a, first ? after : date, strlen(first ? after : date),
				   784111777 - 86400);
		http_answer_header(&a, first ? date : after, strlen(first ? date : after),
				   784111777 + 86400);
		assert_int_equal(a.retry_after_ms, 3000);
	}
}

static void backoff_doubles_is_bounded_and_jittered(void **state)
{
	(void)state;
	assert_int_equal(http_backoff_ms(800, 20000, 0, 512), 800);
	assert_int_equal(http_backoff_ms(800, 20000, 2, 512), 3200);
	assert_int_equal(http_backoff_ms(800, 20000, 0, 0), 400);
	assert_in_range(http_backoff_ms(800, 20000, 0, 1023), 1190, 1200);
	assert_int_equal(http_backoff_ms(800, 20000, 1000, 512), 20000);
}

#define bed_test(f) cmocka_unit_test_setup_teardown(f, bed_up, bed_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(a_range_is_read_and_the_connection_reused),
		bed_test(a_transient_status_is_tried_again),
		bed_test(a_reset_or_a_hang_up_is_tried_again),
		bed_test(what_is_not_http_is_refused),
		bed_test(a_body_that_ends_early_is_resumed_where_it_stopped),
		bed_test(a_stall_is_cut_and_resumed),
		bed_test(retry_after_is_waited_for),
		bed_test(a_retry_after_beyond_the_deadline_ends_at_once),
		bed_test(the_deadline_holds_and_the_cause_is_told),
		bed_test(no_server_is_waited_for_until_the_deadline),
		bed_test(the_whole_blob_for_a_part_is_refused),
		bed_test(the_whole_blob_for_all_of_it_is_taken),
		bed_test(a_range_of_other_bytes_is_refused),
		bed_test(a_body_longer_than_asked_is_refused),
		bed_test(final_statuses_are_not_tried_again),
		bed_test(a_range_behind_the_end_is_out_of_range),
		bed_test(if_match_is_sent_and_checked),
		bed_test(a_blob_that_changes_between_attempts_is_not_mixed),
		bed_test(the_answers_headers_are_bounded),
		bed_test(a_header_that_would_smuggle_is_refused),
		bed_test(requests_beyond_the_limit_wait_in_order),
		bed_test(a_busy_origin_is_asked_less_at_once),
		bed_test(a_busy_origin_holds_up_no_other),
		bed_test(a_request_can_be_canceled_in_every_state),
		bed_test(done_may_submit_again),
		bed_test(a_whole_blob_is_read_over_retries),
		bed_test(a_whole_blob_over_the_limit_is_refused),
		bed_test(not_modified_is_told),
		bed_test(a_put_sends_its_body_again_on_each_attempt),
		bed_test(a_head_tells_length_and_etag),
		bed_test(redirects_are_followed_only_where_allowed_and_take_no_password_along),
		cmocka_unit_test(retry_after_takes_seconds_and_dates),
		cmocka_unit_test(a_retry_after_date_is_one_of_the_servers_clock),
		cmocka_unit_test(backoff_doubles_is_bounded_and_jittered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
