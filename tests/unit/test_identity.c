/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/clock.h"
#include "token_bed.h"

#define GOOD_TOKEN "{\"access_token\":\"tok\",\"expires_in\":3600}"

static struct bad_server server;
static char dir[64], file[80];
static struct token_answer got;
static struct err err;
static enum identity_kind step;

static int bed_up(void **state)
{
	(void)state;
	bad_server_start(&server, (const uint8_t *)GOOD_TOKEN, strlen(GOOD_TOKEN));
	scratch_new(dir);
	snprintf(file, sizeof(file), "%s/token", dir);
	clear_environment();
	set_hosts(&server);
	step = IDENTITY_AUTO;
	return 0;
}

static int bed_down(void **state)
{
	(void)state;
	bad_server_stop(&server);
	scratch_free(dir);
	return 0;
}

static int fetch_as(enum identity_kind kind, const char *client_id)
{
	static const _Atomic bool stop;
	struct identity id;
	int rc;

	memset(&err, 0, sizeof(err));
	assert_int_equal(identity_init(&id, kind, client_id, NULL, &err), 0);
	rc = identity_fetch(&id, &token_limits, &stop, &step, &got, &err);
	identity_fini(&id);
	return rc;
}

static int fetch(void)
{
	return fetch_as(IDENTITY_AUTO, NULL);
}

static void assert_said(const char *what)
{
	if (!strstr(err.text, what))
		fail_msg("\"%s\" does not say \"%s\"", err.text, what);
}

static void assert_asked(const char *what)
{
	if (!strstr(server.last, what))
		fail_msg("\"%s\" was not asked with \"%s\"", server.last, what);
}

static void assert_posted(const char *what)
{
	server.put[server.put_len] = 0;
	if (!strstr(server.put, what))
		fail_msg("\"%s\" was posted without \"%s\"", server.put, what);
}

static void a_client_secret_is_exchanged(void **state)
{
	(void)state;
	set_application();
	assert_int_equal(fetch(), 0);
	assert_string_equal(got.token, "tok");
	assert_int_equal(step, IDENTITY_ENVIRONMENT);
	assert_asked("POST /contoso.example/oauth2/v2.0/token HTTP/1.1\r\n");
	assert_asked("Content-Type: application/x-www-form-urlencoded\r\n");
	assert_posted(
		"grant_type=client_credentials&client_id=" CLIENT
		"&client_secret=hush-hush~1&scope=https%3A%2F%2Fstorage.azure.com%2F.default");
}

static void a_workloads_token_file_is_exchanged(void **state)
{
	(void)state;
	write_text(file, "head.body.sig+/=\n");
	set_workload(file);
	assert_int_equal(fetch(), 0);
	assert_int_equal(step, IDENTITY_WORKLOAD);
	assert_posted("client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3A"
		      "jwt-bearer&client_assertion=head.body.sig%2B%2F%3D&scope=");
}

static void a_token_file_rotated_in_mid_run_is_read_anew(void **state)
{
	(void)state;
	write_text(file, "first");
	set_workload(file);
	assert_int_equal(fetch(), 0);
	assert_posted("client_assertion=first&");
	write_text(file, "second");
	assert_int_equal(fetch(), 0);
	assert_posted("client_assertion=second&");
}

static void imds_is_asked_as_it_wants(void **state)
{
	(void)state;
	assert_int_equal(fetch(), 0);
	assert_int_equal(step, IDENTITY_MANAGED);
	assert_asked("GET /metadata/identity/oauth2/token?api-version=2018-02-01&"
		     "resource=https%3A%2F%2Fstorage.azure.com%2F HTTP/1.1\r\n");
	assert_asked("\r\nMetadata: true\r\n");
}

static void a_user_assigned_identity_is_named_in_each_way(void **state)
{
	(void)state;
	assert_int_equal(fetch_as(IDENTITY_MANAGED, CLIENT), 0);
	assert_asked("&client_id=" CLIENT " HTTP");
	assert_int_equal(fetch_as(IDENTITY_MANAGED, "object:ab-12"), 0);
	assert_asked("&object_id=ab-12 HTTP");
	assert_int_equal(fetch_as(IDENTITY_MANAGED, "/subscriptions/1/x y"), 0);
	assert_asked("&msi_res_id=%2Fsubscriptions%2F1%2Fx%20y HTTP");
	setenv("AZURE_CLIENT_ID", CLIENT, 1);
	assert_int_equal(fetch_as(IDENTITY_MANAGED, ""), 0);
	assert_asked("&client_id=" CLIENT " HTTP");
}

