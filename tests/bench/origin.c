/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP/1.1 origin on loopback that is as slow as it is told to be, and counts.
 *
 *	origin [--port N] [--delay MS] [--rate BYTES] [--tile NAME=BYTES:FILE]... DIR
 *
 * Serves the regular files below DIR: GET and HEAD, one byte range (Range, or Azure's x-ms-range),
 * If-Match, keep-alive. Prints its URL when it listens; --port 0, the default, takes a free one.
 * A tile is DIR's FILE again and again until there are BYTES of it.
 *
 *	/                                DIR's own files and the tiles, as links
 *	/__stats                         counters as JSON, of requests for files only
 *	/__log                           these requests one by one, with when each began and ended
 *	/__reset                         zero them (connections that are open stay counted)
 *	/__set?delay_ms=20&rate=80000000 from the next request on; rate in bytes/s a connection,
 *	                                 0 = any
 *
 * Slowness is that of a distant store: the delay is before the first byte of each answer, the rate
 * is each connection's own. A thread serves a connection; nothing here is fit for the open network.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
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
#include "counters.h"
#include "etag.h"
#include "request.h"
#include "sending.h"
#include "tiles.h"

#define JSON	   "application/json"
#define SEND_MAX   (1U << 20)
#define SEND_PACED (64U << 10) /* a step of a capped connection: 0.8 ms at 80 MB/s */
#define CONN_STACK (256U << 10)

static int root_fd;
static _Atomic double delay_ms;
static _Atomic double rate; /* bytes/s a connection, 0 = as fast as it goes */

/* Files. */

/* What a path names: a file, or one that repeats until there are @size bytes. */
struct served {
	int fd;
	uint64_t size, period; /* period: of the file itself */
	enum kind kind;
	char etag[ETAG_MAX];
};

static int send_file(struct conn *c, const struct served *s, uint64_t off, uint64_t len)
{
	while (len > 0) {
		double cap = rate;
		uint64_t step = cap > 0 ? SEND_PACED : SEND_MAX;
		off_t at = (off_t)(off % s->period);
		ssize_t n;

		if (step > len)
			step = len;
		if (step > s->period - (uint64_t)at)
			step = s->period - (uint64_t)at;
		if (cap > 0)
			pace(c, step, cap);
		log_sending(c->entry);
		n = sendfile(c->fd, s->fd, &at, step);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* gone, or the file became shorter than we said */
			return -1;
		count.body_bytes += (uint64_t)n;
		count.kind_bytes[s->kind] += (uint64_t)n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* Answers. */

static int answer_file(struct conn *c, const struct request *r, const struct served *s)
{
	uint64_t off = 0, len = s->size;
	char part[96] = "";
	enum range range = parse_range(r->range, s->size, &off, &len);

	if (!etag_matches(r->if_match, s->etag))
		return send_status(c, "412 Precondition Failed");
	if (range == RANGE_OUTSIDE) {
		count.errors++;
		return send_head(c, false,
				 "HTTP/1.1 416 Range Not Satisfiable\r\n"
				 "Content-Range: bytes */%ju\r\nContent-Length: 0\r\n",
				 (uintmax_t)s->size);
	}
	if (range == RANGE_PART) {
		count.ranges++;
		snprintf(part, sizeof(part), "Content-Range: bytes %ju-%ju/%ju\r\n", (uintmax_t)off,
			 (uintmax_t)(off + len - 1), (uintmax_t)s->size);
	}
	if (c->entry && !r->head) {
		c->entry->off = off;
		c->entry->len = len;
	}
	if (send_head(c, !r->head && len > 0,
		      "HTTP/1.1 %s\r\nContent-Type: application/octet-stream\r\n"
		      "Accept-Ranges: bytes\r\nETag: %s\r\nContent-Length: %ju\r\n%s",
		      range == RANGE_PART ? "206 Partial Content" : "200 OK", s->etag,
		      (uintmax_t)len, part) < 0)
		return -1;
	return r->head ? 0 : send_file(c, s, off, len);
}

/* Nothing outside DIR can be named, neither by ".." nor through a link. */
static int open_beneath(const char *path)
{
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};

	return (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
}

/* False when there is no such file; else the caller closes out->fd. */
static bool find_served(const char *path, struct served *out)
{
	const struct tile *tile = tile_find(path);
	struct stat st;

	out->fd = open_beneath(tile ? tile->file : path);
	if (out->fd < 0)
		return false;
	if (fstat(out->fd, &st) < 0 || !S_ISREG(st.st_mode) || (tile && st.st_size == 0)) {
		close(out->fd);
		return false;
	}
	out->period = (uint64_t)st.st_size;
	out->size = tile ? tile->size : out->period;
	out->kind = kind_of(path);
	etag_of(&st, out->size, out->etag);
	return true;
}

static int answer_path(struct conn *c, const struct request *r)
{
	struct served served;
	int rc;

	if (!find_served(r->path, &served))
		return send_status(c, "404 Not Found");
	rc = answer_file(c, r, &served);
	close(served.fd);
	return rc;
}

static int answer_counted(struct conn *c, const struct request *r)
{
	double ms = delay_ms;
	int rc;

	c->entry = count_start(r->path, r->head);
	if (ms > 0)
		sleep_until(clock_now_ns() + (uint64_t)(ms * 1e6));
	rc = answer_path(c, r);
	c->entry = NULL;
	count.in_flight--;
	return rc;
}

static void print_links(FILE *f)
{
	int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	for (unsigned i = 0; i < ntiles; i++)
		fprintf(f, "<a href=\"%s\">%s</a>\n", tiles[i].name, tiles[i].name);
	while (d && (e = readdir(d)))
		if (e->d_type == DT_REG)
			fprintf(f, "<a href=\"%s\">%s</a>\n", e->d_name, e->d_name);
	if (d)
		closedir(d);
}

static void print_state(FILE *f)
{
	print_stats(f);
	fprintf(f, ",\"delay_ms\":%g,\"rate\":%.0f}\n", delay_ms, rate);
}

static int answer_text(struct conn *c, const struct request *r, const char *type,
		       void (*print)(FILE *f))
{
	char *body = NULL;
	size_t len;
	FILE *f = open_memstream(&body, &len);
	int rc = -1;

	if (f) {
		print(f);
		if (fclose(f) == 0)
			rc = send_text(c, r, type, body);
	}
	free(body);
	return rc;
}

static int answer_reset(struct conn *c, const struct request *r)
{
	count_reset();
	return send_text(c, r, JSON, "{}\n");
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
	return send_text(c, r, JSON, "{}\n");
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
		return answer_text(c, r, JSON, print_state);
	if (strcmp(r->path, "__log") == 0)
		return answer_text(c, r, JSON, print_log);
	if (r->path[0] == 0)
		return answer_text(c, r, "text/html", print_links);
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

static int usage(void)
{
	fprintf(stderr, "usage: origin [--port N] [--delay MS] [--rate BYTES] "
			"[--tile NAME=BYTES:FILE]... DIR\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"port", 1, NULL, 'p'},
						{"delay", 1, NULL, 'd'},
						{"rate", 1, NULL, 'r'},
						{"tile", 1, NULL, 't'},
						{NULL, 0, NULL, 0}};
	int opt, port = 0, listener;

	while ((opt = getopt_long(argc, argv, "p:d:r:t:", options, NULL)) != -1) {
		if (opt == 'p')
			port = atoi(optarg);
		else if (opt == 'd')
			delay_ms = atof(optarg);
		else if (opt == 'r')
			rate = atof(optarg);
		else if (opt != 't' || !tile_add(optarg))
			return usage();
	}
	root_fd = optind < argc ? open(argv[optind], O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	if (root_fd < 0)
		return usage();
	log_since_ns = clock_now_ns();
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
