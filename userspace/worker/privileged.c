/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/privileged.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <supervisor_protocol.h>

#include "base/clock.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t last_id; /* under lock */

/* The reply to @id; one to an earlier request that timed out is passed over. */
static int reply_wait(int fd, uint32_t id, struct supervisor_reply *reply)
{
	uint64_t end = clock_now_ns() + PRIVILEGED_WAIT_MS * NSEC_PER_MSEC;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = clock_now_ns();
		ssize_t n;

		if (now >= end)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)((end - now) / NSEC_PER_MSEC) + 1) <= 0)
			continue;
		n = recv(fd, reply, sizeof(*reply), MSG_DONTWAIT | MSG_TRUNC);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return n ? -errno : -EPIPE;
		if (supervisor_reply_check(reply, (size_t)n))
			return -EBADMSG;
		if (reply->id == id)
			return 0;
	}
}

static int ask(int fd, struct supervisor_request *q, struct supervisor_reply *reply,
	       struct err *err)
{
	int rc = 0;

	q->magic = SUPERVISOR_MAGIC;
	q->version = SUPERVISOR_VERSION;
	pthread_mutex_lock(&lock);
	q->id = ++last_id;
	if (send(fd, q, sizeof(*q), MSG_NOSIGNAL) != (ssize_t)sizeof(*q))
		rc = -errno;
	else
		rc = reply_wait(fd, q->id, reply);
	pthread_mutex_unlock(&lock);
	if (rc)
		return err_set(err, rc, "the supervisor does not answer: %s", strerror(-rc));
	if (reply->code)
		return err_set(err, reply->code, "%s", reply->text);
	return 0;
}

static int name_put(struct supervisor_request *q, const char *name, struct err *err)
{
	if (strlen(name) >= sizeof(q->name))
		return err_set(err, -ENAMETOOLONG, "export name longer than %zu bytes",
			       sizeof(q->name) - 1);
	strcpy(q->name, name);
	return 0;
}

int privileged_attach(int fd, const char *export_name, const char *way, char device[64],
		      char way_used[32], struct err *err)
{
	struct supervisor_request q = {.op = SUPERVISOR_ATTACH};
	struct supervisor_reply reply;
	int rc = name_put(&q, export_name, err);

	if (rc)
		return rc;
	if (strlen(way) >= sizeof(q.way))
		return err_set(err, -EINVAL, "no attach way is called %.40s", way);
	strcpy(q.way, way);
	rc = ask(fd, &q, &reply, err);
	if (rc)
		return rc;
	memcpy(device, reply.device, sizeof(reply.device));
	memcpy(way_used, reply.way, sizeof(reply.way));
	return 0;
}

int privileged_detach(int fd, const char *export_name, bool force, struct err *err)
{
	struct supervisor_request q = {.op = SUPERVISOR_DETACH,
				       .flags = force ? SUPERVISOR_FORCE : 0};
	struct supervisor_reply reply;
	int rc = name_put(&q, export_name, err);

	return rc ? rc : ask(fd, &q, &reply, err);
}

int privileged_ready(int fd, struct err *err)
{
	struct supervisor_request q = {.op = SUPERVISOR_READY};
	struct supervisor_reply reply;

	return ask(fd, &q, &reply, err);
}
