/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/answer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int answer_send(int channel, const struct supervisor_reply *r, const struct answer_fds *f)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int) * SUPERVISOR_FDS_MAX)];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)r, .iov_len = sizeof(*r)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (r->nfds) {
		struct cmsghdr *c = &control.header;

		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(r->nfds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(r->nfds * sizeof(int));
		memcpy(CMSG_DATA(c), f->fd, r->nfds * sizeof(int));
	}
	/* never wait for a worker that does not read */
	return sendmsg(channel, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static const char *device_base(const struct attachment *a)
{
	return strncmp(a->device, "/dev/", 5) ? a->device : a->device + 5;
}

static void answer_observer(struct loader *observer, struct supervisor_reply *r,
			    struct answer_fds *fds)
{
	uint32_t hooks;

	strncpy(r->text, loader_hooks(observer, &hooks), sizeof(r->text) - 1);
	r->value[0] = hooks;
	r->code = loader_fds(observer, fds->fd);
	r->nfds = r->code ? 0 : LOADER_FDS;
}

static int answer_watch(struct devices *d, struct loader *observer,
			const struct supervisor_request *q, struct supervisor_reply *r,
			struct answer_fds *fds, struct err *err)
{
	const struct attachment *a = devices_find(d, q->name);
	struct loader_watch w;
	int rc;

	if (!a)
		return err_set(err, -ENOENT, "no device is attached to export '%s'", q->name);
	rc = loader_add(observer, device_base(a), q->value[0], &w, err);
	if (rc)
		return rc;
	r->value[0] = w.slot;
	r->value[1] = w.heat_shift;
	r->value[2] = w.cells;
	r->value[3] = w.generation;
	fds->fd[0] = w.heat_fd;
	r->nfds = 1;
	return 0;
}

static void answer_unwatch(struct devices *d, struct loader *observer,
			   const struct supervisor_request *q)
{
	const struct attachment *a = devices_find(d, q->name);

	if (a && observer)
		loader_remove(observer, device_base(a), (uint32_t)q->value[0]);
}

static void text_put(struct supervisor_reply *r, const char *text)
{
	memcpy(r->text, text, strnlen(text, sizeof(r->text) - 1));
}

void answer_links(const struct attachment *a, struct supervisor_reply *r, struct answer_fds *fds)
{
	uint32_t first = a->nlinks - a->fresh;

	r->nfds = 2 * a->fresh;
	if (a->way->handshake)
		r->flags |= SUPERVISOR_REPLY_HANDSHAKE;
	memcpy(fds->fd, &a->links[first], a->fresh * sizeof(int));
	memcpy(&fds->fd[a->fresh], &a->ledgers[first], a->fresh * sizeof(int));
}

/* The worker's ends of connections that it has not got yet go with the reply. */
static void answer_attach(struct devices *d, const struct supervisor_request *q,
			  struct supervisor_reply *r, struct answer_fds *fds, struct err *err)
{
	struct device_wish w = {.name = q->name,
				.way = q->way,
				.identity = q->identity,
				.size = q->value[0],
				.queues = q->queues,
				.index = q->index,
				.revive = q->flags & SUPERVISOR_REVIVE,
				.wait = q->flags & SUPERVISOR_WAIT,
				.promotable = q->flags & SUPERVISOR_PROMOTABLE,
				.release = q->flags & SUPERVISOR_RELEASE};
	struct attachment *a = NULL;
	struct err passed_over;

	r->code = devices_attach(d, &w, &a, &passed_over, err);
	if (r->code)
		return;
	strcpy(r->device, a->device);
	strncpy(r->way, a->way->name, sizeof(r->way) - 1);
	text_put(r, passed_over.text);
	r->value[0] = devices_missing(a);
	r->value[1] = a->promoted.ino != 0;
	answer_links(a, r, fds);
}

/* Attach or detach; a device that is no longer the export's is not watched any longer. */
static void answer_device(struct devices *d, struct loader *observer,
			  const struct supervisor_request *q, struct supervisor_reply *r,
			  struct answer_fds *fds, struct err *err)
{
	const struct attachment *a = devices_find(d, q->name);
	char before[SUPERVISOR_DEVICE_LEN] = "";

	if (a)
		strcpy(before, device_base(a));
	if (q->op == SUPERVISOR_ATTACH)
		answer_attach(d, q, r, fds, err);
	else
		r->code = devices_detach(d, q->name, q->flags & SUPERVISOR_FORCE, err);
	a = devices_find(d, q->name);
	if (observer && before[0] && (!a || strcmp(before, device_base(a)) != 0))
		loader_remove(observer, before, 0);
}

void answer_error(struct supervisor_reply *r, const struct err *err)
{
	r->code = err->code;
	text_put(r, err->text);
}

void answer_request(struct devices *d, struct loader *observer, const struct supervisor_request *q,
		    struct supervisor_reply *r, struct answer_fds *fds)
{
	struct err err = {0};

	if (q->op == SUPERVISOR_ATTACH || q->op == SUPERVISOR_DETACH)
		answer_device(d, observer, q, r, fds, &err);
	else if (q->op == SUPERVISOR_OBSERVER)
		answer_observer(observer, r, fds);
	else if (q->op == SUPERVISOR_WATCH)
		r->code = answer_watch(d, observer, q, r, fds, &err);
	else if (q->op == SUPERVISOR_UNWATCH)
		answer_unwatch(d, observer, q);
	else if (q->op == SUPERVISOR_READ_AHEAD)
		r->code = devices_read_ahead(d, q->name, q->value[0], &r->value[0], &err);
	else
		r->code = err_set(&err, -ENOTSUP, "this supervisor knows no request %u", q->op);
	if (r->code)
		text_put(r, err.text);
}
