/* SPDX-License-Identifier: Apache-2.0 */
/* The server and the client as programs: sockets, and answers that are none. */
#include "control_bed.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed(the_listening_socket_outlives_the_server),
		bed(metrics_alone_are_served_over_tcp),
		bed(no_daemon_is_an_error_with_the_remedy),
		bed(a_cut_or_senseless_answer_is_an_error),
		bed(a_daemon_that_does_not_answer_is_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
