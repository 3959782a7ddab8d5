/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/privileged.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "worker/supervisor_seen.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t last_id; /* under lock */
static _Thread_local int client = -1;

void privileged_ask_for(int client_fd)
{
	client = client_fd;
}

/* A connection that nobody takes has to end, though the supervisor holds it too. */
static void close_all(const int *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		shutdown(fds[i], SHUT_RDWR);
		close(fds[i]);
	}
}

/* One record with its descriptors into @fds; its length, or a negative errno. */
static ssize_t reply_take(int fd, struct supervisor_reply *reply, int *fds, uint32_t *nfds)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int) * SUPERVISOR_FDS_MAX)];
	} control;
	struct iovec iov = {.iov_base = reply, .iov_len = sizeof(*reply)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC);

	*nfds = 0;
	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		*nfds = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), *nfds * sizeof(int));
	}
	return n;
}

/* The reply to @id; one to an earlier request that timed out is passed over. */
static int reply_wait(int fd, uint32_t id, struct supervisor_reply *reply, int *fds)
{
	uint64_t end = clock_now_ns() + PRIVILEGED_WAIT_MS * NSEC_PER_MSEC;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = clock_now_ns();
		uint32_t nfds;
		ssize_t n;

		if (now >= end)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)((end - now) / NSEC_PER_MSEC) + 1) <= 0)
			continue;
		n = reply_take(fd, reply, fds, &nfds);
		if (n == -EINTR || n == -EAGAIN)
			continue;
		if (n <= 0)
			return n ? (int)n : -EPIPE;
		if (supervisor_reply_check(reply, (size_t)n) || reply->nfds != nfds) {
			close_all(fds, nfds);
			return -EBADMSG;
		}
		if (reply->id == id)
			return 0;
		close_all(fds, nfds);
	}
}

static void links_take(const struct supervisor_reply *reply, const int *fds,
		       struct privileged_links *out)
{
	out->n = reply->nfds / 2;
	out->handshake = reply->flags & SUPERVISOR_REPLY_HANDSHAKE;
	memcpy(out->fd, fds, out->n * sizeof(int));
	memcpy(out->ledger, fds + out->n, out->n * sizeof(int));
}

/* The last reply to @id; connections that come before it are served by @d (may be NULL). */
static int reply_last(int fd, uint32_t id, const struct privileged_device *d,
		      struct supervisor_reply *reply, int *fds)
{
	int rc;

	while (!(rc = reply_wait(fd, id, reply, fds)) &&
	       (reply->flags & SUPERVISOR_REPLY_INTERIM)) {
		struct privileged_links l;

		if (!d || !d->serve || reply->nfds % 2 || reply->nfds > SUPERVISOR_FDS_MAX) {
			close_all(fds, reply->nfds);
			continue;
		}
		links_take(reply, fds, &l);
		d->serve(d->arg, d->name, &l);
	}
	return rc;
}

static bool wants_client(uint32_t op)
{
	return op == SUPERVISOR_ATTACH || op == SUPERVISOR_DETACH || op == SUPERVISOR_UPGRADE;
}

/* With a descriptor: @with, or the client's connection where the supervisor wants to see it. */
static ssize_t request_send(int fd, struct supervisor_request *q, int with)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = q, .iov_len = sizeof(*q)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (with < 0 && wants_client(q->op))
		with = client;
	if (with >= 0) {
		q->nfds = 1;
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &with, sizeof(int));
	}
	return sendmsg(fd, &m, MSG_NOSIGNAL);
}

/* @fds (SUPERVISOR_FDS_MAX) may be NULL where the reply brings none, @d for all but an attach. */
static int ask_with(int fd, struct supervisor_request *q, int with,
		    const struct privileged_device *d, struct supervisor_reply *reply, int *fds,
		    struct err *err)
{
	int scratch[SUPERVISOR_FDS_MAX], rc = 0;

