/* SPDX-License-Identifier: Apache-2.0 */
#include "control/client.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

char *client_path(const char *prefix, const char *key)
{
	size_t n = strlen(prefix);
	char *out = malloc(n + 3 * strlen(key) + 1);

	if (!out)
		return NULL;
	memcpy(out, prefix, n);
	for (; *key; key++) {
		bool plain = (*key >= 'a' && *key <= 'z') || (*key >= 'A' && *key <= 'Z') ||
			     (*key >= '0' && *key <= '9') || strchr("-._~", *key);

		n += (size_t)sprintf(out + n, plain ? "%c" : "%%%02X", (unsigned char)*key);
	}
	out[n] = 0;
	return out;
}

static int daemon_connect(const char *path, struct err *err)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd, rc;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(err, -ENAMETOOLONG,
			       "%s: longer than a socket's path may be (%zu bytes)", path,
			       sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, "socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	rc = -errno;
	close(fd);
	if (rc == -EACCES)
		return err_set(err, rc,
			       "%s: permission denied; run as root or as the daemon's user, or for "
			       "status join the group that [daemon] control_group names",
			       path);
	if (rc == -ENOENT || rc == -ECONNREFUSED)
		return err_set(err, rc,
			       "no cairnd listens on %s; start it (systemctl start cairnd, or "
			       "cairnd -c FILE), or name its socket with --socket or $CAIRN_SOCKET",
			       path);
	return err_set(err, rc, "%s: %s", path, strerror(-rc));
}

static int wait_for(int fd, short events, uint64_t end)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = events};
		uint64_t now = clock_now_ns();

		if (now >= end)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)((end - now) / NSEC_PER_MSEC) + 1) > 0)
			return 0;
	}
}

static int send_all(int fd, const char *p, size_t len, uint64_t end)
{
	while (len) {
		int rc = wait_for(fd, POLLOUT, end);
		ssize_t n = rc ? 0 : send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (rc)
			return rc;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		p += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* Everything until the daemon hangs up (we ask for Connection: close). */
static int receive_all(int fd, uint64_t end, char **out, size_t *len)
{
	size_t room = 16384, have = 0;
	char *buf = malloc(room + 1);
	int rc = buf ? 0 : -ENOMEM;

	while (!rc) {
		ssize_t n;

		if (have == room) {
			char *more = room < CLIENT_REPLY_MAX ? realloc(buf, 2 * room + 1) : NULL;

			if (!more) {
				rc = room < CLIENT_REPLY_MAX ? -ENOMEM : -EFBIG;
				break;
			}
			buf = more;
			room *= 2;
		}
		rc = wait_for(fd, POLLIN, end);
		if (rc)
			break;
		n = recv(fd, buf + have, room - have, MSG_DONTWAIT);
		if (n == 0)
			break;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			rc = -errno;
		have += n > 0 ? (size_t)n : 0;
	}
	if (rc) {
		free(buf);
		return rc;
	}
	buf[have] = 0;
	*out = buf;
	*len = have;
	return 0;
}

/* Status line and headers; the body moves to the front of @buf. Only Content-Length is spoken. */
static int reply_parse(char *buf, size_t len, struct client_reply *out)
{
	char *body = memmem(buf, len, "\r\n\r\n", 4), *line, *save;
	unsigned long want = 0;
	bool sized = false;

	if (!body || sscanf(buf, "HTTP/1.%*1[01] %3u", &out->status) != 1)
		return -EBADMSG;
	*body = 0;
	body += 4;
	for (line = strtok_r(buf, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save))
		if (strncasecmp(line, "Content-Length:", 15) == 0)
			sized = sscanf(line + 15, " %lu", &want) == 1;
	len -= (size_t)(body - buf);
	if (!sized || want != len)
		return -EBADMSG;
	memmove(buf, body, len + 1);
	out->body = buf;
	out->len = len;
	return 0;
}

int client_call(const char *socket, const char *method, const char *path, const char *body,
		int timeout_ms, struct client_reply *out, struct err *err)
{
	uint64_t end = clock_now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
	size_t body_len = body ? strlen(body) : 0, len = 0;
	int fd = daemon_connect(socket, err), rc;
	char *request = NULL, *buf = NULL;
	struct client_reply r;

	if (fd < 0)
		return fd;
	rc = asprintf(&request,
		      "%s %s HTTP/1.1\r\nHost: cairn\r\nConnection: close\r\n"
		      "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
		      method, path, body_len, body ? body : "") < 0
		     ? -ENOMEM
		     : 0;
	if (!rc)
		rc = send_all(fd, request, strlen(request), end);
	if (!rc || rc == -EPIPE || rc == -ECONNRESET) /* it may have answered early */
		rc = receive_all(fd, end, &buf, &len);
	close(fd);
	free(request);
	if (!rc)
		rc = reply_parse(buf, len, &r);
	if (rc) {
		free(buf);
		return err_set(err, rc, "the daemon on %s %s", socket,
			       rc == -ETIMEDOUT ? "does not answer"
			       : rc == -EBADMSG ? "hung up in the middle of its answer; see its log"
						: strerror(-rc));
	}
	*out = r;
	return 0;
}
