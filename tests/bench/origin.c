/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP/1.1 origin on loopback that is as slow as it is told to be, and counts.
 *
 *	origin [--port N] [--delay MS] [--rate BYTES] DIR
 *
 * Serves the regular files below DIR: GET and HEAD, one byte range (Range, or Azure's x-ms-range),
 * If-Match, keep-alive. Prints its URL when it listens; --port 0, the default, takes a free one.
 *
 *	/__stats                         counters as JSON, of requests for files only
 *	/__reset                         zero them (connections that are open stay counted)
 *	/__set?delay_ms=20&rate=80000000 from the next request on; rate is bytes/s a connection, 0 =
 *any
 *
 * Slowness is that of a distant store: the delay is before the first byte of each answer, the rate
 *is each connection's own. A thread serves a connection; nothing here is fit for the open network.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "request.h"

#define HEAD_MAX   16384
#define SEND_MAX   (1U << 20)
#define SEND_PACED (64U << 10) /* a step of a capped connection: 0.8 ms at 80 MB/s */
#define CONN_STACK (256U << 10)

static int root_fd;
static _Atomic double delay_ms;
static _Atomic double rate; /* bytes/s a connection, 0 = as fast as it goes */

static struct {
	_Atomic uint64_t requests, heads, ranges, errors; /* errors: answered 4xx */
	_Atomic uint64_t body_bytes;
	_Atomic uint64_t connections, open;
	_Atomic uint64_t in_flight, max_in_flight;
} count;

struct conn {
	int fd;
	uint64_t paced_ns; /* when the bytes sent so far would have arrived at the capped rate */
	size_t have;	   /* bytes of `buf`; more than one request may be there */
	char buf[HEAD_MAX + 1];
};

/* Sending: 0, or -1 when the connection is of no more use. */

static int send_all(struct conn *c, const char *p, size_t len, int flags)
{
	while (len > 0) {
		ssize_t n = send(c->fd, p, len, flags | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

__attribute__((format(printf, 3, 4))) static int send_head(struct conn *c, bool more,
							   const char *fmt, ...)
{
	char head[1024], date[64];
	time_t now = time(NULL);
	struct tm tm;
	va_list ap;
	int n;

	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
	va_start(ap, fmt);
	n = vsnprintf(head, sizeof(head) - 80, fmt, ap);
	va_end(ap);
	n += snprintf(head + n, sizeof(head) - (size_t)n, "Date: %s\r\n\r\n", date);
	return send_all(c, head, (size_t)n, more ? MSG_MORE : 0);
}

static int send_status(struct conn *c, const char *status)
{
	count.errors++;
	return send_head(c, false, "HTTP/1.1 %s\r\nContent-Length: 0\r\n", status);
}

static int send_json(struct conn *c, const struct request *r, const char *body)
{
	if (send_head(
		    c, !r->head,
		    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n",
		    strlen(body)) < 0)
		return -1;
	return r->head ? 0 : send_all(c, body, strlen(body), 0);
}

static void sleep_until(uint64_t at_ns)
{
	struct timespec ts = {(time_t)(at_ns / NSEC_PER_SEC), (long)(at_ns % NSEC_PER_SEC)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

/* Wait until @len bytes more would have arrived at the capped rate. */
static void pace(struct conn *c, size_t len, double cap)
{
	uint64_t now = clock_now_ns();

	if (c->paced_ns < now)
		c->paced_ns = now;
	c->paced_ns += (uint64_t)((double)len / cap * 1e9);
	sleep_until(c->paced_ns);
}

static int send_file(struct conn *c, int fd, uint64_t off, uint64_t len)
{
	off_t at = (off_t)off;

	while (len > 0) {
		double cap = rate;
		size_t step = cap > 0 ? SEND_PACED : SEND_MAX;
		ssize_t n;

		if (step > len)
			step = len;
		if (cap > 0)
			pace(c, step, cap);
		n = sendfile(c->fd, fd, &at, step);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* gone, or the file became shorter than we said */
			return -1;
		count.body_bytes += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* Answers. */

static void etag_of(const struct stat *st, char *out, size_t len)
{
	snprintf(out, len, "\"%llx-%llx%08lx\"", (unsigned long long)st->st_size,
		 (unsigned long long)st->st_mtim.tv_sec, (unsigned long)st->st_mtim.tv_nsec);
}

static int answer_file(struct conn *c, const struct request *r, int fd, const struct stat *st)
{
	uint64_t size = (uint64_t)st->st_size, off = 0, len = size;
	char etag[64], part[96] = "";
	enum range range = parse_range(r->range, size, &off, &len);

	etag_of(st, etag, sizeof(etag));
	if (!etag_matches(r->if_match, etag))
		return send_status(c, "412 Precondition Failed");
	if (range == RANGE_OUTSIDE) {
		count.errors++;
		return send_head(c, false,
				 "HTTP/1.1 416 Range Not Satisfiable\r\n"
				 "Content-Range: bytes */%ju\r\nContent-Length: 0\r\n",
				 (uintmax_t)size);
	}
	if (range == RANGE_PART) {
		count.ranges++;
		snprintf(part, sizeof(part), "Content-Range: bytes %ju-%ju/%ju\r\n", (uintmax_t)off,
			 (uintmax_t)(off + len - 1), (uintmax_t)size);
	}
	if (send_head(c, !r->head && len > 0,
		      "HTTP/1.1 %s\r\nContent-Type: application/octet-stream\r\n"
		      "Accept-Ranges: bytes\r\nETag: %s\r\nContent-Length: %ju\r\n%s",
		      range == RANGE_PART ? "206 Partial Content" : "200 OK", etag, (uintmax_t)len,
		      part) < 0)
		return -1;
	return r->head ? 0 : send_file(c, fd, off, len);
}

/* Nothing outside DIR can be named, neither by ".." nor through a link. */
static int open_beneath(const char *path)
{
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};

	return (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
}

static int answer_path(struct conn *c, const struct request *r)
{
	struct stat st;
	int fd = open_beneath(r->path), rc;

	if (fd < 0)
		return send_status(c, "404 Not Found");
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		rc = answer_file(c, r, fd, &st);
	else
		rc = send_status(c, "404 Not Found");
	close(fd);
	return rc;
}

static int answer_counted(struct conn *c, const struct request *r)
{
	uint64_t now = ++count.in_flight, most = count.max_in_flight;
	double ms = delay_ms;
	int rc;

	count.requests++;
	count.heads += r->head;
	while (now > most && !atomic_compare_exchange_weak(&count.max_in_flight, &most, now))
		;
	if (ms > 0)
		sleep_until(clock_now_ns() + (uint64_t)(ms * 1e6));
	rc = answer_path(c, r);
	count.in_flight--;
	return rc;
}

static int answer_stats(struct conn *c, const struct request *r)
{
	char body[512];

	snprintf(body, sizeof(body),
		 "{\"requests\":%ju,\"heads\":%ju,\"ranges\":%ju,\"errors\":%ju,"
		 "\"body_bytes\":%ju,\"connections\":%ju,\"open\":%ju,"
		 "\"in_flight\":%ju,\"max_in_flight\":%ju,\"delay_ms\":%g,\"rate\":%.0f}\n",
		 (uintmax_t)count.requests, (uintmax_t)count.heads, (uintmax_t)count.ranges,
		 (uintmax_t)count.errors, (uintmax_t)count.body_bytes, (uintmax_t)count.connections,
		 (uintmax_t)count.open, (uintmax_t)count.in_flight, (uintmax_t)count.max_in_flight,
		 delay_ms, rate);
	return send_json(c, r, body);
}

static int answer_reset(struct conn *c, const struct request *r)
{
	count.requests = count.heads = count.ranges = count.errors = count.body_bytes = 0;
	count.connections = count.open - 1; /* but not the one that asks */
	count.max_in_flight = count.in_flight;
	return send_json(c, r, "{}\n");
}

static int answer_set(struct conn *c, const struct request *r)
{
	const char *p = r->query;
	double value;

	while (*p) {
		if (sscanf(p, "delay_ms=%lf", &value) == 1 && value >= 0)
			delay_ms = value;
		else if (sscanf(p, "rate=%lf", &value) == 1 && value >= 0)
			rate = value;
		else
			return send_status(c, "400 Bad Request");
		p += strcspn(p, "&");
		p += *p == '&';
	}
	return send_json(c, r, "{}\n");
}

static int answer(struct conn *c, const struct request *r)
{
	if (r->bad) {
		send_status(c, "400 Bad Request");
		return -1;
	}
	if (!r->head && strcmp(r->method, "GET") != 0)
		return send_status(c, "405 Method Not Allowed\r\nAllow: GET, HEAD");
	if (strcmp(r->path, "__stats") == 0)
		return answer_stats(c, r);
	if (strcmp(r->path, "__reset") == 0)
		return answer_reset(c, r);
	if (strcmp(r->path, "__set") == 0)
		return answer_set(c, r);
	return answer_counted(c, r);
}

/* Connections. */

/* The length of the first request's head in the buffer with its empty line, or 0 at the end. */
static size_t receive_head(struct conn *c)
{
	for (;;) {
		char *end;
		ssize_t n;

		c->buf[c->have] = 0;
		end = strstr(c->buf, "\r\n\r\n");
		if (end)
			return (size_t)(end - c->buf) + 4;
		n = recv(c->fd, c->buf + c->have, HEAD_MAX - c->have, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* also when the head is larger than the buffer */
			return 0;
		c->have += (size_t)n;
	}
}

static bool serve_one(struct conn *c)
{
	struct request r;
	size_t len = receive_head(c);

	if (len == 0)
		return false;
	c->buf[len - 4] = 0;
	parse_request(&r, c->buf);
	if (answer(c, &r) < 0 || r.close)
		return false;
	c->have -= len;
	memmove(c->buf, c->buf + len, c->have);
	return true;
}

static void *conn_main(void *arg)
{
	struct conn *c = arg;

	prctl(PR_SET_TIMERSLACK, 1000UL); /* 50 us, the default, is a lot beside a 1 ms delay */
	while (serve_one(c))
		;
	close(c->fd);
	free(c);
	count.open--;
	return NULL;
}

static void conn_start(int fd)
{
	struct conn *c = calloc(1, sizeof(*c));
	pthread_attr_t attr;
	pthread_t thread;
	int one = 1;

	if (!c) {
		close(fd);
		return;
	}
	c->fd = fd;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	count.connections++;
	count.open++;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, CONN_STACK);
	if (pthread_create(&thread, &attr, conn_main, c) != 0) {
		close(fd);
		free(c);
		count.open--;
	}
	pthread_attr_destroy(&attr);
}

static int listen_on(uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons(port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&a, len) < 0 || listen(fd, 1024) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) < 0) {
		perror("origin: listen");
		exit(1);
	}
	printf("http://127.0.0.1:%u\n", ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"port", 1, NULL, 'p'},
						{"delay", 1, NULL, 'd'},
						{"rate", 1, NULL, 'r'},
						{NULL, 0, NULL, 0}};
	int opt, port = 0, listener;

	while ((opt = getopt_long(argc, argv, "p:d:r:", options, NULL)) != -1) {
		if (opt == 'p')
			port = atoi(optarg);
		else if (opt == 'd')
			delay_ms = atof(optarg);
		else if (opt == 'r')
			rate = atof(optarg);
		else
			return 2;
	}
	root_fd = optind < argc ? open(argv[optind], O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	if (root_fd < 0) {
		fprintf(stderr, "usage: origin [--port N] [--delay MS] [--rate BYTES] DIR\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	listener = listen_on((uint16_t)port);
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			conn_start(fd);
		else
			usleep(1000);
	}
}