	q->magic = SUPERVISOR_MAGIC;
	q->version = SUPERVISOR_VERSION;
	pthread_mutex_lock(&lock);
	q->id = ++last_id;
	if (request_send(fd, q, with) != (ssize_t)sizeof(*q))
		rc = -errno;
	else
		rc = reply_last(fd, q->id, d, reply, fds ? fds : scratch);
	pthread_mutex_unlock(&lock);
	if (rc == -EPIPE || rc == -ECONNRESET)
		return err_set(
			err, rc,
			"the supervisor is gone and the next has not come yet: start cairnd; "
			"what is attached goes on meanwhile");
	if (rc)
		return err_set(err, rc, "the supervisor does not answer: %s", strerror(-rc));
	if (!fds || reply->code) {
		close_all(fds ? fds : scratch, reply->nfds);
		reply->nfds = 0;
	}
	if (reply->code)
		return err_set(err, reply->code, "%s", reply->text);
	return 0;
}

static int ask_for(int fd, struct supervisor_request *q, const struct privileged_device *d,
		   struct supervisor_reply *reply, int *fds, struct err *err)
{
	return ask_with(fd, q, -1, d, reply, fds, err);
}

static int ask(int fd, struct supervisor_request *q, struct supervisor_reply *reply, int *fds,
	       struct err *err)
{
	return ask_for(fd, q, NULL, reply, fds, err);
}

static int name_put(struct supervisor_request *q, const char *name, struct err *err)
{
	if (strlen(name) >= sizeof(q->name))
		return err_set(err, -ENAMETOOLONG, "export name longer than %zu bytes",
			       sizeof(q->name) - 1);
	strcpy(q->name, name);
	return 0;
}

int privileged_attach(int fd, struct privileged_device *d, struct err *err)
{
	struct supervisor_request q = {.op = SUPERVISOR_ATTACH,
				       .flags = (d->revive ? SUPERVISOR_REVIVE : 0) |
						(d->wait ? SUPERVISOR_WAIT : 0) |
						(d->promotable ? SUPERVISOR_PROMOTABLE : 0) |
						(d->release ? SUPERVISOR_RELEASE : 0),
				       .queues = d->queues,
				       .index = d->index,
				       .value = {d->len}};
	struct supervisor_reply reply;
	int fds[SUPERVISOR_FDS_MAX], rc = name_put(&q, d->name, err);

	if (rc)
		return rc;
	if (strlen(d->way) >= sizeof(q.way))
		return err_set(err, -EINVAL, "no attach way is called %.40s", d->way);
	if (d->queues > SUPERVISOR_LINKS_MAX)
		return err_set(err, -EINVAL, "--queues %u: at most %d", d->queues,
			       SUPERVISOR_LINKS_MAX);
	strcpy(q.way, d->way);
	strncpy(q.identity, d->identity, sizeof(q.identity) - 1);
	rc = ask_for(fd, &q, d, &reply, fds, err);
	if (rc)
		return rc;
	if (reply.nfds % 2) {
		close_all(fds, reply.nfds);
		return err_set(err, -EBADMSG, "the supervisor sent connections without ledgers");
	}
	links_take(&reply, fds, &d->links);
	d->missing = (uint32_t)reply.value[0];
	d->promoted = reply.value[1];
	memcpy(d->device, reply.device, sizeof(reply.device));
	memcpy(d->way_used, reply.way, sizeof(reply.way));
	memcpy(d->passed_over, reply.text, sizeof(reply.text));
	return 0;
}

int privileged_promote(int fd, const char *export_name, int data_fd, struct err *err)
{
	struct supervisor_request q = {.op = SUPERVISOR_PROMOTE};
	struct supervisor_reply reply;
	int rc = name_put(&q, export_name, err);

	return rc ? rc : ask_with(fd, &q, data_fd, NULL, &reply, NULL, err);
}

int privileged_detach(int fd, const char *export_name, bool force, struct err *err)
{
	struct supervisor_request q = {.op = SUPERVISOR_DETACH,
				       .flags = force ? SUPERVISOR_FORCE : 0};
	struct supervisor_reply reply;
	int rc = name_put(&q, export_name, err);

	return rc ? rc : ask(fd, &q, &reply, NULL, err);
}

