// SPDX-License-Identifier: Apache-2.0
#include "tests/vm/handover/server.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 32 /* small replies in one call */

/* Where a living server stands; all of it can be made again from the ledger and two numbers. */
struct turn {
	const struct server *s;
	uint64_t received, sent, end; /* end: of the last reply in the log */
	uint64_t first_unsent;	      /* reply in the log */
	uint64_t oldest;	      /* request not in the log */
	bool answered[RING_LEN];
};

void die(const char *what)
{
	perror(what);
	exit(1);
}

const uint8_t *image_make(int *fd)
{
	uint64_t *p, i;

	*fd = memfd_create("image", MFD_CLOEXEC);
	if (*fd < 0 || ftruncate(*fd, IMAGE_LEN))
		die("memfd");
	p = mmap(NULL, IMAGE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (p == MAP_FAILED)
		die("mmap");
	for (i = 0; i < IMAGE_LEN / 8; i++)
		p[i] = image_word(i * 8);
	return (const uint8_t *)p;
}

/* --- the connection -----------------------------------------------------------------------------
 */

static void tcp_pair(int out[2])
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int on = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	out[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l < 0 || bind(l, (struct sockaddr *)&a, len) || listen(l, 1) ||
	    getsockname(l, (struct sockaddr *)&a, &len) ||
	    connect(out[0], (struct sockaddr *)&a, len))
		die("a loopback connection");
	out[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	close(l);
	setsockopt(out[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(out[1], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

void connection_make(bool tcp, int out[2])
{
	int room = 4 << 20;

	if (tcp)
		tcp_pair(out);
	else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, out))
		die("socketpair");
	fcntl(out[1], F_SETFL, O_NONBLOCK);
	if (!tcp) /* TCP sizes its own */
		setsockopt(out[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
}

static struct tcp_info tcp_info_of(int sock)
{
	struct tcp_info i;
	socklen_t len = sizeof(i);

	memset(&i, 0, sizeof(i));
	if (getsockopt(sock, IPPROTO_TCP, TCP_INFO, &i, &len))
		die("TCP_INFO");
	return i;
}

/* Bytes move from the network to the queue, and from the queue to acknowledged, while we look: look
 * until nothing moved between the two counters of a sum. */
void counters_read(int sock, struct counters *out)
{
	struct tcp_info before, after;
	int inq, outq;

	do {
		before = tcp_info_of(sock);
		if (ioctl(sock, SIOCINQ, &inq) || ioctl(sock, SIOCOUTQ, &outq))
			die("SIOCINQ");
		after = tcp_info_of(sock);
	} while (before.tcpi_bytes_received != after.tcpi_bytes_received ||
		 before.tcpi_bytes_acked != after.tcpi_bytes_acked);
	out->received = after.tcpi_bytes_received - (uint64_t)inq;
	out->sent = after.tcpi_bytes_acked + (uint64_t)outq;
}

/* --- the ledger ---------------------------------------------------------------------------------
 */

static struct log_entry *log_entry(struct ledger *l, uint64_t n)
{
	return &l->log[n % LOG_LEN];
}

static uint64_t log_end(struct ledger *l)
{
	const struct log_entry *e = log_entry(l, l->logged - 1);

	return l->logged ? e->start + REPLY_LEN + e->len : 0;
}

static uint8_t *ring_slot(struct ledger *l, uint64_t request)
{
	return &l->ring[request % RING_LEN * REQUEST_LEN];
}

static struct nbd_request ring_request(struct ledger *l, uint64_t request)
{
	struct nbd_request r;

	memset(&r, 0, sizeof(r));
	memcpy(&r, ring_slot(l, request), REQUEST_LEN);
	return r;
}

/* Room is zeros again once its request is answered; a server may have died in between. */
static void ring_clean(struct ledger *l)
{
	uint64_t n = l->logged > LOG_LEN ? l->logged - LOG_LEN : 0;

	for (; n < l->logged; n++) {
		const struct log_entry *e = log_entry(l, n);
		struct nbd_request r = ring_request(l, e->request);

		if (memcmp(r.handle, e->reply.handle, sizeof(r.handle)) == 0)
			memset(ring_slot(l, e->request), 0, REQUEST_LEN);
	}
}

/* AF_UNIX: what was taken is in the ring, written down or not. A call takes whole requests, since
 * each was one packet and the ring's end is a request's end. */
static uint64_t ring_received(struct ledger *l)
{
	uint64_t n = l->received / REQUEST_LEN;

	while (ring_request(l, n).magic == htobe32(NBD_REQUEST_MAGIC))
		n++;
	return n * REQUEST_LEN;
}

void server_inherit(const struct server *s, struct inheritance *out)
{
	struct ledger *l = s->ledger;
	struct counters now;
	uint64_t n;

	memset(out, 0, sizeof(*out));
	ring_clean(l);
	if (s->tcp) {
		counters_read(s->sock, &now);
		out->received = now.received - s->base.received;
		out->sent = now.sent - s->base.sent;
	} else {
		out->received = ring_received(l);
		out->sent = l->sent;
	}
	out->lag_received = out->received != l->received;
	out->lag_sent = out->sent != l->sent;
	for (n = l->logged; n > 0 && log_entry(l, n - 1)->start > out->sent; n--)
		;
	if (n > 0) {
		const struct log_entry *e = log_entry(l, n - 1);

		out->mid_reply = out->sent > e->start && out->sent < e->start + REPLY_LEN + e->len;
	}
}

static void turn_start(struct turn *t, const struct server *s, const struct inheritance *in)
{
	struct ledger *l = s->ledger;
	uint64_t n, requests = in->received / REQUEST_LEN;

	memset(t, 0, sizeof(*t));
	t->s = s;
	t->received = in->received;
	t->sent = in->sent;
	t->end = log_end(l);
	t->oldest = requests > RING_LEN ? requests - RING_LEN : 0;
	t->first_unsent = l->logged > LOG_LEN ? l->logged - LOG_LEN : 0;
	for (n = t->first_unsent; n < l->logged; n++) {
		const struct log_entry *e = log_entry(l, n);

		if (e->request >= t->oldest)
			t->answered[e->request % RING_LEN] = true;
		if (e->start + REPLY_LEN + e->len <= t->sent)
			t->first_unsent = n + 1;
	}
}

/* --- serving ------------------------------------------------------------------------------------
 */

/* No call but this one waits: one that is killed while it waits for room has sent a part already.
 */
static void socket_wait(const struct turn *t, short events)
{
	struct pollfd p = {.fd = t->s->sock, .events = events};

	poll(&p, 1, -1);
}

/* false: the other end has closed. Waits unless there is something to do. */
static bool turn_receive(struct turn *t, bool wait)
{
	struct ledger *l = t->s->ledger;
	uint64_t limit = (t->oldest + RING_LEN) * REQUEST_LEN; /* exclusive */
	uint64_t at = t->received % sizeof(l->ring);
	uint64_t room = sizeof(l->ring) - at;
	ssize_t n;

	if (room > limit - t->received)
		room = limit - t->received;
	if (room == 0)
		return true;
	if (wait)
		socket_wait(t, POLLIN);
	n = recv(t->s->sock, l->ring + at, room, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	t->received += (uint64_t)n;
	l->received = t->received;
	return n > 0;
}

/* Enter a reply to @request in the log: from now on it is a part of the stream. */
static void turn_log(struct turn *t, uint64_t request)
{
	struct ledger *l = t->s->ledger;
	struct nbd_request r = ring_request(l, request);
	struct log_entry *e = log_entry(l, l->logged);

	if (r.magic != htobe32(NBD_REQUEST_MAGIC)) {
		fprintf(stderr, "request %lu is none: the stream of requests is out of step\n",
			request);
		exit(3);
	}
	e->request = request;
	e->start = t->end;
	e->off = be64toh(r.from);
	e->len = r.type == htobe32(NBD_CMD_READ) ? be32toh(r.len) : 0;
	e->reply.magic = htobe32(NBD_REPLY_MAGIC);
	e->reply.error = 0;
	memcpy(e->reply.handle, r.handle, sizeof(r.handle));
	t->end += REPLY_LEN + e->len;
	__atomic_store_n(&l->logged, l->logged + 1, __ATOMIC_RELEASE);
	memset(ring_slot(l, request), 0, REQUEST_LEN);
	t->answered[request % RING_LEN] = true;
}

static bool turn_answered(const struct turn *t, uint64_t request)
{
	return t->answered[request % RING_LEN];
}

/* Answer up to BATCH of what has come. */
static void turn_answer(struct turn *t)
{
	uint64_t requests = t->received / REQUEST_LEN, n;
	unsigned todo = BATCH;

	for (n = t->oldest; n < requests && todo; n++) {
		if (turn_answered(t, n) || (t->s->shuffle && rand() % 4 == 0))
			continue;
		turn_log(t, n);
		todo--;
	}
	while (t->oldest < requests && turn_answered(t, t->oldest))
		t->answered[t->oldest++ % RING_LEN] = false;
}

static bool is_large(const struct turn *t, const struct log_entry *e)
{
	return e->len >= t->s->sendfile_min;
}

/* One call's worth of the stream, from where it is: headers and small data of some replies, up to
 * the data of a large one. */
static ssize_t send_copied(const struct turn *t)
{
	struct ledger *l = t->s->ledger;
	struct iovec iov[2 * BATCH];
	struct msghdr m = {.msg_iov = iov};
	uint64_t n = t->first_unsent, skip = t->sent - log_entry(l, n)->start;
	bool more = false;

	for (; n < l->logged && m.msg_iovlen + 2 <= 2 * BATCH && !more; n++, skip = 0) {
		struct log_entry *e = log_entry(l, n);

		if (skip < REPLY_LEN)
			iov[m.msg_iovlen++] =
				(struct iovec){(char *)&e->reply + skip, REPLY_LEN - skip};
		more = is_large(t, e);
		skip = skip > REPLY_LEN ? skip - REPLY_LEN : 0;
		if (!more && e->len)
			iov[m.msg_iovlen++] =
				(struct iovec){(char *)t->s->image + e->off + skip, e->len - skip};
	}
	return sendmsg(t->s->sock, &m, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
}

static ssize_t send_some(const struct turn *t)
{
	const struct log_entry *e = log_entry(t->s->ledger, t->first_unsent);
	uint64_t skip = t->sent - e->start;
	off_t off;

	if (!is_large(t, e) || skip < REPLY_LEN)
		return send_copied(t);
	off = (off_t)(e->off + skip - REPLY_LEN);
	return sendfile(t->s->sock, t->s->image_fd, &off, e->len - (skip - REPLY_LEN));
}

static bool turn_send(struct turn *t)
{
	struct ledger *l = t->s->ledger;

	while (t->sent < t->end) {
		ssize_t n = send_some(t);

		if (n < 0 && errno == EAGAIN) {
			socket_wait(t, POLLOUT);
			continue;
		}
		if (n <= 0)
			return false;
		t->sent += (uint64_t)n;
		l->sent = t->sent;
		while (t->first_unsent < l->logged) {
			const struct log_entry *e = log_entry(l, t->first_unsent);

			if (e->start + REPLY_LEN + e->len > t->sent)
				break;
			t->first_unsent++;
		}
	}
	return true;
}

void server_run(const struct server *s, const struct inheritance *in)
{
	struct turn t;

	turn_start(&t, s, in);
	for (;;) {
		if (!turn_send(&t))
			return;
		if (!turn_receive(&t, t.oldest == t.received / REQUEST_LEN))
			return;
		turn_answer(&t);
	}
}
