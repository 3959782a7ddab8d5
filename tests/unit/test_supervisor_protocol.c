/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <supervisor_protocol.h>

#include "nbd/attach/attach.h"
#include "worker/privileged.h"

static const struct supervisor_request good = {.magic = SUPERVISOR_MAGIC,
					       .version = SUPERVISOR_VERSION,
					       .id = 1,
					       .op = SUPERVISOR_ATTACH,
					       .name = "one",
					       .way = "auto"};

static void a_whole_request_is_accepted(void **state)
{
	(void)state;
	assert_int_equal(supervisor_request_check(&good, sizeof(good)), 0);
}

static void a_request_that_is_not_ours_is_refused(void **state)
{
	struct supervisor_request q;

	(void)state;
	assert_int_equal(supervisor_request_check(&good, sizeof(good) - 1), -EBADMSG);
	assert_int_equal(supervisor_request_check(&good, sizeof(good) + 1), -EBADMSG);
	q = good;
	q.magic++;
	assert_int_equal(supervisor_request_check(&q, sizeof(q)), -EBADMSG);
	q = good;
	q.version++;
	assert_int_equal(supervisor_request_check(&q, sizeof(q)), -EPROTONOSUPPORT);
	q = good;
	q.op = 0;
	assert_int_equal(supervisor_request_check(&q, sizeof(q)), -EBADMSG);
	q.op = SUPERVISOR_PROMOTE + 1;
	assert_int_equal(supervisor_request_check(&q, sizeof(q)), -EBADMSG);
	q = good;
	q.flags = 32;
	assert_int_equal(supervisor_request_check(&q, sizeof(q)), -EBADMSG);
	q = good;
	q.name[0] = 0;
	assert_int_equal(supervisor_request_check(&q, sizeof(q)), -EBADMSG);
}

static void a_text_without_an_end_is_refused(void **state)
{
	struct supervisor_request q = good;
	struct supervisor_reply r = {.magic = SUPERVISOR_MAGIC, .version = SUPERVISOR_VERSION};

	(void)state;
	memset(q.name, 'a', sizeof(q.name));
	assert_int_equal(supervisor_request_check(&q, sizeof(q)), -EBADMSG);
	q = good;
	memset(q.way, 'a', sizeof(q.way));
	assert_int_equal(supervisor_request_check(&q, sizeof(q)), -EBADMSG);
	assert_int_equal(supervisor_reply_check(&r, sizeof(r)), 0);
	memset(r.text, 'a', sizeof(r.text));
	assert_int_equal(supervisor_reply_check(&r, sizeof(r)), -EBADMSG);
}

/* A supervisor that answers each request as told. */
struct fake {
	int fd, requests;
	bool stale_first; /* a reply to someone who no longer waits comes before */
	bool hangs_up;
	uint32_t interim; /* descriptors that come before the answer to an attach */
	int code;
	pthread_t thread;
};

/* Sockets and ledgers are told apart by their files: /dev/zero, then /dev/null. */
static void fake_interim(const struct fake *f, struct supervisor_reply r)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(4 * sizeof(int))];
	} control = {0};
	int fds[4];
	struct iovec iov = {&r, sizeof(r)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control};

	for (uint32_t i = 0; i < f->interim; i++)
		fds[i] = open(i < f->interim / 2 ? "/dev/zero" : "/dev/null", O_RDWR);
	r.flags = SUPERVISOR_REPLY_INTERIM | SUPERVISOR_REPLY_HANDSHAKE;
	r.nfds = f->interim;
	m.msg_controllen = CMSG_SPACE(f->interim * sizeof(int));
	control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(f->interim * sizeof(int)),
					  .cmsg_level = SOL_SOCKET,
					  .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.header), fds, f->interim * sizeof(int));
	assert_int_equal(sendmsg(f->fd, &m, MSG_NOSIGNAL), sizeof(r));
	for (uint32_t i = 0; i < f->interim; i++)
		close(fds[i]);
}

