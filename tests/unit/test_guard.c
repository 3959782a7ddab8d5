/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker may have of the supervisor, whoever runs in it. */
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "nbd/attach/tcp_pair.h"
#include "supervisor/guard.h"

struct bed {
	char dir[64], path[100];
	int listener;
	struct guard g;
	struct err err;
};

static int listen_on(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static int bed_new(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	scratch_new(b->dir);
	chmod(b->dir, 0755);
	snprintf(b->path, sizeof(b->path), "%s/control.sock", b->dir);
	b->listener = listen_on(b->path);
	chmod(b->path, 0666);
	guard_init(&b->g, b->path, clock_now_ns());
	*state = b;
	return 0;
}

static int bed_free(void **state)
{
	struct bed *b = *state;

	close(b->listener);
	scratch_free(b->dir);
	free(b);
	return 0;
}

/* A client at @path and the worker's end of it. */
static void connect_to(const char *path, int listener, int *client, int *accepted)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	strcpy(a.sun_path, path);
	*client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(*client, (struct sockaddr *)&a, sizeof(a)), 0);
	*accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(*accepted >= 0);
}

static struct supervisor_request request(enum supervisor_op op)
{
	struct supervisor_request q = {.magic = SUPERVISOR_MAGIC,
				       .version = SUPERVISOR_VERSION,
				       .op = op,
				       .index = -1,
				       .name = "image",
				       .way = "auto"};

	if (op == SUPERVISOR_ATTACH)
		q.value[0] = 1 << 20;
	return q;
}

static int ask_with(struct bed *b, enum supervisor_op op, int fd)
{
	struct supervisor_request q = request(op);
	struct guard_fds with = {.fd = {fd}, .n = fd >= 0};

	return guard_check(&b->g, &q, &with, 0, &b->err);
}

/* ---- consent ---- */

static void who_asks_on_the_control_socket_gets_a_device(void **state)
{
	struct bed *b = *state;
	int client, accepted;

	connect_to(b->path, b->listener, &client, &accepted);
	assert_int_equal(ask_with(b, SUPERVISOR_ATTACH, accepted), 0);
	close(client);
	close(accepted);
}

static void a_worker_gets_no_device_for_itself(void **state)
{
	static const enum supervisor_op ops[] = {SUPERVISOR_ATTACH, SUPERVISOR_DETACH,
						 SUPERVISOR_UPGRADE};
	struct bed *b = *state;
	char other[120];
	int pair[2], pipes[2], client, accepted, elsewhere;

	snprintf(other, sizeof(other), "%s/other.sock", b->dir);
	elsewhere = listen_on(other);
	connect_to(other, elsewhere, &client, &accepted);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(pipe(pipes), 0);
	for (size_t i = 0; i < 3; i++) {
		const int fds[] = {-1,	     pair[0],	  pipes[0],  client,
				   accepted, b->listener, elsewhere, 0};

		for (size_t k = 0; k < sizeof(fds) / sizeof(fds[0]); k++)
			assert_int_equal(ask_with(b, ops[i], fds[k]), -EPERM);
	}
	assert_non_null(strstr(b->err.text, "control socket"));
	for (int i = 0; i < 2; i++) {
		close(pair[i]);
		close(pipes[i]);
	}
	close(client);
	close(accepted);
	close(elsewhere);
}

static void a_connection_of_another_user_is_no_consent(void **state)
{
	struct bed *b = *state;
	int accepted, ready[2];
	pid_t pid;

	if (geteuid() != 0)
		skip();
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		struct sockaddr_un a = {.sun_family = AF_UNIX};
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		char c;

		strcpy(a.sun_path, b->path);
		if (setresuid(65534, 65534, 65534) || connect(fd, (struct sockaddr *)&a, sizeof(a)))
			_exit(1);
		close(ready[1]);
		_exit(read(ready[0], &c, 1) != 0);
	}
	close(ready[0]);
	accepted = accept(b->listener, NULL, NULL);
	assert_int_equal(ask_with(b, SUPERVISOR_ATTACH, accepted), -EPERM);
	assert_int_equal(ask_with(b, SUPERVISOR_DETACH, accepted), -EPERM);
	close(ready[1]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(accepted);
}

static void consent_ends_when_its_giver_hangs_up(void **state)
{
	struct bed *b = *state;
	int client, accepted;

	connect_to(b->path, b->listener, &client, &accepted);
	assert_int_equal(ask_with(b, SUPERVISOR_DETACH, accepted), 0);
	close(client);
	assert_int_equal(ask_with(b, SUPERVISOR_DETACH, accepted), -EPERM);
	assert_int_equal(ask_with(b, SUPERVISOR_ATTACH, accepted), -EPERM);
	close(accepted);
}