static void the_order_is_environment_workload_managed(void **state)
{
	(void)state;
	write_text(file, "assertion");
	set_workload(file);
	setenv("AZURE_CLIENT_SECRET", SECRET, 1);
	assert_int_equal(fetch(), 0);
	assert_int_equal(step, IDENTITY_ENVIRONMENT);
	step = IDENTITY_AUTO;
	unsetenv("AZURE_CLIENT_SECRET");
	assert_int_equal(fetch(), 0);
	assert_int_equal(step, IDENTITY_WORKLOAD);
	step = IDENTITY_AUTO;
	unsetenv("AZURE_FEDERATED_TOKEN_FILE");
	assert_int_equal(fetch(), 0);
	assert_int_equal(step, IDENTITY_MANAGED);
	assert_int_equal(server.requests, 3);
}

static void an_identity_named_is_the_only_one_tried(void **state)
{
	(void)state;
	set_application();
	assert_int_equal(fetch_as(IDENTITY_MANAGED, NULL), 0);
	assert_int_equal(step, IDENTITY_MANAGED);
	step = IDENTITY_AUTO;
	assert_int_equal(fetch_as(IDENTITY_WORKLOAD, NULL), -EACCES);
	assert_string_equal(err.text, "workload identity: AZURE_FEDERATED_TOKEN_FILE is not set");
}

static void the_joint_failure_names_each_step_and_why(void **state)
{
	char want[300], host[64];

	(void)state;
	bad_server_stop(&server);
	snprintf(host, sizeof(host), "http://127.0.0.1:%u", server.port);
	setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", host, 1);
	setenv("AZURE_TENANT_ID", "t", 1);
	assert_int_equal(fetch(), -EACCES);
	snprintf(want, sizeof(want),
		 "environment: AZURE_CLIENT_ID is not set; "
		 "workload identity: AZURE_FEDERATED_TOKEN_FILE is not set; "
		 "managed identity: no metadata service answers at %s (",
		 host);
	assert_said(want);
	assert_said("Connection refused");
	bad_server_start(&server, (const uint8_t *)GOOD_TOKEN, strlen(GOOD_TOKEN));
}

static void a_step_that_is_set_up_and_fails_ends_the_search(void **state)
{
	(void)state;
	set_application();
	server.sorry = "{\"error\":\"invalid_client\",\"error_description\":"
		       "\"AADSTS7000215: Invalid client secret provided.\\r\\nTrace ID: 1\"}";
	server_script(&server, STATUS + 401);
	assert_int_equal(fetch(), -EACCES);
	assert_said("environment: Entra ID says HTTP 401 Some invalid_client: AADSTS7000215: "
		    "Invalid client secret provided.; workload identity: not tried after that; "
		    "managed identity: not tried after that");
	assert_int_equal(server.requests, 1);
	assert_null(strstr(err.text, SECRET));
}

static void a_secret_that_is_echoed_is_not_told(void **state)
{
	(void)state;
	set_application();
	server.sorry = "{\"error\":\"no\",\"error_description\":\"bad " SECRET "\"}";
	server_script(&server, STATUS + 400);
	assert_int_equal(fetch(), -EACCES);
	assert_null(strstr(err.text, SECRET));
	assert_said("HTTP 400");
}

static void a_token_file_that_is_missing_or_empty_is_said(void **state)
{
	(void)state;
	set_workload(file);
	assert_int_equal(fetch(), -EACCES);
	assert_said("can't be read (No such file or directory)");
	assert_said(file);
	assert_said("managed identity: not tried");
	write_text(file, "");
	assert_int_equal(fetch(), -EACCES);
	assert_said("is empty");
	write_text(file, "\n \n");
	assert_int_equal(fetch(), -EACCES);
	assert_said("is empty");
	write_text(file, "two tokens");
	assert_int_equal(fetch(), -EACCES);
	assert_said("more than one token");
	assert_null(strstr(err.text, "two tokens"));
	assert_int_equal(server.requests, 0);
}

static void imds_that_hangs_is_given_up_in_time(void **state)
{
	uint64_t start = clock_now_ns();

	(void)state;
	server_script(&server, STALL, STALL, STALL, STALL, STALL, STALL, STALL, STALL);
	assert_int_equal(fetch(), -ETIMEDOUT);
	assert_true(clock_now_ns() - start < 4 * NSEC_PER_SEC);
	assert_true(server.requests >= 2);
	assert_said("managed identity: no metadata service answers at http://127.0.0.1:");
	assert_said("no byte for 0.4 s");
}

static void imds_is_tried_again_as_it_asks(void **state)
{
	(void)state;
	server_script(&server, STATUS + 404, STATUS + 429, STATUS + 500, STATUS + 410);
	assert_int_equal(fetch(), 0);
	assert_int_equal(server.requests, 5);
}

