/* SPDX-License-Identifier: Apache-2.0 */
/* Two sockets: one asks and waits for its answer, one hears events. The kernel does what it is
 * asked inside our send(), and each of these waits only for what ends by itself; the wait for the
 * answer is bounded by SO_RCVTIMEO.
 */
#include "nbd/attach/netlink.h"

#include <errno.h>
#include <linux/nbd-netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "nbd/attach/netlink_message.h"

#define ANSWER_WAIT_S 10
#define EVENT_BUFFER  (1 << 20)

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

struct nbd_netlink {
	struct nl_sock *ask, *events;
	int family;
};

/* One answer on its way. */
struct answer {
	uint8_t cmd;
	int index;  /* asked about, or told */
	int status; /* STATUS */
	int rc;	    /* 1 = not yet there */
	char reason[160];
};

static int on_message(struct nl_msg *m, void *arg)
{
	struct answer *a = arg;

	if (a->cmd == NBD_CMD_CONNECT)
		nbd_message_index(nlmsg_hdr(m), NBD_CMD_CONNECT, &a->index);
	else if (a->cmd == NBD_CMD_STATUS)
		a->status = nbd_message_status(nlmsg_hdr(m), a->index);
	return NL_OK;
}

static int on_ack(struct nl_msg *m, void *arg)
{
	struct answer *a = arg;

	(void)m;
	a->rc = 0;
	return NL_STOP;
}

static int on_error(struct sockaddr_nl *who, struct nlmsgerr *e, void *arg)
{
	struct nlmsghdr *h = (struct nlmsghdr *)((char *)e - NLMSG_HDRLEN);
	const char *reason = nbd_message_reason(h);
	struct answer *a = arg;

	(void)who;
	a->rc = e->error;
	if (reason)
		strncpy(a->reason, reason, sizeof(a->reason) - 1);
	return NL_STOP;
}

static int answer_wait(struct nbd_netlink *n, struct answer *a)
{
	struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);
	int rc = 0;

	if (!cb)
		return -ENOMEM;
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_message, a);
	nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_ack, a);
	nl_cb_err(cb, NL_CB_CUSTOM, on_error, a);
	for (a->rc = 1; a->rc > 0 && rc >= 0;)
		rc = nl_recvmsgs(n->ask, cb);
	nl_cb_put(cb);
	if (a->rc <= 0)
		return a->rc;
	return rc == -NLE_AGAIN ? -ETIMEDOUT : -EIO;
}

/* Consumes @m. */
static int ask(struct nbd_netlink *n, struct nl_msg *m, struct answer *a)
{
	int rc = nl_send_auto(n->ask, m);

	nlmsg_free(m);
	if (rc < 0)
		return rc == -NLE_PERM ? -EPERM : -EIO;
	rc = answer_wait(n, a);
	if (rc == -ETIMEDOUT ||
	    rc == -EIO) /* its late answer must not be taken for the next one's */
		while (recv(nl_socket_get_fd(n->ask), &(char){0}, 1, MSG_DONTWAIT) > 0)
			;
	return rc;
}

static int ask_about(struct nbd_netlink *n, uint8_t cmd, int index, struct answer *a)
{
	struct nl_msg *m = nbd_message_new(n->family, cmd);

	*a = (struct answer){.cmd = cmd, .index = index, .status = -EBADMSG};
	if (m && index >= 0 && nbd_message_put_index(m, index)) {
		nlmsg_free(m);
		m = NULL;
	}
	return m ? ask(n, m, a) : -ENOMEM;
}

static int ask_device(struct nbd_netlink *n, uint8_t cmd, const struct nbd_netlink_device *d,
		      struct answer *a)
{
	struct nl_msg *m = nbd_message_new(n->family, cmd);

	*a = (struct answer){.cmd = cmd, .index = d->index};
	if (m && nbd_message_put_device(m, d)) {
		nlmsg_free(m);
		m = NULL;
	}
	return m ? ask(n, m, a) : -ENOMEM;
}

/* What the kernel says, with its own words where it gave some. */
static int refusal(struct err *err, int rc, const struct answer *a, const char *what, int index)
{
	char device[32] = "a free device";

	if (index >= 0)
		snprintf(device, sizeof(device), "/dev/nbd%d", index);
	if (rc == -EPERM)
		return err_set(
			err, rc,
			"the kernel refuses to %s %s: cairnd lacks CAP_SYS_ADMIN in the first "
			"user namespace",
			what, device);
	return err_set(err, rc, "the kernel refuses to %s %s: %s%s%s (its log may say more: dmesg)",
		       what, device, strerror(-rc), a->reason[0] ? ": " : "", a->reason);
}

/* ---- open ---- */