static void one_connection_makes_one_device_and_may_detach_it(void **state)
{
	struct bed *b = *state;
	int client[2], accepted[2];

	for (int i = 0; i < 2; i++) {
		connect_to(b->path, b->listener, &client[i], &accepted[i]);
		assert_int_equal(ask_with(b, SUPERVISOR_ATTACH, accepted[i]), 0);
		assert_int_equal(ask_with(b, SUPERVISOR_DETACH, accepted[i]), 0);
	}
	for (int i = 0; i < 1000; i++)
		assert_int_equal(ask_with(b, SUPERVISOR_ATTACH, accepted[i % 2]), -EPERM);
	assert_non_null(strstr(b->err.text, "one device"));
	for (int i = 0; i < 2; i++) {
		close(client[i]);
		close(accepted[i]);
	}
}

static void what_stands_is_served_without_anybodys_consent(void **state)
{
	struct bed *b = *state;
	struct supervisor_request q = request(SUPERVISOR_ATTACH);
	struct guard_fds none = {.n = 0};

	q.flags = SUPERVISOR_REVIVE;
	assert_int_equal(guard_check(&b->g, &q, &none, 0, &b->err), 0);
	assert_int_equal(ask_with(b, SUPERVISOR_READY, -1), 0);
	assert_int_equal(ask_with(b, SUPERVISOR_OBSERVER, -1), 0);
	assert_int_equal(ask_with(b, SUPERVISOR_READ_AHEAD, -1), 0);
}

/* ---- values ---- */

static int check_value(struct bed *b, const struct supervisor_request *q)
{
	struct guard_fds with = {.n = 1};
	int client, rc;

	connect_to(b->path, b->listener, &client, &with.fd[0]);
	rc = guard_check(&b->g, q, &with, 0, &b->err);
	close(client);
	close(with.fd[0]);
	return rc;
}

static void values_that_no_image_has_are_refused(void **state)
{
	static const char *const names[] = {"a\nlevel=error", "a\x1b[2J", "\x7f"};
	static const char *const identities[] = {
		"x", "sha256:", "sha256:../../etc",
		"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeX"};
	static const uint64_t lengths[] = {0, 1, 4095, 1ULL << 63, UINT64_MAX};
	struct bed *b = *state;
	struct supervisor_request q = request(SUPERVISOR_ATTACH);

	assert_int_equal(check_value(b, &q), 0);
	strcpy(q.identity,
	       "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
	assert_int_equal(check_value(b, &q), 0);
	for (size_t i = 0; i < 3; i++) {
		q = request(SUPERVISOR_ATTACH);
		strcpy(q.name, names[i]);
		assert_int_equal(check_value(b, &q), -EINVAL);
	}
	for (size_t i = 0; i < 4; i++) {
		q = request(SUPERVISOR_ATTACH);
		strcpy(q.identity, identities[i]);
		assert_int_equal(check_value(b, &q), -EINVAL);
	}
	for (size_t i = 0; i < 5; i++) {
		q = request(SUPERVISOR_ATTACH);
		q.value[0] = lengths[i];
		assert_int_equal(check_value(b, &q), -EINVAL);
	}
	q = request(SUPERVISOR_PROMOTE);
	assert_int_equal(check_value(b, &q), -EINVAL); /* without a file */
	q = request(SUPERVISOR_READ_AHEAD);
	q.value[0] = GUARD_READ_AHEAD_KB + 1;
	assert_int_equal(check_value(b, &q), -EINVAL);
	q = request(SUPERVISOR_WATCH);
	assert_int_equal(check_value(b, &q), -EINVAL);
}

static void there_are_no_more_devices_than_allowed(void **state)
{
	struct bed *b = *state;
	struct supervisor_request q = request(SUPERVISOR_ATTACH);
	struct guard_fds with = {.n = 1};
	int client;

	connect_to(b->path, b->listener, &client, &with.fd[0]);
	assert_int_equal(guard_check(&b->g, &q, &with, GUARD_DEVICES_MAX, &b->err), -ENOSPC);
	assert_int_equal(guard_check(&b->g, &q, &with, GUARD_DEVICES_MAX - 1, &b->err), 0);
	close(client);
	close(with.fd[0]);
}

/* ---- rations ---- */

static void a_flood_is_read_at_the_rate_and_no_faster(void **state)
{
	struct bed *b = *state;
	struct supervisor_request q = request(SUPERVISOR_READ_AHEAD);
	uint64_t now = b->g.credit_ns, asked = 0;

	for (int ms = 0; ms < 60000; ms++, now += NSEC_PER_MSEC)
		while (!guard_wait_ms(&b->g, now)) {
			guard_charge_request(&b->g, &q, now, now);
			asked++;
		}
	assert_in_range(asked, 60 * GUARD_RATE, 60 * GUARD_RATE + GUARD_BURST + 1);
}

static void half_of_the_time_is_the_supervisors_own(void **state)
{
	struct bed *b = *state;
	struct supervisor_request q = request(SUPERVISOR_WATCH);
	uint64_t start = b->g.credit_ns, now = start, busy = 0;

	while (now < start + 300 * NSEC_PER_SEC) { /* each takes 40 ms */
		int wait = guard_wait_ms(&b->g, now);

		if (wait) {
			now += (uint64_t)wait * NSEC_PER_MSEC;
			continue;
		}
		guard_charge_request(&b->g, &q, now, now + 40 * NSEC_PER_MSEC);
		now += 40 * NSEC_PER_MSEC;
		busy += 40 * NSEC_PER_MSEC;
	}
	assert_true(busy < (now - start) * 55 / 100);
	assert_true(busy > (now - start) * 40 / 100);
}

/* ---- descriptors ---- */

static unsigned open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void send_files(int to, const int *fds, unsigned n)
{
	static struct supervisor_request q;
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int) * 253)];
	} control = {0};
	struct iovec iov = {.iov_base = &q, .iov_len = sizeof(q)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = CMSG_SPACE(n * sizeof(int))};

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
	assert_int_equal(sendmsg(to, &m, 0), sizeof(q));
}

