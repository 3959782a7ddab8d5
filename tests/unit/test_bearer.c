/* SPDX-License-Identifier: Apache-2.0 */
/* Reads of Blob with an identity's token. The origin is made by hand, since one over plain http is
 * refused an identity. */
#include <errno.h>

#include "base/clock.h"
#include "origin/origin_impl.h"
#include "origin/token.h"
#include "token_bed.h"

#define BLOB_LEN 100000U

static struct bad_server blob, imds;
static struct origin origin;
static struct loop *loop;
static struct origin_client *client;
static uint8_t bytes[BLOB_LEN], dst[BLOB_LEN];

static int bed_up(void **state)
{
	static const struct origin_config cfg = {.connections = 4, .stall_timeout_ms = 2000};
	struct identity id;
	struct err err;

	(void)state;
	for (size_t i = 0; i < BLOB_LEN; i++)
		bytes[i] = (uint8_t)(i * 2654435761U >> 13);
	bad_server_start(&blob, bytes, BLOB_LEN);
	bad_server_start(&imds, NULL, 0);
	server_answers(&imds, "{\"access_token\":\"tok1\",\"expires_in\":3600,"
			      "\"client_id\":\"ab-12\"}");
	clear_environment();
	set_hosts(&imds);
	memset(&origin, 0, sizeof(origin));
	origin.ops = &azure_origin_ops;
	origin.refs = 1;
	origin.url.kind = URL_AZURE;
	strcpy(origin.url.account, "acct");
	strcpy(origin.url.container, "box");
	snprintf(origin.url.base, sizeof(origin.url.base), "http://127.0.0.1:%u/acct", blob.port);
	strcpy(origin.api_version, "2021-12-02");
	strcpy(origin.cred.why, "no key and no SAS is set; ");
	assert_int_equal(identity_init(&id, IDENTITY_MANAGED, NULL, NULL, &err), 0);
	origin.token = token_source_new(&id, &token_limits, &err);
	loop = loop_new(LOOP_AUTO, &err);
	client = origin_client_new(loop, &cfg, &err);
	assert_non_null(client);
	return 0;
}

static int bed_down(void **state)
{
	(void)state;
	origin_client_free(client);
	loop_free(loop);
	token_source_free(origin.token);
	bad_server_stop(&imds);
	bad_server_stop(&blob);
	return 0;
}

struct job {
	struct origin_read read;
	uint32_t progress;
	int done, rc;
};

static void on_progress(struct origin_read *r, uint32_t got)
{
	struct job *j = (struct job *)r;

	assert_true(got > j->progress);
	j->progress = got;
}

static void on_done(struct origin_read *r, int rc)
{
	struct job *j = (struct job *)r;

	j->rc = rc;
	j->done++;
}

static void submit(struct job *j, uint32_t off, uint32_t len, uint64_t ms)
{
	memset(j, 0, sizeof(*j));
	j->read = (struct origin_read){.origin = &origin,
				       .name = "img",
				       .off = off,
				       .len = len,
				       .dst = dst + off,
				       .deadline_ns = clock_now_ns() + ms * NSEC_PER_MSEC,
				       .progress = on_progress,
				       .done = on_done};
	origin_read_submit(client, &j->read);
}

static int finish(struct job *j)
{
	uint64_t limit = clock_now_ns() + 20 * NSEC_PER_SEC;

	while (!j->done && clock_now_ns() < limit)
		loop_run_once(loop, 100);
	assert_int_equal(j->done, 1);
	return j->rc;
}

static int read_all(struct job *j)
{
	memset(dst, 0, sizeof(dst));
	submit(j, 0, BLOB_LEN, 10000);
	return finish(j);
}

static void assert_said(const struct job *j, const char *what)
{
	if (!strstr(j->read.err.text, what))
		fail_msg("\"%s\" does not say \"%s\"", j->read.err.text, what);
	assert_null(strstr(j->read.err.text, "tok1"));
}

static void a_read_carries_the_token(void **state)
{
	struct job j;

	(void)state;
	assert_int_equal(read_all(&j), 0);
	assert_memory_equal(dst, bytes, BLOB_LEN);
	assert_non_null(strstr(blob.last, "\r\nAuthorization: Bearer tok1\r\n"));
	assert_non_null(strstr(blob.last, "\r\nx-ms-version: 2021-12-02\r\n"));
	assert_null(strchr(strtok(blob.last, "\r"), '?'));
}

static void many_reads_wait_for_one_token_and_all_go_on(void **state)
{
	static struct job jobs[20];

	(void)state;
	imds.delay_ms = 100;
	for (int i = 0; i < 20; i++)
		submit(&jobs[i], (uint32_t)i * 1000, 1000, 10000);
	for (int i = 0; i < 20; i++)
		assert_int_equal(finish(&jobs[i]), 0);
	assert_memory_equal(dst, bytes, 20000);
	assert_int_equal(imds.requests, 1);
	assert_int_equal(blob.requests, 20);
}

static void a_token_that_blob_refuses_is_renewed_once_and_the_read_tried_again(void **state)
{
	struct job j;

	(void)state;
	server_script(&blob, GOOD, STATUS + 401);
	assert_int_equal(read_all(&j), 0);
	server_answers(&imds, "{\"access_token\":\"tok2\",\"expires_in\":3600}");
	assert_int_equal(read_all(&j), 0);
	assert_memory_equal(dst, bytes, BLOB_LEN);
	assert_non_null(strstr(blob.last, "\r\nAuthorization: Bearer tok2\r\n"));
	assert_int_equal(imds.requests, 2);
	assert_int_equal(blob.requests, 3);
}

