/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP server on 127.0.0.1 that serves one blob and misbehaves on request: the script says how
 * each request in turn is answered, whatever connection it comes on; after its end all are good. */
#ifndef TESTS_BAD_SERVER_H
#define TESTS_BAD_SERVER_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum act {
	GOOD,
	RESET,		 /* RST instead of an answer */
	HANG_UP,	 /* FIN instead of an answer */
	SHORT_BODY,	 /* half the body, then FIN */
	RESET_BODY,	 /* half the body, then RST */
	SHORT_RANGE,	 /* an honest 206, of half of what was asked */
	LONG_BODY,	 /* one byte more than asked, without Content-Length */
	WHOLE_FOR_RANGE, /* 200 and the whole blob */
	WRONG_RANGE,	 /* 206 of other bytes */
	NO_RANGE,	 /* 206 that does not say of what */
	STALL,		 /* no answer for a long time */
	STALL_BODY,	 /* half the body, then nothing */
	CHANGED,	 /* good, under another ETag */
	HUGE_HEADERS,
	GARBAGE,
	REDIRECT,     /* to the server in s->redirect */
	HEAD_REFUSED, /* 405 */
	NO_ETAG,
	STATUS = 1000, /* STATUS + 404: that, with x-ms-error-code and a body */
};

struct bad_server {
	int fd;
	uint16_t port;
	pthread_t thread;
	const enum act *script;
	size_t nscript;
	const uint8_t *blob;
	size_t blob_len;
	const char *error_code; /* of STATUS answers */
	const char *extra;	/* header lines of STATUS answers, each with \r\n */
	const char *sorry;	/* body of STATUS answers; NULL = "sorry" */
	const char *redirect;
	_Atomic size_t requests;
	_Atomic int connections, serving, most_serving;
	_Atomic bool stop;
	uint32_t delay_ms; /* before each answer */
	char last[4096];   /* the last request's head */
	char put[4096];	   /* the last PUT's body */
	_Atomic size_t put_len;
	pthread_mutex_t lock;
};

struct bad_connection {
	struct bad_server *s;
	int fd;
};

static inline void say(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline void say(int fd, const char *fmt, ...)
{
	char buf[8192];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	(void)!send(fd, buf, (size_t)n, MSG_NOSIGNAL);
}

static inline void say_bytes(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);

		if (k <= 0)
			return;
		p += k;
		n -= (size_t)k;
	}
}

static inline void wait_while_running(struct bad_server *s)
{
	while (!s->stop)
		usleep(2000);
}