static void descriptors_that_nobody_wanted_are_closed(void **state)
{
	struct supervisor_request q;
	struct guard_fds with;
	int pair[2], many[253];
	unsigned before;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	for (int i = 0; i < 253; i++)
		many[i] = pair[1];
	before = open_files();
	for (int i = 0; i < 200; i++) {
		send_files(pair[1], many, i % 2 ? 253 : SUPERVISOR_FDS_MAX);
		assert_int_equal(guard_receive(pair[0], &q, &with), sizeof(q));
		assert_int_equal(with.n, SUPERVISOR_FDS_MAX);
		assert_true(fcntl(with.fd[0], F_GETFD) & FD_CLOEXEC);
		guard_release(&with);
	}
	assert_int_equal(open_files(), before);
	assert_int_equal(guard_receive(pair[0], &q, &with), -EAGAIN);
	close(pair[1]);
	assert_int_equal(guard_receive(pair[0], &q, &with), -EPIPE);
	close(pair[0]);
}

static void a_socket_that_lingers_does_not_hold_up_who_closes_it(void **state)
{
	static const struct linger long_time = {.l_onoff = 1, .l_linger = 60};
	static char data[1 << 20];
	struct supervisor_request q;
	struct guard_fds with;
	int pair[2], tcp[2];
	uint64_t start;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(tcp_pairs_open(&tcp[0], &tcp[1], 1, NULL), 0);
	fcntl(tcp[0], F_SETFL, O_NONBLOCK);
	while (write(tcp[0], data, sizeof(data)) > 0)
		;
	fcntl(tcp[0], F_SETFL, 0);
	assert_int_equal(setsockopt(tcp[0], SOL_SOCKET, SO_LINGER, &long_time, sizeof(long_time)),
			 0);
	send_files(pair[1], tcp, 1);
	assert_int_equal(guard_receive(pair[0], &q, &with), sizeof(q));
	assert_int_equal(dup3(pair[0], tcp[0], O_CLOEXEC), tcp[0]); /* ours is the last now */
	start = clock_now_ns();
	guard_release(&with);
	assert_true(clock_now_ns() - start < 30 * NSEC_PER_SEC);
	for (int i = 0; i < 2; i++) {
		close(pair[i]);
		close(tcp[i]);
	}
}

int main(void)
{
#define GUARDED(test) cmocka_unit_test_setup_teardown(test, bed_new, bed_free)
	const struct CMUnitTest tests[] = {
		GUARDED(who_asks_on_the_control_socket_gets_a_device),
		GUARDED(a_worker_gets_no_device_for_itself),
		GUARDED(a_connection_of_another_user_is_no_consent),
		GUARDED(consent_ends_when_its_giver_hangs_up),
		GUARDED(one_connection_makes_one_device_and_may_detach_it),
		GUARDED(what_stands_is_served_without_anybodys_consent),
		GUARDED(values_that_no_image_has_are_refused),
		GUARDED(there_are_no_more_devices_than_allowed),
		GUARDED(a_flood_is_read_at_the_rate_and_no_faster),
		GUARDED(half_of_the_time_is_the_supervisors_own),
		cmocka_unit_test(descriptors_that_nobody_wanted_are_closed),
		cmocka_unit_test(a_socket_that_lingers_does_not_hold_up_who_closes_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