static void fake_answer(struct fake *f, const struct supervisor_request *q)
{
	struct supervisor_reply r = {.magic = SUPERVISOR_MAGIC, .version = SUPERVISOR_VERSION};

	if (f->stale_first) {
		r.id = q->id - 1;
		strcpy(r.device, "/dev/loop99");
		send(f->fd, &r, sizeof(r), MSG_NOSIGNAL);
	}
	r.id = q->id;
	if (f->interim && q->op == SUPERVISOR_ATTACH)
		fake_interim(f, r);
	r.code = f->code;
	strcpy(r.device, f->code ? "" : "/dev/loop3");
	strcpy(r.way, "nbdfuse");
	strcpy(r.text, f->code ? "mounted on /mnt; unmount it first" : "");
	send(f->fd, &r, sizeof(r), MSG_NOSIGNAL);
}

static void *fake_run(void *arg)
{
	struct fake *f = arg;
	struct supervisor_request q;
	ssize_t n;

	while ((n = recv(f->fd, &q, sizeof(q), 0)) > 0) {
		assert_int_equal(supervisor_request_check(&q, (size_t)n), 0);
		f->requests++;
		if (f->hangs_up)
			break;
		fake_answer(f, &q);
	}
	close(f->fd);
	return NULL;
}

static int fake_start(struct fake *f)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	f->fd = pair[1];
	pthread_create(&f->thread, NULL, fake_run, f);
	return pair[0];
}

static void fake_stop(struct fake *f, int fd)
{
	close(fd);
	pthread_join(f->thread, NULL);
}

static void an_attach_gets_its_device_and_way(void **state)
{
	struct fake f = {.stale_first = true};
	int fd = fake_start(&f);
	struct privileged_device d = {.name = "one", .way = "auto", .identity = "", .index = -1};
	struct err err = {0};

	(void)state;
	assert_int_equal(privileged_ready(fd, &err), 0);
	assert_int_equal(privileged_attach(fd, &d, &err), 0);
	assert_string_equal(d.device, "/dev/loop3");
	assert_string_equal(d.way_used, "nbdfuse");
	assert_int_equal(d.links.n, 0);
	fake_stop(&f, fd);
}

static bool is_device(int fd, const char *path)
{
	struct stat a, b;

	return !fstat(fd, &a) && !stat(path, &b) && a.st_rdev == b.st_rdev;
}

static uint32_t served_early;

static void serve_early(void *arg, const char *name, const struct privileged_links *l)
{
	assert_ptr_equal(arg, &served_early);
	assert_string_equal(name, "one");
	assert_true(l->handshake);
	for (uint32_t i = 0; i < l->n; i++) {
		assert_true(is_device(l->fd[i], "/dev/zero"));
		assert_true(is_device(l->ledger[i], "/dev/null"));
		close(l->fd[i]);
		close(l->ledger[i]);
	}
	served_early += l->n;
}

static int next_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

static void connections_before_the_answer_are_served_and_the_answer_is_waited_for(void **state)
{
	struct fake f = {.interim = 4};
	int fd = fake_start(&f), next;
	struct privileged_device d = {.name = "one",
				      .way = "auto",
				      .identity = "",
				      .index = -1,
				      .serve = serve_early,
				      .arg = &served_early};
	struct err err = {0};

	(void)state;
	served_early = 0;
	next = next_fd();
	assert_int_equal(privileged_attach(fd, &d, &err), 0);
	assert_int_equal(served_early, 2);
	assert_string_equal(d.device, "/dev/loop3");
	assert_int_equal(d.links.n, 0);
	f.interim = 3; /* a socket without a ledger */
	assert_int_equal(privileged_attach(fd, &d, &err), 0);
	assert_int_equal(served_early, 2);
	d.serve = NULL;
	f.interim = 4;
	assert_int_equal(privileged_attach(fd, &d, &err), 0);
	assert_int_equal(next_fd(), next); /* those that nobody takes are closed */
	fake_stop(&f, fd);
}

static void a_refusal_carries_the_supervisors_words(void **state)
{
	struct fake f = {.code = -EBUSY};
	int fd = fake_start(&f);
	struct err err = {0};

	(void)state;
	assert_int_equal(privileged_detach(fd, "one", false, &err), -EBUSY);
	assert_string_equal(err.text, "mounted on /mnt; unmount it first");
	fake_stop(&f, fd);
}

