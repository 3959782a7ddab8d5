/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/attach/tcp_pair.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define WAIT_MS	  2000
#define STRANGERS 64 /* other local connections that are turned away */
#define BUFFER_BYTES                                                                               \
	(1 << 20) /* a quarter of the largest request the kernel sends: it reads while             \
		   * the server fills, and data stands there no longer than that */

void fds_close(int *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static uint16_t own_port(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	return getsockname(fd, (struct sockaddr *)&a, &len) ? 0 : ntohs(a.sin_port);
}

uint16_t tcp_peer_port(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	return getpeername(fd, (struct sockaddr *)&a, &len) ? 0 : ntohs(a.sin_port);
}

bool tcp_peer_is_gone(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

static int listen_on_loopback(struct sockaddr_in *a)
{
	socklen_t len = sizeof(*a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc;

	if (fd < 0)
		return -errno;
	*a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (!bind(fd, (struct sockaddr *)a, sizeof(*a)) && !listen(fd, STRANGERS) &&
	    !getsockname(fd, (struct sockaddr *)a, &len))
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

/* Any local program may connect to the listener meanwhile: the one from our own port is ours. */
static int accept_from(int listener, uint16_t port)
{
	for (int i = 0; i < STRANGERS; i++) {
		struct pollfd p = {.fd = listener, .events = POLLIN};
		struct sockaddr_in who = {0};
		socklen_t len = sizeof(who);
		int fd;

		if (poll(&p, 1, WAIT_MS) <= 0)
			return -ETIMEDOUT;
		fd = accept4(listener, (struct sockaddr *)&who, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0) {
			if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
				return -errno; /* no descriptors, no memory */
			continue;
		}
		if (who.sin_port == htons(port) && who.sin_addr.s_addr == htonl(INADDR_LOOPBACK))
			return fd;
		close(fd);
	}
	return -ECONNABORTED;
}

/* Past wmem_max and rmem_max where we may; a size that is refused is the system's default. */
static void socket_tune(int fd)
{
	int on = 1, size = BUFFER_BYTES;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

static int pair_open(int listener, const struct sockaddr_in *to, int *kernel, int *worker)
{
	struct timeval bound = {.tv_sec = WAIT_MS / 1000}, none = {0};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), other;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound)); /* bounds connect */
	other = connect(fd, (const struct sockaddr *)to, sizeof(*to))
			? -errno
			: accept_from(listener, own_port(fd));
	if (other < 0) {
		close(fd);
		return other;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
	socket_tune(fd);
	socket_tune(other);
	*kernel = fd;
	*worker = other;
	return 0;
}

int tcp_pairs_open(int *kernel, int *worker, uint32_t n, struct err *err)
{
	struct sockaddr_in at;
	int listener = listen_on_loopback(&at), rc = listener < 0 ? listener : 0;
	uint32_t i = 0;

	for (; !rc && i < n; i++)
		rc = pair_open(listener, &at, &kernel[i], &worker[i]);
	if (listener >= 0)
		close(listener);
	if (!rc)
		return 0;
	if (i) { /* the last one failed */
		fds_close(kernel, i - 1);
		fds_close(worker, i - 1);
	}
	return err_set(err, rc, "no connection over 127.0.0.1: %s%s", strerror(-rc),
		       rc == -EMFILE ? "; raise cairnd's limit of open files (LimitNOFILE=)" : "");
}
