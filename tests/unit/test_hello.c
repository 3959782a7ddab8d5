/* SPDX-License-Identifier: Apache-2.0 */
/* A supervisor hears the worker of the one before, and nobody else. The worker is a child here. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <supervisor_protocol.h>

#include "supervisor/hello.h"

#define WAIT_MS 10000 /* ends sooner when the child does */

/* What the supervisor before had: a socket pair stands for each listener and each link. */
static char dir[64];
static int nbd[2], control[2], roster, crash, linked[2], ledger;
static struct state before;
static struct state_device device;

static int setup(void **unused)
{
	(void)unused;
	strcpy(dir, "/tmp/cairn-hello.XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, nbd), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, linked), 0);
	roster = memfd_create("roster", MFD_CLOEXEC);
	crash = memfd_create("crash", MFD_CLOEXEC);
	ledger = memfd_create("ledger", MFD_CLOEXEC);
	device = (struct state_device){.name = "x", .nlinks = 1};
	device.links[0] = file_id_of(linked[0]);
	device.ledgers[0] = file_id_of(ledger);
	before = (struct state){.takeovers = 4,
				.control = file_id_of(control[0]),
				.nbd = file_id_of(nbd[0]),
				.roster = file_id_of(roster),
				.crash = file_id_of(crash),
				.devices = &device,
				.ndevices = 1};
	return 0;
}

static int teardown(void **unused)
{
	int fds[] = {nbd[0],	nbd[1], control[0], control[1], linked[0],
		     linked[1], roster, crash,	    ledger};

	(void)unused;
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		close(fds[i]);
	return rmdir(dir); /* the socket is gone */
}

/* ---- in the child ---- */

static int connect_to_supervisor(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/supervisor.sock", dir);
	for (int i = 0; i < 200; i++) {
		if (!connect(fd, (struct sockaddr *)&a, sizeof(a)))
			return fd;
		usleep(5000);
	}
	_exit(90);
}

/* The reply's code; 1: the supervisor hung up. */
static int say(int channel, uint32_t op, const char *name, uint64_t value, const int *fds,
	       uint32_t n, struct supervisor_reply *r)
{
	struct supervisor_request q = {.magic = SUPERVISOR_MAGIC,
				       .version = SUPERVISOR_VERSION,
				       .op = op,
				       .nfds = n,
				       .value = {value}};
	char room[CMSG_SPACE(sizeof(int) * 8)] = {0};
	struct iovec iov = {&q, sizeof(q)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c = (struct cmsghdr *)(void *)room;

	strcpy(q.name, name);
	if (n) {
		m.msg_control = room;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	if (sendmsg(channel, &m, MSG_NOSIGNAL) < 0 || recv(channel, r, sizeof(*r), 0) <= 0)
		return 1;
	return r->code;
}

static int hello(int channel, int first, uint64_t devices)
{
	int fds[] = {first, control[0], roster, crash};
	struct supervisor_reply r;

	return say(channel, SUPERVISOR_HELLO, "", devices, fds, 4, &r);
}

static void worker_honest(void)
{
	int fd = connect_to_supervisor(), fds[] = {linked[0], ledger};
	struct supervisor_reply r;

	if (hello(fd, nbd[0], 1) || say(fd, SUPERVISOR_LINKS, "x", 0, fds, 2, &r))
		_exit(1);
	_exit(r.value[1] == 5 ? 0 : 2);
}

static void worker_other_listener(void)
{
	_exit(hello(connect_to_supervisor(), nbd[1], 0) == -EPERM ? 0 : 1);
}

static void worker_other_link(void)
{
	int fd = connect_to_supervisor(), fds[] = {linked[1], ledger};
	struct supervisor_reply r;

	if (hello(fd, nbd[0], 1) || say(fd, SUPERVISOR_LINKS, "x", 0, fds, 2, &r) != -EPERM)
		_exit(1);
	_exit(0);
}

static void worker_other_device(void)
{
	int fd = connect_to_supervisor(), fds[] = {linked[0], ledger};
	struct supervisor_reply r;

	if (hello(fd, nbd[0], 1) || say(fd, SUPERVISOR_LINKS, "y", 0, fds, 2, &r) != -EPERM)
		_exit(1);
	_exit(0);
}

static void worker_no_hello(void)
{
	int fd = connect_to_supervisor(), fds[] = {linked[0], ledger};
	struct supervisor_reply r;

	_exit(say(fd, SUPERVISOR_LINKS, "x", 0, fds, 2, &r) == 1 ? 0 : 1);
}

static void worker_too_many(void)
{
	_exit(hello(connect_to_supervisor(), nbd[0], 2) == 1 ? 0 : 1);
}

static void worker_nonsense(void)
{
	int fd = connect_to_supervisor();
	char byte;

	if (send(fd, "hello?", 6, MSG_NOSIGNAL) != 6)
		_exit(1);
	_exit(recv(fd, &byte, 1, 0) == 0 ? 0 : 2);
}

/* A child of the worker says what the worker should, and is refused. */
static void worker_with_stranger(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(hello(connect_to_supervisor(), nbd[0], 0) == 1 ? 0 : 1);
	waitpid(pid, &status, 0);
	_exit(WEXITSTATUS(status));
}

/* ---- the tests ---- */

struct heard {
	int rc, status; /* of hello_wait(); of the child */
	int channel;
	struct inherited pool;
};

static void hear(void (*worker)(void), struct heard *h)
{
	struct err err;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(20);
		worker();
	}
	*h = (struct heard){.channel = -1};
	before.worker = process_of(pid);
	h->rc = hello_wait(dir, &before, WAIT_MS, &h->pool, &h->channel, &err);
	if (waitpid(pid, &h->status, WNOHANG) == 0) {
		usleep(200000);
		kill(pid, SIGKILL);
		waitpid(pid, &h->status, 0);
	}
	if (h->channel >= 0)
		close(h->channel);
}

static bool has(struct heard *h, int fd)
{
	int got = inherited_take(&h->pool, file_id_of(fd));

	if (got >= 0)
		close(got);
	return got >= 0;
}

static void the_worker_of_the_record_is_heard(void **unused)
{
	struct heard h;

	(void)unused;
	hear(worker_honest, &h);
	assert_int_equal(h.rc, 0);
	assert_true(h.channel >= 0);
	assert_true(has(&h, nbd[0]) && has(&h, control[0]) && has(&h, roster) && has(&h, crash));
	assert_true(has(&h, linked[0]) && has(&h, ledger));
	assert_int_equal(h.pool.n, 0);
	inherited_close(&h.pool);
}

static void refused(void (*worker)(void))
{
	struct heard h;

	hear(worker, &h);
	assert_int_equal(h.rc, -ETIMEDOUT);
	assert_int_equal(h.channel, -1);
	assert_int_equal(h.pool.n, 0);
	assert_true(WIFEXITED(h.status));
	assert_int_equal(WEXITSTATUS(h.status), 0);
}

static void another_listener_is_refused(void **unused)
{
	(void)unused;
	refused(worker_other_listener);
}

static void links_before_a_hello_are_refused(void **unused)
{
	(void)unused;
	refused(worker_no_hello);
}

static void more_devices_than_there_were_are_refused(void **unused)
{
	(void)unused;
	refused(worker_too_many);
}

static void what_is_no_record_is_refused(void **unused)
{
	(void)unused;
	refused(worker_nonsense);
}

static void another_process_is_refused(void **unused)
{
	(void)unused;
	refused(worker_with_stranger);
}

/* The rest of the hello stands, the link does not. */
static void link_refused(void (*worker)(void), bool ledger_is_known)
{
	struct heard h;

	hear(worker, &h);
	assert_int_equal(h.rc, 0);
	assert_int_equal(WEXITSTATUS(h.status), 0);
	assert_true(has(&h, nbd[0]));
	assert_false(has(&h, linked[0]));
	assert_false(has(&h, linked[1]));
	assert_int_equal(has(&h, ledger), ledger_is_known);
	inherited_close(&h.pool);
}

static void a_connection_that_no_supervisor_gave_is_not_taken(void **unused)
{
	(void)unused;
	link_refused(worker_other_link, true);
}

static void a_connection_of_a_device_that_was_not_there_is_not_taken(void **unused)
{
	(void)unused;
	link_refused(worker_other_device, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_worker_of_the_record_is_heard, setup, teardown),
		cmocka_unit_test_setup_teardown(another_listener_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(links_before_a_hello_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(more_devices_than_there_were_are_refused, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_is_no_record_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(another_process_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_connection_that_no_supervisor_gave_is_not_taken,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_connection_of_a_device_that_was_not_there_is_not_taken, setup, teardown),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
