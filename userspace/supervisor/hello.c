/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/hello.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <supervisor_protocol.h>

#include "base/clock.h"
#include "base/log.h"
#include "supervisor/answer.h"

#define RECORD_WAIT_S 5 /* between two records of one worker */

struct record {
	struct supervisor_request q;
	int fds[SUPERVISOR_FDS_MAX];
	uint32_t nfds;
};

static void record_drop(struct record *r)
{
	for (uint32_t i = 0; i < r->nfds; i++)
		close(r->fds[i]);
	r->nfds = 0;
}

/* 0 or a negative errno; on success the descriptors are the caller's. */
static int record_take(int channel, struct record *r)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int) * SUPERVISOR_FDS_MAX)];
	} control;
	struct iovec iov = {.iov_base = &r->q, .iov_len = sizeof(r->q)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(channel, &m, MSG_TRUNC | MSG_CMSG_CLOEXEC);
	int rc;

	r->nfds = 0;
	if (n <= 0)
		return n ? -errno : -EPIPE;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		r->nfds = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(r->fds, CMSG_DATA(c), r->nfds * sizeof(int));
	}
	rc = supervisor_request_check(&r->q, (size_t)n);
	if (!rc && r->nfds != r->q.nfds)
		rc = -EBADMSG;
	if (rc)
		record_drop(r);
	return rc;
}

/* Those of the record that @known names; the others are closed, and it is said. */
static int record_keep(struct record *r, const struct file_id *known, size_t n,
		       struct inherited *in)
{
	int rc = 0;

	for (uint32_t i = 0; i < r->nfds; i++) {
		struct file_id id = file_id_of(r->fds[i]);
		size_t k = 0;

		while (k < n && !file_id_equal(id, known[k]))
			k++;
		if (k < n) {
			inherited_add(in, r->fds[i]);
			continue;
		}
		close(r->fds[i]);
		rc = -EPERM;
	}
	r->nfds = 0;
	return rc;
}

static int links_keep(struct record *r, const struct state *before, struct inherited *in)
{
	struct file_id known[SUPERVISOR_FDS_MAX];

	for (size_t i = 0; i < before->ndevices; i++) {
		const struct state_device *d = &before->devices[i];

		if (strcmp(d->name, r->q.name) != 0)
			continue;
		memcpy(known, d->links, d->nlinks * sizeof(*known));
		memcpy(known + d->nlinks, d->ledgers, d->nlinks * sizeof(*known));
		return record_keep(r, known, 2 * d->nlinks, in);
	}
	return record_keep(r, NULL, 0, in);
}

static int reply(int channel, const struct record *r, const struct state *before, int code)
{
	struct supervisor_reply a = {.magic = SUPERVISOR_MAGIC,
				     .version = SUPERVISOR_VERSION,
				     .id = r->q.id,
				     .code = code,
				     .value = {(uint64_t)getpid(), before->takeovers + 1}};

	if (code)
		snprintf(a.text, sizeof(a.text),
			 "a descriptor that no supervisor gave this worker");
	return answer_send(channel, &a, NULL);
}

/* HELLO, and as many LINKS as it announces. */
static int converse(int channel, const struct state *before, struct inherited *in)
{
	const struct file_id ours[] = {before->control, before->nbd, before->roster, before->crash};
	struct record r;
	uint64_t n;
	int rc = record_take(channel, &r);

	if (rc)
		return rc;
	n = r.q.value[0];
	if (r.q.op != SUPERVISOR_HELLO || n > before->ndevices) {
		record_drop(&r);
		return -EBADMSG;
	}
	rc = record_keep(&r, ours, sizeof(ours) / sizeof(ours[0]), in);
	if (reply(channel, &r, before, rc) || rc)
		return rc ? rc : -EPIPE;
	for (uint64_t i = 0; !rc && i < n; i++) {
		rc = record_take(channel, &r);
		if (!rc && r.q.op != SUPERVISOR_LINKS) {
			record_drop(&r);
			rc = -EBADMSG;
		}
		if (rc)
			break;
		rc = links_keep(&r, before, in);
		if (rc) /* a connection made while its supervisor died is in no record: it ends */
			log_warn("supervisor", "a worker offers what it was never given",
				 "export=%s", r.q.name);
		rc = reply(channel, &r, before, rc);
	}
	return rc;
}

static bool is_worker(int channel, const struct process *worker)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	if (!getsockopt(channel, SOL_SOCKET, SO_PEERCRED, &who, &len) && who.pid == worker->pid &&
	    process_is(worker))
		return true;
	log_warn("supervisor", "a stranger says it is our worker", "pid=%d", who.pid);
	return false;
}

/* Effective; -1 when there is no such process. */
static uid_t user_of(pid_t pid)
{
	char path[48], line[256];
	unsigned uid = (unsigned)-1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Uid: %*u %u", &uid) == 1)
			break;
	if (f)
		fclose(f);
	return uid;
}

/* For @worker alone, who may be of another user. */
static int listen_at(const char *path, pid_t worker, struct err *err)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd, rc;
	mode_t mask;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: longer than a socket's path may be", path);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, "socket: %s", strerror(errno));
	unlink(path);
	mask = umask(0177);
	rc = bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 8) ? -errno : 0;
	umask(mask);
	if (!rc && chown(path, user_of(worker), (gid_t)-1))
		rc = -errno;
	if (!rc)
		return fd;
	close(fd);
	return err_set(err, rc, "can't listen on %s: %s", path, strerror(-rc));
}

/* Whoever comes, one after another, until the worker's talk succeeded. */
static int accept_worker(int listener, const struct state *before, int ms, struct inherited *in,
			 int *channel, struct err *err)
{
	uint64_t end = clock_now_ns() + (uint64_t)ms * NSEC_PER_MSEC, now;
	struct timeval bound = {.tv_sec = RECORD_WAIT_S}, none = {0};

	while ((now = clock_now_ns()) < end && process_is(&before->worker)) {
		struct pollfd p = {.fd = listener, .events = POLLIN};
		int fd, rc = -EPERM;

		if (poll(&p, 1, 100) <= 0)
			continue;
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound));
		if (is_worker(fd, &before->worker)) {
			rc = converse(fd, before, in);
			if (rc)
				log_warn("supervisor", "the worker's hello was refused",
					 "pid=%d why=\"%s\"", before->worker.pid, strerror(-rc));
		}
		if (!rc) {
			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
			*channel = fd;
			return 0;
		}
		inherited_close(in);
		close(fd);
	}
	return err_set(err, -ETIMEDOUT, "worker %d of the supervisor before does not answer",
		       before->worker.pid);
}

int hello_wait(const char *runtime_dir, const struct state *before, int ms, struct inherited *in,
	       int *channel, struct err *err)
{
	char path[PATH_MAX];
	int listener, rc;

	snprintf(path, sizeof(path), "%s/supervisor.sock", runtime_dir);
	listener = listen_at(path, before->worker.pid, err);
	if (listener < 0)
		return listener;
	rc = accept_worker(listener, before, ms, in, channel, err);
	close(listener);
	unlink(path);
	return rc;
}
