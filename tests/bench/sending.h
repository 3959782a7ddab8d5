/* SPDX-License-Identifier: Apache-2.0 */
/* A connection of the bench's origin and how it sends: as it is, or as fast as a cap lets it. */
#ifndef TESTS_BENCH_SENDING_H
#define TESTS_BENCH_SENDING_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "counters.h"
#include "request.h"

#define HEAD_MAX 16384

struct conn {
	int fd;
	struct entry *entry; /* of the log, for the request being answered; may be NULL */
	uint64_t paced_ns;   /* when the bytes sent so far would have arrived at the capped rate */
	size_t have;	     /* bytes of `buf`; more than one request may be there */
	char buf[HEAD_MAX + 1];
};

/* Sending: 0, or -1 when the connection is of no more use. */

static inline int send_all(struct conn *c, const char *p, size_t len, int flags)
{
	while (len > 0) {
		ssize_t n;

		log_sending(c->entry);
		n = send(c->fd, p, len, flags | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

__attribute__((format(printf, 3, 4))) static inline int send_head(struct conn *c, bool more,
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

static inline int send_status(struct conn *c, const char *status)
{
	count.errors++;
	return send_head(c, false, "HTTP/1.1 %s\r\nContent-Length: 0\r\n", status);
}

static inline int send_text(struct conn *c, const struct request *r, const char *type,
			    const char *body)
{
	size_t len = strlen(body);

	if (send_head(c, !r->head, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n",
		      type, len) < 0)
		return -1;
	return r->head ? 0 : send_all(c, body, len, 0);
}

static inline void sleep_until(uint64_t at_ns)
{
	struct timespec ts = {(time_t)(at_ns / NSEC_PER_SEC), (long)(at_ns % NSEC_PER_SEC)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

/* Wait until @len bytes more would have arrived at the capped rate. */
static inline void pace(struct conn *c, size_t len, double cap)
{
	uint64_t now = clock_now_ns();

	if (c->paced_ns < now)
		c->paced_ns = now;
	c->paced_ns += (uint64_t)((double)len / cap * 1e9);
	sleep_until(c->paced_ns);
}

#endif