int privileged_begin(int fd, struct privileged_before *out, struct err *err)
{
	struct supervisor_request q = {.op = SUPERVISOR_BEGIN};
	struct supervisor_reply reply;
	int rc = ask(fd, &q, &reply, NULL, err);

	if (!rc)
		*out = (struct privileged_before){.left_ns = reply.value[0],
						  .pid = reply.value[1],
						  .planned = reply.value[2]};
	return rc;
}

int privileged_upgrade(int fd, uint64_t *next, struct err *err)
{
	struct supervisor_request q = {.op = SUPERVISOR_UPGRADE};
	struct supervisor_reply reply;
	int rc = ask(fd, &q, &reply, NULL, err);

	if (!rc)
		*next = reply.value[0];
	return rc;
}

int privileged_ready(int fd, struct err *err)
{
	struct supervisor_request q = {.op = SUPERVISOR_READY};
	struct supervisor_reply reply;
	int rc = ask(fd, &q, &reply, NULL, err);

	if (!rc)
		supervisor_seen_set(reply.value[0], reply.value[1]);
	return rc;
}

/* Who waits for an answer on the old one is told of its end, and lets go of the lock. */
int privileged_renew(int fd, int fresh)
{
	int rc;

	pthread_mutex_lock(&lock);
	rc = dup3(fresh, fd, O_CLOEXEC) < 0 ? -errno : 0;
	pthread_mutex_unlock(&lock);
	return rc;
}

int privileged_observer(int fd, int *fds, uint32_t max_fds, uint32_t *hooks,
			char line[SUPERVISOR_TEXT_LEN], struct err *err)
{
	struct supervisor_request q = {.op = SUPERVISOR_OBSERVER};
	struct supervisor_reply reply = {0};
	int got[SUPERVISOR_FDS_MAX];
	int rc = ask(fd, &q, &reply, got, err);

	if (rc) {
		memcpy(line, reply.text, sizeof(reply.text));
		return rc;
	}
	if (reply.nfds != max_fds) {
		close_all(got, reply.nfds);
		return err_set(err, -EBADMSG, "the supervisor sent %u maps", reply.nfds);
	}
	memcpy(fds, got, reply.nfds * sizeof(int));
	memcpy(line, reply.text, sizeof(reply.text));
	*hooks = (uint32_t)reply.value[0];
	return 0;
}

int privileged_watch(int fd, const char *export_name, uint64_t len, struct privileged_watch *out,
		     struct err *err)
{
	struct supervisor_request q = {.op = SUPERVISOR_WATCH, .value = {len}};
	struct supervisor_reply reply;
	int fds[SUPERVISOR_FDS_MAX], rc = name_put(&q, export_name, err);

	if (!rc)
		rc = ask(fd, &q, &reply, fds, err);
	if (rc)
		return rc;
	if (reply.nfds != 1) {
		close_all(fds, reply.nfds);
		return err_set(err, -EBADMSG, "the supervisor sent %u heat maps", reply.nfds);
	}
	*out = (struct privileged_watch){.heat_fd = fds[0],
					 .slot = (uint32_t)reply.value[0],
					 .heat_shift = (uint32_t)reply.value[1],
					 .cells = (uint32_t)reply.value[2],
					 .generation = (uint32_t)reply.value[3]};
	return 0;
}

int privileged_unwatch(int fd, const char *export_name, uint32_t generation)
{
	struct supervisor_request q = {.op = SUPERVISOR_UNWATCH, .value = {generation}};
	struct supervisor_reply reply;
	int rc = name_put(&q, export_name, NULL);

	return rc ? rc : ask(fd, &q, &reply, NULL, NULL);
}

int privileged_read_ahead(int fd, const char *export_name, uint64_t kb, uint64_t *now,
			  struct err *err)
{
	struct supervisor_request q = {.op = SUPERVISOR_READ_AHEAD, .value = {kb}};
	struct supervisor_reply reply;
	int rc = name_put(&q, export_name, err);

	if (!rc)
		rc = ask(fd, &q, &reply, NULL, err);
	if (!rc)
		*now = reply.value[0];
	return rc;
}
