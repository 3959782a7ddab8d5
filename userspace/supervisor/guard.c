/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/guard.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

#define DIGEST_PREFIX "sha256:"
#define DIGEST_HEX    64
#define BLOCK	      4096
#define COST_LINE     100 /* of one in the log: ten a second */

void guard_init(struct guard *g, const char *control_socket, uint64_t now_ns)
{
	*g = (struct guard){.control_socket = control_socket,
			    .owner = geteuid(),
			    .credit = GUARD_BURST,
			    .credit_ns = now_ns};
}

/* ---- a record and its descriptors ---- */

static void fds_take(struct msghdr *m, struct guard_fds *fds)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		uint32_t n = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		if (n > SUPERVISOR_FDS_MAX - fds->n) /* the room bounds it */
			n = SUPERVISOR_FDS_MAX - fds->n;
		memcpy(&fds->fd[fds->n], CMSG_DATA(c), n * sizeof(int));
		fds->n += n;
	}
}

ssize_t guard_receive(int channel, struct supervisor_request *q, struct guard_fds *fds)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int) * SUPERVISOR_FDS_MAX)];
	} control;
	struct iovec iov = {.iov_base = q, .iov_len = sizeof(*q)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(channel, &m, MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC);

	fds->n = 0;
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	fds_take(&m, fds);
	return n ? n : -EPIPE;
}

static int socket_option(int fd, int name)
{
	int value;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) ? -errno : value;
}

/* A file of a FUSE mount asks its server when it is closed. */
static void *close_aside(void *arg)
{
	close((int)(intptr_t)arg);
	return NULL;
}

static void put_away(int fd)
{
	static const struct linger none;
	pthread_attr_t attr;
	pthread_t t;

	if (socket_option(fd, SO_TYPE) >= 0) { /* a TCP socket may be set to wait at its close */
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
		close(fd);
		return;
	}
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&t, &attr, close_aside, (void *)(intptr_t)fd))
		close(fd);
	pthread_attr_destroy(&attr);
}

void guard_release(struct guard_fds *fds)
{
	for (uint32_t i = 0; i < fds->n; i++)
		put_away(fds->fd[i]);
	fds->n = 0;
}

/* ---- values ---- */

static bool text_is_plain(const char *s)
{
	for (; *s; s++)
		if (iscntrl((unsigned char)*s))
			return false;
	return true;
}

static bool identity_is_good(const char *s)
{
	size_t prefix = strlen(DIGEST_PREFIX);

	return !s[0] ||
	       (strncmp(s, DIGEST_PREFIX, prefix) == 0 && strlen(s) == prefix + DIGEST_HEX &&
		strspn(s + prefix, "0123456789abcdef") == DIGEST_HEX);
}

static bool length_is_good(uint64_t len)
{
	return len && len <= INT64_MAX;
}

static int values_check(const struct supervisor_request *q, struct err *err)
{
	bool good = text_is_plain(q->name) && text_is_plain(q->way);

	if (q->op == SUPERVISOR_ATTACH)
		good = good && identity_is_good(q->identity) && length_is_good(q->value[0]) &&
		       q->value[0] % BLOCK == 0;
	else if (q->op == SUPERVISOR_WATCH)
		good = good && length_is_good(q->value[0]);
	else if (q->op == SUPERVISOR_PROMOTE)
		good = good && q->nfds == 1;
	else if (q->op == SUPERVISOR_READ_AHEAD)
		good = good && (q->value[0] == UINT64_MAX || q->value[0] <= GUARD_READ_AHEAD_KB);
	return good ? 0
		    : err_set(err, -EINVAL, "the supervisor takes no such value in request %u",
			      q->op);
}

/* ---- consent ---- */

static bool makes_device(const struct supervisor_request *q)
{
	return q->op == SUPERVISOR_ATTACH && !(q->flags & SUPERVISOR_REVIVE);
}

static bool needs_consent(const struct supervisor_request *q)
{
	return makes_device(q) || q->op == SUPERVISOR_DETACH || q->op == SUPERVISOR_UPGRADE;
}