static inline void reset(int fd)
{
	struct linger hard = {1, 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
}

/* The answers that have nothing of the blob: 1 = keep the connection, 0 = close it, -1 = none such.
 */
static inline int answer_without_blob(struct bad_server *s, int fd, enum act act, bool head)
{
	if (act >= STATUS) {
		const char *sorry = s->sorry ? s->sorry : "sorry";

		say(fd, "HTTP/1.1 %d No\r\nContent-Length: %d\r\nx-ms-error-code: %s\r\n%s\r\n%s",
		    act - STATUS, head ? 0 : (int)strlen(sorry),
		    s->error_code ? s->error_code : "Some", s->extra ? s->extra : "",
		    head ? "" : sorry);
		return 1;
	}
	switch (act) {
	case RESET:
		reset(fd);
		return 0;
	case HANG_UP:
		return 0;
	case STALL:
		wait_while_running(s);
		return 0;
	case GARBAGE:
		say(fd, "this is not HTTP\r\n\r\n");
		return 0;
	case HUGE_HEADERS:
		say(fd, "HTTP/1.1 206 Partial\r\n");
		for (int i = 0; i < 40; i++)
			say(fd, "X-%d: %04000d\r\n", i, 0);
		return 0;
	case REDIRECT:
		say(fd, "HTTP/1.1 302 Elsewhere\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n",
		    s->redirect);
		return 1;
	case HEAD_REFUSED:
		say(fd, "HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n");
		return 1;
	default:
		return -1;
	}
}

/* Answer one request for [from, to] (whole = no range asked). False: close the connection. */
static inline bool answer(struct bad_server *s, int fd, enum act act, bool head, bool whole,
			  size_t from, size_t to)
{
	size_t n = to - from + 1;
	const char *etag = act == CHANGED   ? "ETag: \"two\"\r\n"
			   : act == NO_ETAG ? ""
					    : "ETag: \"one\"\r\n";
	int early = answer_without_blob(s, fd, act, head);

	if (early >= 0)
		return early;
	switch (act) {
	case WHOLE_FOR_RANGE:
		whole = true;
		from = 0;
		n = s->blob_len;
		break;
	case WRONG_RANGE:
		from++;
		to++;
		break;
	case SHORT_RANGE:
		n /= 2;
		to = from + n - 1;
		break;
	default:
		break;
	}
	if (!whole && from >= s->blob_len) {
		say(fd,
		    "HTTP/1.1 416 No\r\nContent-Range: bytes */%zu\r\nContent-Length: 0\r\n\r\n",
		    s->blob_len);
		return true;
	}
	if (from + n > s->blob_len) {
		n = s->blob_len - from;
		to = s->blob_len - 1;
	}
	say(fd, "HTTP/1.1 %s\r\n%s", whole ? "200 OK" : "206 Partial", etag);
	if (!whole && act != NO_RANGE)
		say(fd, "Content-Range: bytes %zu-%zu/%zu\r\n", from, to, s->blob_len);
	if (act == LONG_BODY)
		say(fd, "Connection: close\r\n\r\n");
	else
		say(fd, "Content-Length: %zu\r\n\r\n", n);
	if (head)
		return true;
	if (act == SHORT_BODY || act == RESET_BODY || act == STALL_BODY) {
		say_bytes(fd, s->blob + from, n / 2);
		if (act == RESET_BODY) {
			usleep(20000); /* let the half arrive */
			reset(fd);
		}
		if (act == STALL_BODY)
			wait_while_running(s);
		return false;
	}
	say_bytes(fd, s->blob + from, n);
	if (act == LONG_BODY)
		say_bytes(fd, s->blob, 1);
	return act != LONG_BODY;
}

static inline const char *request_header(const char *head, const char *name)
{
	const char *p = strcasestr(head, name);

	return p ? p + strlen(name) : NULL;
}

/* One request's head into @buf, a PUT's body into s->put. False at the end of the connection. */
static inline bool take_request(struct bad_server *s, int fd, char *buf, size_t cap)
{
	size_t n = 0, body, have;
	const char *cl;
	char *end;

	do {
		ssize_t k = recv(fd, buf + n, cap - n - 1, 0);

		if (k <= 0)
			return false;
		n += (size_t)k;
		buf[n] = 0;
		end = strstr(buf, "\r\n\r\n");
	} while (!end);
	cl = request_header(buf, "\r\nContent-Length: ");
	body = cl ? strtoul(cl, NULL, 10) : 0;
	have = n - (size_t)(end + 4 - buf);
	if (body < sizeof(s->put)) {
		memcpy(s->put, end + 4, have);
		while (have < body) {
			ssize_t k = recv(fd, s->put + have, body - have, 0);

			if (k <= 0)
				return false;
			have += (size_t)k;
		}
		s->put_len = body;
	}
	end[4] = 0;
	return true;
}

static inline void *serve_connection(void *arg)
{
	struct bad_connection *c = arg;
	struct bad_server *s = c->s;
	char buf[4096 + sizeof(s->put)];

	while (take_request(s, c->fd, buf, sizeof(buf))) {
		size_t i = s->requests++, from = 0, to = s->blob_len - 1;
		const char *range = request_header(buf, "range: bytes=");
		enum act act = i < s->nscript ? s->script[i] : GOOD;
		int now = ++s->serving;
		bool more;

		pthread_mutex_lock(&s->lock);
		snprintf(s->last, sizeof(s->last), "%.4000s", buf);
		if (now > s->most_serving)
			s->most_serving = now;
		pthread_mutex_unlock(&s->lock);
		if (range)
			sscanf(range, "%zu-%zu", &from, &to);
		if (s->delay_ms)
			usleep(s->delay_ms * 1000);
		s->serving--;
		if (strncmp(buf, "PUT ", 4) == 0 && act == GOOD) {
			say(c->fd,
			    "HTTP/1.1 201 Created\r\nETag: \"new\"\r\nContent-Length: 0\r\n\r\n");
			continue;
		}
		more = answer(s, c->fd, act, strncmp(buf, "HEAD ", 5) == 0, !range, from, to);
		if (!more)
			break;
	}
	close(c->fd);
	s->connections--;
	free(c);
	return NULL;
}

static inline void *serve(void *arg)
{
	struct bad_server *s = arg;
	int fd;

	while ((fd = accept(s->fd, NULL, NULL)) >= 0) {
		struct bad_connection *c = malloc(sizeof(*c));
		struct timeval limit = {2, 0};
		pthread_t t;

		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		*c = (struct bad_connection){s, fd};
		s->connections++;
		pthread_create(&t, NULL, serve_connection, c);
		pthread_detach(t);
	}
	return NULL;
}

static inline void bad_server_start(struct bad_server *s, const uint8_t *blob, size_t len)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t sa_len = sizeof(sa);

	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	s->blob = blob;
	s->blob_len = len;
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(s->fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(s->fd, 64) ||
	    getsockname(s->fd, (struct sockaddr *)&sa, &sa_len))
		abort();
	s->port = ntohs(sa.sin_port);
	pthread_create(&s->thread, NULL, serve, s);
}

static inline void bad_server_stop(struct bad_server *s)
{
	s->stop = true;
	shutdown(s->fd, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->fd);
	while (s->connections)
		usleep(1000);
}

#endif