static void a_refusal_in_mid_read_loses_nothing(void **state)
{
	struct job j;

	(void)state;
	server_script(&blob, SHORT_BODY, STATUS + 401);
	assert_int_equal(read_all(&j), 0);
	assert_memory_equal(dst, bytes, BLOB_LEN);
	assert_int_equal(imds.requests, 2);
	assert_non_null(strstr(blob.last, "x-ms-range: bytes=50000-99999"));
}

static void a_token_refused_again_is_the_end(void **state)
{
	static const enum act always[] = {STATUS + 401, STATUS + 401, STATUS + 401, STATUS + 401};
	struct job j;

	(void)state;
	blob.script = always;
	blob.nscript = 4;
	blob.error_code = "InvalidAuthenticationInfo";
	assert_int_equal(read_all(&j), -EACCES);
	assert_said(&j, "access refused (401 InvalidAuthenticationInfo): Blob does not take the "
			"identity's token (client id ab-12)");
	assert_int_equal(imds.requests, 2);
	assert_int_equal(blob.requests, 2);
	assert_int_equal(read_all(&j), -EACCES);
	assert_int_equal(imds.requests, 2); /* not a fetch for each read */
	assert_int_equal(blob.requests, 3);
}

static void an_identity_without_rights_is_told_whose_and_which_role(void **state)
{
	struct job j;

	(void)state;
	server_script(&blob, STATUS + 403);
	blob.error_code = "AuthorizationPermissionMismatch";
	assert_int_equal(read_all(&j), -EACCES);
	assert_said(&j, "access refused (403 AuthorizationPermissionMismatch): the identity "
			"(client id ab-12) has no role for this on container box of account acct: "
			"assign it Storage Blob Data Reader");
	assert_int_equal(imds.requests, 1);
	assert_int_equal(blob.requests, 1);
}

static void a_firewall_is_not_taken_for_a_missing_role(void **state)
{
	struct job j;

	(void)state;
	server_script(&blob, STATUS + 403);
	blob.error_code = "AuthorizationFailure";
	assert_int_equal(read_all(&j), -EACCES);
	assert_said(&j, "firewall of account acct");
}

static void a_read_waits_for_a_token_no_longer_than_its_deadline(void **state)
{
	uint64_t start = clock_now_ns();
	struct job j;

	(void)state;
	server_script(&imds, STALL, STALL, STALL, STALL, STALL, STALL);
	submit(&j, 0, 1000, 100);
	assert_int_equal(finish(&j), -ETIMEDOUT);
	assert_true(clock_now_ns() - start < NSEC_PER_SEC);
	assert_said(&j, "no token for Blob in time: the answer is still waited for");
	assert_int_equal(blob.requests, 0);
}

static void imds_that_hangs_is_told_as_the_reason(void **state)
{
	struct job j;

	(void)state;
	server_script(&imds, STALL, STALL, STALL, STALL, STALL, STALL);
	assert_int_equal(read_all(&j), -ETIMEDOUT);
	assert_said(&j, "/acct/box/img: no token for Blob: no key and no SAS is set; managed "
			"identity: no metadata service answers at http://127.0.0.1:");
	assert_int_equal(blob.requests, 0);
}

static void a_read_that_waits_for_a_token_can_be_canceled(void **state)
{
	struct job j, other;

	(void)state;
	imds.delay_ms = 100;
	submit(&j, 0, 1000, 10000);
	submit(&other, 1000, 1000, 10000);
	loop_run_once(loop, 10);
	origin_read_cancel(client, &j.read);
	assert_int_equal(finish(&j), -ECANCELED);
	assert_int_equal(finish(&other), 0);
	assert_int_equal(blob.requests, 1);
}

static void a_client_is_freed_while_the_fetch_it_waited_for_hangs(void **state)
{
	struct job j;

	(void)state;
	server_script(&imds, STALL);
	submit(&j, 0, 1000, 10000);
	loop_run_once(loop, 10);
	origin_read_cancel(client, &j.read);
	assert_int_equal(finish(&j), -ECANCELED); /* the rest is bed_down's */
}

static void requests_for_tokens_are_not_counted_as_blobs(void **state)
{
	uint64_t gets = origin_counters.get_requests, got = origin_counters.get_bytes;
	struct job j;

	(void)state;
	assert_int_equal(read_all(&j), 0);
	assert_int_equal(origin_counters.get_requests - gets, 1);
	assert_int_equal(origin_counters.get_bytes - got, BLOB_LEN);
}

#define bed_test(f) cmocka_unit_test_setup_teardown(f, bed_up, bed_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(a_read_carries_the_token),
		bed_test(many_reads_wait_for_one_token_and_all_go_on),
		bed_test(a_token_that_blob_refuses_is_renewed_once_and_the_read_tried_again),
		bed_test(a_refusal_in_mid_read_loses_nothing),
		bed_test(a_token_refused_again_is_the_end),
		bed_test(an_identity_without_rights_is_told_whose_and_which_role),
		bed_test(a_firewall_is_not_taken_for_a_missing_role),
		bed_test(a_read_waits_for_a_token_no_longer_than_its_deadline),
		bed_test(imds_that_hangs_is_told_as_the_reason),
		bed_test(a_read_that_waits_for_a_token_can_be_canceled),
		bed_test(a_client_is_freed_while_the_fetch_it_waited_for_hangs),
		bed_test(requests_for_tokens_are_not_counted_as_blobs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