static void a_410_is_waited_for_longer_than_a_404(void **state)
{
	static enum act many[200];
	uint64_t start;

	(void)state;
	for (int i = 0; i < 200; i++)
		many[i] = STATUS + 404;
	server.script = many;
	server.nscript = 200;
	start = clock_now_ns();
	assert_int_equal(fetch(), -ETIMEDOUT);
	assert_said("the metadata service says HTTP 404");
	assert_true(clock_now_ns() - start < 2400 * NSEC_PER_MSEC);
	assert_true(server.requests < 20); /* no busy loop */
	for (int i = 0; i < 200; i++)
		many[i] = STATUS + 410;
	start = clock_now_ns();
	assert_int_equal(fetch(), -ETIMEDOUT);
	assert_true(clock_now_ns() - start > 2400 * NSEC_PER_MSEC);
	assert_true(clock_now_ns() - start < 10 * NSEC_PER_SEC);
}

static void a_machine_without_an_identity_is_said(void **state)
{
	(void)state;
	server.sorry = "{\"error\":\"invalid_request\",\"error_description\":"
		       "\"Identity not found\"}";
	server_script(&server, STATUS + 400);
	assert_int_equal(fetch(), -EACCES);
	assert_said("the machine has no such identity (invalid_request: Identity not found)");
	assert_int_equal(server.requests, 1);
}

static void garbage_is_said_and_not_shown(void **state)
{
	(void)state;
	server_answers(&server, "<html>log in to the hotel</html>");
	assert_int_equal(fetch(), -EACCES);
	assert_said("managed identity: the answer is not JSON of a token");
	assert_null(strstr(err.text, "hotel"));
	server_script(&server, GOOD, GARBAGE, GARBAGE, GARBAGE, GARBAGE, GARBAGE, GARBAGE, GARBAGE,
		      GARBAGE, GARBAGE);
	assert_int_not_equal(fetch(), 0);
}

static void secrets_go_to_https_only(void **state)
{
	(void)state;
	set_application();
	setenv("AZURE_AUTHORITY_HOST", "http://login.example", 1);
	assert_int_equal(fetch(), -EACCES);
	assert_said("AZURE_AUTHORITY_HOST is not https://");
	setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1", 1);
	setenv("AZURE_TENANT_ID", "a/../b", 1);
	assert_int_equal(fetch(), -EACCES);
	assert_said("AZURE_TENANT_ID");
	assert_int_equal(server.requests, 0);
}

static void a_certificate_is_said_not_to_be_supported(void **state)
{
	(void)state;
	set_application();
	unsetenv("AZURE_CLIENT_SECRET");
	setenv("AZURE_CLIENT_CERTIFICATE_PATH", "/c.pem", 1);
	assert_int_equal(fetch_as(IDENTITY_ENVIRONMENT, NULL), -EACCES);
	assert_said("AZURE_CLIENT_SECRET is not set (certificates are not supported)");
}

static void names_of_identities_are_azures_too(void **state)
{
	enum identity_kind k;

	(void)state;
	assert_int_equal(identity_parse(NULL, &k, &err), 0);
	assert_int_equal(k, IDENTITY_AUTO);
	assert_int_equal(identity_parse("prod", &k, &err), 0);
	assert_int_equal(k, IDENTITY_AUTO);
	assert_int_equal(identity_parse("workloadidentitycredential", &k, &err), 0);
	assert_int_equal(k, IDENTITY_WORKLOAD);
	assert_int_equal(identity_parse("dev", &k, &err), -EINVAL);
}

#define bed_test(f) cmocka_unit_test_setup_teardown(f, bed_up, bed_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(a_client_secret_is_exchanged),
		bed_test(a_workloads_token_file_is_exchanged),
		bed_test(a_token_file_rotated_in_mid_run_is_read_anew),
		bed_test(imds_is_asked_as_it_wants),
		bed_test(a_user_assigned_identity_is_named_in_each_way),
		bed_test(the_order_is_environment_workload_managed),
		bed_test(an_identity_named_is_the_only_one_tried),
		bed_test(the_joint_failure_names_each_step_and_why),
		bed_test(a_step_that_is_set_up_and_fails_ends_the_search),
		bed_test(a_secret_that_is_echoed_is_not_told),
		bed_test(a_token_file_that_is_missing_or_empty_is_said),
		bed_test(imds_that_hangs_is_given_up_in_time),
		bed_test(imds_is_tried_again_as_it_asks),
		bed_test(a_410_is_waited_for_longer_than_a_404),
		bed_test(a_machine_without_an_identity_is_said),
		bed_test(garbage_is_said_and_not_shown),
		bed_test(secrets_go_to_https_only),
		bed_test(a_certificate_is_said_not_to_be_supported),
		bed_test(names_of_identities_are_azures_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
