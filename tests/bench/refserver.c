/* SPDX-License-Identifier: Apache-2.0 */
/* The ceiling to measure against: a read-only NBD server on a unix socket that does nothing but
 * batch. No cache map, no checks of what it serves, no misses.
 *
 *	refserver pread|mmap SOCKET FILE
 *
 * A thread serves a connection: one recv takes all requests that wait, their replies leave
 *together. pread copies page cache -> buffer -> socket, mmap sends straight from the mapping.
 */
#include <endian.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "wire.h"

#define IN_LEN	  (64U << 10)
#define OUT_LEN	  (256U << 10) /* replies leave when the next might not fit */
#define READ_MAX  (32U << 20)
#define VECS_MAX  128
#define HUGE_READ (64U << 10) /* from here on a mapped reply leaves alone */

static int image_fd;
static uint64_t image_len;
static const uint8_t *image; /* NULL: pread */

struct conn {
	int fd;
	size_t in_have, out_have;
	uint32_t vecs;
	struct iovec vec[VECS_MAX];
	struct wire_reply heads[VECS_MAX / 2];
	uint8_t in[IN_LEN], out[OUT_LEN];
};

/* Handshake. */

static int reply_option(int fd, uint32_t option, uint32_t type, const void *body, uint32_t len)
{
	struct wire_option_reply r = {htobe64(WIRE_OPTION_REPLY), option, htobe32(type),
				      htobe32(len)};

	return wire_send(fd, &r, sizeof(r)) < 0 ? -1 : wire_send(fd, body, len);
}

static int reply_export(int fd, uint32_t option)
{
	struct wire_info_export info = {
		.size = htobe64(image_len),
		.flags = htobe16(FLAG_HAS_FLAGS | FLAG_READ_ONLY | FLAG_MULTI_CONN),
	};

	if (reply_option(fd, option, REP_INFO, &info, sizeof(info)) < 0)
		return -1;
	return reply_option(fd, option, REP_ACK, "", 0);
}

/* 1 when transmission starts, 0 for another option, -1 when the client is gone. */
static int serve_option(struct conn *c)
{
	struct wire_option o;

	if (wire_recv(c->fd, &o, sizeof(o)) < 0 || be64toh(o.magic) != WIRE_OPTION)
		return -1;
	if (be32toh(o.len) > IN_LEN || wire_recv(c->fd, c->in, be32toh(o.len)) < 0)
		return -1;
	switch (be32toh(o.option)) {
	case OPT_GO:
		return reply_export(c->fd, o.option) < 0 ? -1 : 1;
	case OPT_INFO:
		return reply_export(c->fd, o.option);
	case OPT_ABORT:
		reply_option(c->fd, o.option, REP_ACK, "", 0);
		return -1;
	default:
		return reply_option(c->fd, o.option, REP_ERR_UNSUP, "", 0);
	}
}

static int handshake(struct conn *c)
{
	struct wire_greeting g = {htobe64(WIRE_GREETING), htobe64(WIRE_OPTION),
				  htobe16(WIRE_FIXED_NO_ZEROES)};
	uint32_t client_flags;
	int rc;

	if (wire_send(c->fd, &g, sizeof(g)) < 0 ||
	    wire_recv(c->fd, &client_flags, sizeof(client_flags)) < 0)
		return -1;
	do {
		rc = serve_option(c);
	} while (rc == 0);
	return rc;
}

/* Replies. */