/* A connection that was accepted from the control socket: nobody else can bind that path, and a
 * socket pair has none. */
static bool is_of_control_socket(const struct guard *g, int fd)
{
	struct sockaddr_un a;
	socklen_t len = sizeof(a);

	memset(&a, 0, sizeof(a));
	if (socket_option(fd, SO_DOMAIN) != AF_UNIX || socket_option(fd, SO_TYPE) != SOCK_STREAM ||
	    socket_option(fd, SO_ACCEPTCONN) != 0)
		return false;
	return !getsockname(fd, (struct sockaddr *)&a, &len) && len <= sizeof(a) &&
	       strnlen(a.sun_path, sizeof(a.sun_path)) < sizeof(a.sun_path) &&
	       strcmp(a.sun_path, g->control_socket) == 0;
}

/* Who connected, as the kernel noted then, and is there still. */
static bool may_order(const struct guard *g, int fd)
{
	struct ucred who;
	socklen_t len = sizeof(who);
	struct pollfd p = {.fd = fd};

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) &&
	       (who.uid == 0 || who.uid == g->owner) && poll(&p, 1, 0) >= 0 &&
	       !(p.revents & (POLLHUP | POLLERR | POLLNVAL));
}

/* False when it was there before. */
static bool use_once(struct guard *g, int fd)
{
	uint64_t cookie;
	socklen_t len = sizeof(cookie);

	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len))
		return false;
	for (unsigned i = 0; i < GUARD_USED && i < g->nused; i++)
		if (g->used[i] == cookie)
			return false;
	g->used[g->nused++ % GUARD_USED] = cookie;
	if (g->nused == 2 * GUARD_USED)
		g->nused = GUARD_USED;
	return true;
}

static int consent_check(struct guard *g, const struct supervisor_request *q,
			 const struct guard_fds *fds, struct err *err)
{
	int fd = fds->n == 1 ? fds->fd[0] : -1;

	if (fd < 0 || !is_of_control_socket(g, fd) || !may_order(g, fd))
		return err_set(err, -EPERM,
			       "devices are made and taken away while root asks on the control "
			       "socket, and nobody does");
	if (makes_device(q) && !use_once(g, fd))
		return err_set(err, -EPERM,
			       "one connection to the control socket makes one device: open "
			       "another");
	return 0;
}

int guard_check(struct guard *g, const struct supervisor_request *q, const struct guard_fds *fds,
		size_t devices, struct err *err)
{
	int rc = values_check(q, err);

	if (!rc && makes_device(q) && devices >= GUARD_DEVICES_MAX)
		rc = err_set(err, -ENOSPC, "%d devices stand: detach one first", GUARD_DEVICES_MAX);
	if (!rc && needs_consent(q))
		rc = consent_check(g, q, fds, err);
	return rc;
}

/* ---- rations ---- */

static double credit_at(const struct guard *g, uint64_t now_ns)
{
	double credit = g->credit;

	if (now_ns > g->credit_ns)
		credit += (double)(now_ns - g->credit_ns) * GUARD_RATE / NSEC_PER_SEC;
	return credit < GUARD_BURST ? credit : GUARD_BURST;
}

static void guard_charge(struct guard *g, double credit, uint64_t now_ns)
{
	g->credit = credit_at(g, now_ns) - credit;
	g->credit_ns = now_ns;
}

void guard_charge_request(struct guard *g, const struct supervisor_request *q, uint64_t began_ns,
			  uint64_t now_ns)
{
	double took = (double)(now_ns - began_ns) * GUARD_RATE / NSEC_PER_SEC;

	if (needs_consent(q))
		took = 0;
	guard_charge(g, (q->op == SUPERVISOR_READY ? COST_LINE : 1) + 2 * took, now_ns);
}

int guard_wait_ms(const struct guard *g, uint64_t now_ns)
{
	double credit = credit_at(g, now_ns);

	return credit >= 0 ? 0 : (int)(-credit * 1000 / GUARD_RATE) + 1;
}
