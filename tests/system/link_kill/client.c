// SPDX-License-Identifier: Apache-2.0
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "nbd/protocol.h"
#include "tests/system/link_kill/link_kill.h"

static struct rnd chance = {0x2545f4914f6cdd1dULL};

struct want {
	bool is;
	uint64_t off, began_ns;
	uint32_t len;
	uint8_t *data;
};

static struct want wants[WINDOW];

static void fail(const char *what)
{
	fprintf(stderr, "client: %s\n", what);
	atomic_fetch_add(&tally->failed, 1);
	_exit(1);
}

static void wants_make(void)
{
	for (uint32_t i = 0; i < WINDOW; i++)
		if (!(wants[i].data = malloc(READ_MAX)))
			die("malloc");
}

static void want_begin(struct want *w)
{
	w->is = true;
	w->len = rnd_range(&chance, &w->off);
	w->began_ns = clock_now_ns();
	memset(w->data, 0xa5, w->len);
}

static void want_end(struct want *w)
{
	uint64_t ns = clock_now_ns() - w->began_ns;

	if (memcmp(w->data, image + w->off, w->len) != 0) {
		atomic_fetch_add(&tally->wrong, 1);
		fail("wrong bytes");
	}
	if (ns > atomic_load(&tally->longest_ns))
		atomic_store(&tally->longest_ns, ns);
	w->is = false;
	atomic_fetch_add(&tally->reads, 1);
}

/* Simple replies, as the kernel reads them, but requests in pieces. */

static struct {
	int fd;
	uint8_t out[WINDOW * sizeof(struct nbd_wire_request)]; /* to send */
	size_t out_at, out_len;
	struct nbd_wire_simple_reply head;
	size_t got; /* of the reply */
	struct want *of;
} k;

static void request_put(uint16_t type, uint64_t cookie, uint64_t off, uint32_t len)
{
	struct nbd_wire_request r = {.magic = htobe32(NBD_REQUEST_MAGIC),
				     .type = htobe16(type),
				     .cookie = cookie,
				     .off = htobe64(off),
				     .len = htobe32(len)};

	memcpy(k.out + k.out_len, &r, sizeof(r));
	k.out_len += sizeof(r);
}

static void send_some(void)
{
	size_t n = k.out_len - k.out_at;
	ssize_t sent;

	if (n > 1 && rnd_below(&chance, 3) == 0)
		n = 1 + rnd_below(&chance, (uint32_t)n);
	sent = send(k.fd, k.out + k.out_at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0 && errno != EAGAIN)
		fail("send");
	k.out_at += sent > 0 ? (size_t)sent : 0;
	if (k.out_at == k.out_len)
		k.out_at = k.out_len = 0;
}

static void head_done(void)
{
	uint64_t i = k.head.cookie;

	if (be32toh(k.head.magic) != NBD_SIMPLE_REPLY_MAGIC || k.head.error)
		fail("a reply that is none, or an error");
	if (i >= WINDOW || !wants[i].is)
		fail("a reply to nothing");
	k.of = &wants[i];
}

static void receive_some(void)
{
	ssize_t n;

	if (k.got < sizeof(k.head))
		n = recv(k.fd, (uint8_t *)&k.head + k.got, sizeof(k.head) - k.got, MSG_DONTWAIT);
	else
		n = recv(k.fd, k.of->data + (k.got - sizeof(k.head)),
			 k.of->len - (k.got - sizeof(k.head)), MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN))
		fail("the connection ended");
	k.got += n > 0 ? (size_t)n : 0;
	if (n > 0 && k.got == sizeof(k.head))
		head_done();
	if (k.got > sizeof(k.head) && k.got == sizeof(k.head) + k.of->len) {
		want_end(k.of);
		k.got = 0;
	}
}

static uint32_t wants_open(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < WINDOW; i++)
		n += wants[i].is;
	return n;
}

static void ask_more(void)
{
	if (k.out_len) /* some are still on their way */
		return;
	for (uint32_t i = 0; i < WINDOW; i++) {
		if (wants[i].is || rnd_below(&chance, 4) == 0)
			continue;
		want_begin(&wants[i]);
		request_put(NBD_CMD_READ, i, wants[i].off, wants[i].len);
	}
}

void client_run_simple(int fd)
{
	k.fd = fd;
	wants_make();
	atomic_store(&tally->ready, true);
	while (wants_open() || !atomic_load(&tally->stop)) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		if (!atomic_load(&tally->stop))
			ask_more();
		if (k.out_len)
			send_some();
		if (k.out_len)
			p.events |= POLLOUT;
		if (poll(&p, 1, 10) > 0 && p.revents & ~POLLOUT)
			receive_some();
	}
	request_put(NBD_CMD_DISC, 0, 0, 0);
	while (k.out_len)
		send_some();
	if (recv(fd, &(char){0}, 1, 0) != 0)
		fail("bytes after the goodbye");
	_exit(0);
}

/* libnbd: handshake and structured replies. */

void client_run_libnbd(int fd)
{
	struct nbd_handle *h = nbd_create();
	int64_t cookie[WINDOW];

	wants_make();
	if (!h || nbd_set_export_name(h, "image") || nbd_connect_socket(h, fd))
		fail(nbd_get_error());
	if (nbd_get_structured_replies_negotiated(h) != 1)
		fail("no structured replies");
	atomic_store(&tally->ready, true);
	while (wants_open() || !atomic_load(&tally->stop)) {
		for (uint32_t i = 0; i < WINDOW; i++) {
			struct want *w = &wants[i];
			int done = w->is ? nbd_aio_command_completed(h, (uint64_t)cookie[i]) : 0;

			if (done < 0)
				fail(nbd_get_error());
			if (done)
				want_end(w);
			if (w->is || atomic_load(&tally->stop))
				continue;
			want_begin(w);
			cookie[i] =
				nbd_aio_pread(h, w->data, w->len, w->off, NBD_NULL_COMPLETION, 0);
			if (cookie[i] < 0)
				fail(nbd_get_error());
		}
		if (wants_open() && nbd_poll(h, 10) < 0)
			fail(nbd_get_error());
	}
	nbd_shutdown(h, 0);
	nbd_close(h);
	_exit(0);
}