static int flush_vecs(struct conn *c)
{
	struct iovec *v = c->vec;

	while (c->vecs > 0) {
		struct msghdr m = {.msg_iov = v, .msg_iovlen = c->vecs};
		ssize_t n = sendmsg(c->fd, &m, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		for (; c->vecs > 0 && (size_t)n >= v->iov_len; v++, c->vecs--)
			n -= (ssize_t)v->iov_len;
		if (c->vecs > 0) {
			v->iov_base = (char *)v->iov_base + n;
			v->iov_len -= (size_t)n;
		}
	}
	return 0;
}

static int flush_out(struct conn *c)
{
	int rc = wire_send(c->fd, c->out, c->out_have);

	c->out_have = 0;
	return rc;
}

static int flush(struct conn *c)
{
	return image ? flush_vecs(c) : flush_out(c);
}

static int answer_mapped(struct conn *c, const struct wire_reply *head, uint64_t off, uint32_t len)
{
	struct wire_reply *kept = &c->heads[c->vecs / 2];

	*kept = *head;
	c->vec[c->vecs++] = (struct iovec){kept, sizeof(*kept)};
	c->vec[c->vecs++] = (struct iovec){(void *)(image + off), len};
	return c->vecs == VECS_MAX || len >= HUGE_READ ? flush_vecs(c) : 0;
}

static int answer_copied(struct conn *c, const struct wire_reply *head, uint64_t off, uint32_t len)
{
	if (c->out_have + sizeof(*head) + len > OUT_LEN && flush_out(c) < 0)
		return -1;
	memcpy(c->out + c->out_have, head, sizeof(*head));
	c->out_have += sizeof(*head);
	while (len > 0) {
		size_t room = OUT_LEN - c->out_have, n = len < room ? len : room;

		if (pread(image_fd, c->out + c->out_have, n, (off_t)off) != (ssize_t)n)
			return -1;
		c->out_have += n;
		off += n;
		len -= (uint32_t)n;
		if (c->out_have == OUT_LEN && flush_out(c) < 0)
			return -1;
	}
	return 0;
}

/* Requests. */

static int answer_error(struct conn *c, struct wire_reply *head)
{
	head->error = htobe32(EINVAL);
	return flush(c) < 0 ? -1 : wire_send(c->fd, head, sizeof(*head));
}

/* -1 also for a request to disconnect. */
static int answer(struct conn *c, const struct wire_request *r)
{
	struct wire_reply head = {.magic = htobe32(WIRE_REPLY), .cookie = r->cookie};
	uint64_t off = be64toh(r->off);
	uint32_t len = be32toh(r->len);
	int type = be16toh(r->type);

	if (be32toh(r->magic) != WIRE_REQUEST || type == CMD_DISC)
		return -1;
	if (type != CMD_READ || off > image_len || len > image_len - off || len > READ_MAX)
		return answer_error(c, &head);
	return image ? answer_mapped(c, &head, off, len) : answer_copied(c, &head, off, len);
}

static int serve_batch(struct conn *c)
{
	ssize_t n = recv(c->fd, c->in + c->in_have, IN_LEN - c->in_have, 0);
	size_t at = 0;

	if (n <= 0)
		return n < 0 && errno == EINTR ? 0 : -1;
	c->in_have += (size_t)n;
	for (; c->in_have - at >= sizeof(struct wire_request); at += sizeof(struct wire_request))
		if (answer(c, (const struct wire_request *)(c->in + at)) < 0)
			return -1;
	c->in_have -= at;
	memmove(c->in, c->in + at, c->in_have);
	return flush(c);
}

static void *conn_main(void *arg)
{
	struct conn *c = arg;

	if (handshake(c) > 0)
		while (serve_batch(c) == 0)
			;
	close(c->fd);
	free(c);
	return NULL;
}

/* Set-up. */

static void conn_start(int fd)
{
	struct conn *c = calloc(1, sizeof(*c));
	pthread_t thread;

	if (c)
		c->fd = fd;
	if (!c || pthread_create(&thread, NULL, conn_main, c) != 0) {
		close(fd);
		free(c);
		return;
	}
	pthread_detach(thread);
}

static bool open_image(const char *mode, const char *path)
{
	struct stat st;
	void *p;

	image_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (image_fd < 0 || fstat(image_fd, &st) < 0)
		return false;
	image_len = (uint64_t)st.st_size;
	if (strcmp(mode, "mmap") != 0)
		return true;
	p = mmap(NULL, image_len, PROT_READ, MAP_SHARED | MAP_POPULATE, image_fd, 0);
	image = p;
	return p != MAP_FAILED;
}

static int listen_at(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(a.sun_path))
		return -1;
	strcpy(a.sun_path, path);
	unlink(path);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0)
		return -1;
	return fd;
}

int main(int argc, char **argv)
{
	int listener;

	if (argc != 4) {
		fprintf(stderr, "usage: refserver pread|mmap SOCKET FILE\n");
		return 2;
	}
	if (!open_image(argv[1], argv[3]) || (listener = listen_at(argv[2])) < 0) {
		perror("refserver");
		return 1;
	}
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			conn_start(fd);
	}
}
