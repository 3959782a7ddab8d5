/* SPDX-License-Identifier: Apache-2.0 */
/* A worker that somebody else has taken over: preloaded into cairnd, it stands in for main() of the
 * process that the supervisor started as its worker, with that one's user and descriptors but no
 * filter, and asks for all it could want. One phase a life; $CAIRN_HOSTILE/phase counts them,
 * $CAIRN_HOSTILE/said holds what was granted, and a line "over" in the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <dlfcn.h>

#include <supervisor_protocol.h>

#define CONTROL	   4 /* userspace/supervisor/worker_process.c */
#define SUPERVISOR 5
#define FLOOD	   600
#define DEAF	   2000
#define WAIT_MS	   20000

static const char *dir;
static unsigned granted, refused;

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int fd, n;

	snprintf(line, sizeof(line), "%s/said", dir);
	fd = open(line, O_WRONLY | O_CREAT | O_APPEND, 0644);
	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	line[n++] = '\n';
	if (write(fd, line, (size_t)n) != n)
		_exit(9);
	close(fd);
}

static unsigned phase_next(void)
{
	char path[256];
	unsigned char life[16] = {0};
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/phase", dir);
	fd = open(path, O_RDWR | O_CREAT | O_APPEND, 0644);
	n = pread(fd, life, sizeof(life), 0);
	if (write(fd, "x", 1) != 1)
		_exit(9);
	close(fd);
	return n < 0 ? 0 : (unsigned)n;
}

static struct supervisor_request request(uint32_t op, const char *name)
{
	struct supervisor_request q = {.magic = SUPERVISOR_MAGIC,
				       .version = SUPERVISOR_VERSION,
				       .op = op,
				       .id = 7,
				       .index = -1,
				       .value = {1 << 20},
				       .way = "auto"};

	strncpy(q.name, name, sizeof(q.name) - 1);
	return q;
}

static int tell(const void *what, size_t len, const int *fds, unsigned n)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int) * 253)];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)what, .iov_len = len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
	}
	return sendmsg(SUPERVISOR, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static bool may_be_had_by_any_worker(const struct supervisor_request *q)
{
	return q->op == SUPERVISOR_READY || q->op == SUPERVISOR_OBSERVER ||
	       q->op == SUPERVISOR_UNWATCH || q->op == SUPERVISOR_BEGIN;
}

static void ask(struct supervisor_request *q, const int *fds, unsigned n)
{
	struct pollfd p = {.fd = SUPERVISOR, .events = POLLIN};
	struct supervisor_reply r;

	q->nfds = n;
	if (tell(q, sizeof(*q), fds, n) || poll(&p, 1, WAIT_MS) <= 0 ||
	    recv(SUPERVISOR, &r, sizeof(r), 0) != sizeof(r)) {
		say("no answer to op %u name '%.60s'", q->op, q->name);
		_exit(9);
	}
	if (r.code < 0) {
		refused++;
	} else if (!may_be_had_by_any_worker(q)) {
		granted++;
		say("granted: op %u name '%.60s' way '%s' index %d device '%s'", q->op, q->name,
		    q->way, q->index, r.device);
	}
}

/* The worker's user is in the group that may ask, so it can connect, to itself. */
static int own_connection(int *client)
{
	struct sockaddr_un a;
	socklen_t len = sizeof(a);

	*client = socket(AF_UNIX, SOCK_STREAM, 0);
	if (getsockname(CONTROL, (struct sockaddr *)&a, &len) ||
	    connect(*client, (struct sockaddr *)&a, len))
		return -errno;
	return accept(CONTROL, NULL, NULL);
}

static void asks_for_everything(void)
{
	static const char *const names[] = {"image", "../../../etc/passwd", "/dev/sda",
					    "/dev/loop0", "a\nlevel=error"};
	static const char *const ways[] = {"auto", "nbdfuse", "/bin/sh"};
	int pair[2], client, consent[4];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		_exit(9);
	consent[0] = pair[0];
	consent[1] = own_connection(&client);
	consent[2] = memfd_create("x", 0);
	consent[3] = CONTROL;
	if (consent[1] < 0)
		say("no connection of its own: %s", strerror(-consent[1]));
	for (uint32_t op = SUPERVISOR_READY; op <= SUPERVISOR_PROMOTE; op++)
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++)
				for (int c = 0; c < 5; c++) {
					struct supervisor_request q = request(op, names[i]);

					strcpy(q.way, ways[w]);
					q.index = c == 3 ? 0 : -1;
					q.flags = c % 2 ? SUPERVISOR_FORCE : 0;
					q.queues = w ? SUPERVISOR_LINKS_MAX : 0;
					ask(&q, &consent[c % 4], c < 4);
				}
	say("granted %u, refused %s", granted, refused > 500 ? "over 500" : "too few");
}

/* Each of these ends the life that sends it. */
static void sends_what_is_no_request(unsigned which)
{
	struct supervisor_request q = request(SUPERVISOR_ATTACH, "image");
	struct pollfd p = {.fd = SUPERVISOR, .events = POLLRDHUP};
	int fds[200];

	for (int i = 0; i < 200; i++)
		fds[i] = SUPERVISOR;
	if (which == 0) {
		tell(&q, 5, NULL, 0);
	} else if (which == 1) {
		memset(q.name, 'x', sizeof(q.name));
		tell(&q, sizeof(q), NULL, 0);
	} else {
		tell(&q, sizeof(q), fds, 200);
	}
	poll(&p, 1, WAIT_MS);
	sleep(5); /* to be killed */
	say("it lives on after record %u", which);
}

/* Reads no reply: the supervisor does not wait, and ends it. */
static void hears_nothing(void)
{
	struct supervisor_request q = request(SUPERVISOR_READ_AHEAD, "image");

	for (int i = 0; i < DEAF; i++)
		tell(&q, sizeof(q), NULL, 0);
	sleep(5); /* to be killed */
	say("it lives on without hearing");
}

/* Each of these costs the supervisor a line in its log or the time of a look-up. */
static void floods(void)
{
	static const uint32_t ops[] = {SUPERVISOR_DETACH, SUPERVISOR_READ_AHEAD, SUPERVISOR_WATCH};
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < FLOOD; i++) {
		struct supervisor_request q =
			request(i % 5 ? ops[i % 3] : SUPERVISOR_READY, i % 5 ? "image" : "");

		ask(&q, NULL, 0);
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	say("flooded, seconds: %ld", b.tv_sec - a.tv_sec);
}

static int hostile_main(int argc, char **argv, char **env)
{
	unsigned phase = phase_next();

	(void)argc;
	(void)argv;
	(void)env;
	if (phase == 0) {
		asks_for_everything();
		raise(SIGKILL);
	}
	if (phase <= 3)
		sends_what_is_no_request(phase - 1);
	else if (phase == 4)
		hears_nothing();
	else if (phase == 5)
		floods();
	say("over");
	pause();
	return 0;
}

typedef int main_fn(int, char **, char **);
typedef int start_fn(main_fn *, int, char **, main_fn *, void (*)(void), void (*)(void), void *);

start_fn __libc_start_main; /* libc's, stood in for */

int __libc_start_main(main_fn *fn, int argc, char **argv, main_fn *init, void (*fini)(void),
		      void (*rtld_fini)(void), void *stack)
{
	start_fn *start = (start_fn *)dlsym(RTLD_NEXT, "__libc_start_main");

	dir = getenv("CAIRN_HOSTILE");
	if (dir && argc > 1 && strcmp(argv[1], "--worker") == 0)
		fn = hostile_main;
	return start(fn, argc, argv, init, fini, rtld_fini, stack);
}