static void a_supervisor_that_hangs_up_is_an_error_and_not_a_wait(void **state)
{
	struct fake f = {.hangs_up = true};
	int fd = fake_start(&f);
	struct err err = {0};

	(void)state;
	assert_int_equal(privileged_ready(fd, &err), -EPIPE);
	fake_stop(&f, fd);
}

static void names_too_long_are_never_sent(void **state)
{
	struct fake f = {0};
	int fd = fake_start(&f);
	char name[300];
	struct privileged_device d = {.name = name, .way = "auto", .identity = "", .index = -1};
	struct err err = {0};

	(void)state;
	memset(name, 'n', 299);
	name[299] = 0;
	assert_int_equal(privileged_attach(fd, &d, &err), -ENAMETOOLONG);
	d.name = "one";
	d.way = name;
	assert_int_equal(privileged_attach(fd, &d, &err), -EINVAL);
	d.way = "auto";
	d.queues = SUPERVISOR_LINKS_MAX + 1;
	assert_int_equal(privileged_attach(fd, &d, &err), -EINVAL);
	fake_stop(&f, fd);
	assert_int_equal(f.requests, 0);
}

static void *ask_often(void *arg)
{
	struct err err;

	for (int i = 0; i < 200; i++)
		if (privileged_detach(*(int *)arg, "one", true, &err))
			return (void *)1;
	return NULL;
}

static void threads_get_their_own_replies(void **state)
{
	struct fake f = {.stale_first = true};
	int fd = fake_start(&f);
	pthread_t t[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, ask_often, &fd);
	for (int i = 0; i < 4; i++) {
		void *failed;

		pthread_join(t[i], &failed);
		assert_null(failed);
	}
	fake_stop(&f, fd);
	assert_int_equal(f.requests, 800);
}

static void a_name_becomes_one_harmless_path_component(void **state)
{
	char out[64];

	(void)state;
	assert_int_equal(attach_dir_name("../../etc/passwd", out, sizeof(out)), 0);
	assert_string_equal(out, "%2E.%2F..%2Fetc%2Fpasswd");
	assert_int_equal(attach_dir_name(".", out, sizeof(out)), 0);
	assert_string_equal(out, "%2E");
	assert_int_equal(attach_dir_name("imagenet-1.5_a", out, sizeof(out)), 0);
	assert_string_equal(out, "imagenet-1.5_a");
	assert_int_equal(attach_dir_name("a b\n%", out, 8), -ENAMETOOLONG);
}

static void a_uri_encodes_name_and_socket(void **state)
{
	char out[128];

	(void)state;
	assert_int_equal(attach_uri("/run/a b/nbd.sock", "x/y?z", out, sizeof(out)), 0);
	assert_string_equal(out, "nbd+unix:///x%2Fy%3Fz?socket=/run/a%20b/nbd.sock");
	for (size_t len = 0; len < 49; len++)
		assert_int_equal(attach_uri("/run/a b/nbd.sock", "x/y?z", out, len), -ENAMETOOLONG);
	assert_int_equal(attach_uri("/run/a b/nbd.sock", "x/y?z", out, 49), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_request_is_accepted),
		cmocka_unit_test(a_request_that_is_not_ours_is_refused),
		cmocka_unit_test(a_text_without_an_end_is_refused),
		cmocka_unit_test(an_attach_gets_its_device_and_way),
		cmocka_unit_test(
			connections_before_the_answer_are_served_and_the_answer_is_waited_for),
		cmocka_unit_test(a_refusal_carries_the_supervisors_words),
		cmocka_unit_test(a_supervisor_that_hangs_up_is_an_error_and_not_a_wait),
		cmocka_unit_test(names_too_long_are_never_sent),
		cmocka_unit_test(threads_get_their_own_replies),
		cmocka_unit_test(a_name_becomes_one_harmless_path_component),
		cmocka_unit_test(a_uri_encodes_name_and_socket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
