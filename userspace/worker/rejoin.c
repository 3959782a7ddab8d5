/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/rejoin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <supervisor_protocol.h>

#include "base/log.h"
#include "worker/links_kept.h"
#include "worker/privileged.h"

#define TRY_EVERY_MS 200
#define ANSWER_S     10 /* a supervisor that starts does nothing else meanwhile */

/* ---- the talk ---- */

static int send_with(int channel, struct supervisor_request *q, const int *fds, uint32_t n)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int) * SUPERVISOR_FDS_MAX)];
	} control = {0};
	struct iovec iov = {.iov_base = q, .iov_len = sizeof(*q)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c = &control.header;

	q->magic = SUPERVISOR_MAGIC;
	q->version = SUPERVISOR_VERSION;
	q->nfds = n;
	if (n) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	return sendmsg(channel, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int say(int channel, struct supervisor_request *q, const int *fds, uint32_t n,
	       struct supervisor_reply *r)
{
	int rc = send_with(channel, q, fds, n);
	ssize_t got = rc ? 0 : recv(channel, r, sizeof(*r), 0);

	if (rc || got <= 0)
		return rc ? rc : got ? -errno : -EPIPE;
	return supervisor_reply_check(r, (size_t)got);
}

/* Those of the name of kept[first]; the place of the next other name. */
static size_t links_say(int channel, const struct link_kept *kept, size_t n, size_t first, int *rc)
{
	struct supervisor_request q = {.op = SUPERVISOR_LINKS, .id = 1};
	struct supervisor_reply r;
	int fds[SUPERVISOR_FDS_MAX] = {0};
	size_t end = first, count;

	strcpy(q.name, kept[first].name);
	while (end < n && strcmp(kept[end].name, q.name) == 0)
		end++;
	count = end - first < SUPERVISOR_LINKS_MAX ? end - first : SUPERVISOR_LINKS_MAX;
	for (size_t i = 0; i < count; i++) {
		fds[i] = kept[first + i].fd;
		fds[count + i] = kept[first + i].ledger;
	}
	*rc = say(channel, &q, fds, (uint32_t)(2 * count), &r);
	if (!*rc && r.code)
		log_warn("worker", "the supervisor does not take all connections",
			 "export=%s why=\"%s\"", q.name, r.text);
	return end;
}

static uint64_t names_count(const struct link_kept *kept, size_t n)
{
	uint64_t count = 0;

	for (size_t i = 0; i < n; i++)
		count += i == 0 || strcmp(kept[i].name, kept[i - 1].name) != 0;
	return count;
}

static int hello(const struct worker_fds *fds, int channel)
{
	int ours[] = {fds->nbd_listen, fds->control_listen, fds->exports_memfd, fds->crash_memfd};
	struct supervisor_request q = {.op = SUPERVISOR_HELLO, .id = 1};
	struct supervisor_reply r;
	size_t n;
	const struct link_kept *kept = links_kept_hold(&n);
	int rc;

	q.value[0] = names_count(kept, n);
	rc = say(channel, &q, ours, sizeof(ours) / sizeof(ours[0]), &r);
	if (!rc && r.code)
		rc = r.code;
	for (size_t i = 0; !rc && i < n;)
		i = links_say(channel, kept, n, i, &rc);
	links_kept_release();
	return rc;
}

/* ---- the thread ---- */

struct rejoin {
	const struct worker_fds *fds;
	struct sockaddr_un at;
	pthread_t thread;
	int stop; /* eventfd */
};

static int connect_to(const struct sockaddr_un *at)
{
	struct timeval bound = {.tv_sec = ANSWER_S};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), rc;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound));
	rc = connect(fd, (const struct sockaddr *)at, sizeof(*at)) ? -errno : 0;
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

static int rejoin_try(struct rejoin *r)
{
	struct timeval none = {0};
	int fd = connect_to(&r->at), rc = fd < 0 ? fd : hello(r->fds, fd);

	if (!rc) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
		rc = privileged_renew(r->fds->supervisor, fd);
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

/* True when told to stop; @fd: return when its other end is gone, too. */
static bool wait_for(struct rejoin *r, int fd, int ms)
{
	struct pollfd p[] = {{.fd = r->stop, .events = POLLIN}, {.fd = fd, .events = POLLRDHUP}};

	poll(p, 2, ms);
	return p[0].revents != 0;
}

static bool is_gone(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0;
}

static void *rejoin_run(void *arg)
{
	struct rejoin *r = arg;
	int said = 0, rc;

	while (!wait_for(r, r->fds->supervisor, -1)) {
		if (!is_gone(r->fds->supervisor))
			continue;
		log_warn("worker", "the supervisor is gone; devices go on, and wait for the next",
			 "socket=%s", r->at.sun_path);
		while ((rc = rejoin_try(r))) {
			if (rc != said && rc != -ENOENT && rc != -ECONNREFUSED)
				log_warn("worker", "no supervisor yet", "why=\"%s\"",
					 strerror(-rc));
			said = rc;
			if (wait_for(r, -1, TRY_EVERY_MS))
				return NULL;
		}
		log_info("worker", "another supervisor has taken over", "%s", "");
	}
	return NULL;
}

int rejoin_start(const struct config *cfg, const struct worker_fds *fds, struct rejoin **out,
		 struct err *err)
{
	struct rejoin *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return err_set(err, -ENOMEM, "out of memory");
	r->fds = fds;
	r->at.sun_family = AF_UNIX;
	snprintf(r->at.sun_path, sizeof(r->at.sun_path), "%s/supervisor.sock", cfg->runtime_dir);
	r->stop = eventfd(0, EFD_CLOEXEC);
	rc = r->stop < 0 ? errno : pthread_create(&r->thread, NULL, rejoin_run, r);
	if (rc) {
		if (r->stop >= 0)
			close(r->stop);
		free(r);
		return err_set(err, -rc, "can't start a thread: %s", strerror(rc));
	}
	*out = r;
	return 0;
}

void rejoin_stop(struct rejoin *r)
{
	uint64_t one = 1;

	if (!r)
		return;
	if (write(r->stop, &one, sizeof(one)) == sizeof(one))
		pthread_join(r->thread, NULL);
	close(r->stop);
	free(r);
}