static int sockets_open(struct nbd_netlink *n)
{
	struct timeval wait = {.tv_sec = ANSWER_WAIT_S};
	int on = 1, fd;

	n->ask = nl_socket_alloc();
	n->events = nl_socket_alloc();
	if (!n->ask || !n->events)
		return -ENOMEM;
	if (genl_connect(n->ask) || genl_connect(n->events))
		return -EPROTONOSUPPORT;
	fd = nl_socket_get_fd(n->ask);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)))
		return -errno;
	/* wishes: before 4.12 there are none */
	setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	return 0;
}

static int events_join(struct nbd_netlink *n)
{
	int group = genl_ctrl_resolve_grp(n->ask, NBD_GENL_FAMILY_NAME, NBD_GENL_MCAST_GROUP_NAME);

	if (group < 0 || nl_socket_add_membership(n->events, group))
		return -EPROTO;
	nl_socket_set_buffer_size(n->events, EVENT_BUFFER, 0);
	return nl_socket_set_nonblocking(n->events) ? -EIO : 0;
}

/* A disconnect of nothing: the kernel looks at rights first, and then misses the index. */
static bool has_rights(struct nbd_netlink *n)
{
	struct answer a;

	return ask_about(n, NBD_CMD_DISCONNECT, -1, &a) != -EPERM;
}

static int open_all(struct nbd_netlink *n, struct err *err)
{
	int rc = sockets_open(n);

	if (rc)
		return err_set(err, rc, "generic netlink: %s", strerror(-rc));
	n->family = genl_ctrl_resolve(n->ask, NBD_GENL_FAMILY_NAME);
	if (n->family < 0)
		return err_set(err, -ENOTSUP,
			       "this kernel has no nbd: load its module (modprobe nbd max_part=0) "
			       "on the host");
	rc = events_join(n);
	if (rc)
		return err_set(err, rc, "the events of the kernel's nbd can't be heard: %s",
			       strerror(-rc));
	if (!has_rights(n))
		return err_set(
			err, -EPERM,
			"the kernel's nbd refuses cairnd: it needs CAP_SYS_ADMIN in the first "
			"user namespace (root on the host, or a privileged container)");
	return 0;
}

int nbd_netlink_open(struct nbd_netlink **out, struct err *err)
{
	struct nbd_netlink *n = calloc(1, sizeof(*n));
	int rc = n ? open_all(n, err) : err_set(err, -ENOMEM, "out of memory");

	if (rc)
		nbd_netlink_close(n);
	else
		*out = n;
	return rc;
}

void nbd_netlink_close(struct nbd_netlink *n)
{
	if (!n)
		return;
	nl_socket_free(n->ask);
	nl_socket_free(n->events);
	free(n);
}

/* ---- devices ---- */

int nbd_netlink_connect(struct nbd_netlink *n, struct nbd_netlink_device *d, struct err *err)
{
	struct answer a;
	int rc = ask_device(n, NBD_CMD_CONNECT, d, &a);

	if (!rc && a.index < 0)
		rc = -EBADMSG;
	if (rc)
		return refusal(err, rc, &a, "connect", d->index);
	d->index = a.index;
	return 0;
}

int nbd_netlink_reconfigure(struct nbd_netlink *n, const struct nbd_netlink_device *d,
			    struct err *err)
{
	struct answer a;
	int rc = ask_device(n, NBD_CMD_RECONFIGURE, d, &a);

	return rc ? refusal(err, rc, &a, "reconnect", d->index) : 0;
}

int nbd_netlink_disconnect(struct nbd_netlink *n, int index, struct err *err)
{
	struct answer a;
	int rc = ask_about(n, NBD_CMD_DISCONNECT, index, &a);

	return rc ? refusal(err, rc, &a, "disconnect", index) : 0;
}

int nbd_netlink_status(struct nbd_netlink *n, int index, struct err *err)
{
	struct answer a;
	int rc = ask_about(n, NBD_CMD_STATUS, index, &a);

	if (!rc && a.status == -ENOENT)
		return 0;
	if (!rc)
		rc = a.status;
	return rc < 0 ? refusal(err, rc, &a, "tell the state of", index) : rc;
}

/* ---- events ---- */

int nbd_netlink_events_fd(const struct nbd_netlink *n)
{
	return nl_socket_get_fd(n->events);
}

/* Read by hand: libnl folds ENOBUFS into "out of memory". */
int nbd_netlink_events_drain(struct nbd_netlink *n, void (*fn)(void *arg, int index), void *arg)
{
	_Alignas(struct nlmsghdr) char buf[8192];
	int lost = 0;

	for (;;) {
		ssize_t got = recv(nbd_netlink_events_fd(n), buf, sizeof(buf), MSG_DONTWAIT);
		int left = (int)got, index;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == ENOBUFS) {
			lost = -ENOBUFS;
			continue;
		}
		if (got < 0)
			return lost;
		for (struct nlmsghdr *h = (struct nlmsghdr *)buf; nlmsg_ok(h, left);
		     h = nlmsg_next(h, &left))
			if (h->nlmsg_type == n->family &&
			    !nbd_message_index(h, NBD_CMD_LINK_DEAD, &index))
				fn(arg, index);
	}
}
