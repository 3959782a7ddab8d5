/* SPDX-License-Identifier: Apache-2.0 */
/* What an HTTP server answered, and what it means for a range read and for trying again.  Pure. */
#ifndef ORIGIN_HTTP_ANSWER_H
#define ORIGIN_HTTP_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "origin/origin.h"

#define HTTP_ERROR_BODY_MAX 2048

struct http_answer {
	int status; /* 0 = none yet */
	char etag[ORIGIN_ETAG_MAX];
	char error_code[64];		/* x-ms-error-code */
	int64_t length;			/* Content-Length; -1 = not said */
	int64_t from, to, total;	/* Content-Range, inclusive; -1 = not said */
	uint32_t retry_after_ms;	/* 0 = not said */
	time_t date;			/* the server's clock; 0 = not said */
	time_t retry_at;		/* Retry-After as a date of that clock; 0 = not so said */
	char body[HTTP_ERROR_BODY_MAX]; /* the beginning of an error's body, with a NUL */
	size_t body_len;
};

void http_answer_reset(struct http_answer *a);

/* One header line as received, status lines too (which begin the answer anew). @now is the wall
 * clock, for Retry-After dates of a server that does not tell its own. Lines it does not know are
 * passed over. */
void http_answer_header(struct http_answer *a, const char *line, size_t len, time_t now);

/* May the body that begins now fill [off, off + len) of which @got bytes are here? *skip: bytes to
 * pass over first, when a server without ranges sends the whole blob again.
 * 0, -ERANGE (the blob ends before) or -EIO, then with a reason in @why. */
int http_answer_check_range(const struct http_answer *a, uint64_t off, uint32_t len, uint32_t got,
			    uint32_t *skip, char *why, size_t cap);

/* 408, 429, 500, 502, 503, 504: worth trying again. */
bool http_status_is_transient(int status);

/* The error that a final status means; 0 below 300. */
int http_status_errno(int status);

/* Weak ETags never match under If-Match. */
bool http_etag_is_strong(const char *etag);

/* Equal but for a W/ in front. */
bool http_etag_equal(const char *a, const char *b);

/* Milliseconds before try @n + 1 (n from 0): base doubled n times, at most @max, times 0.5 to 1.5
 * by
 * @random, so that nodes which failed together do not come back together. */
uint32_t http_backoff_ms(uint32_t base, uint32_t max, uint32_t n, uint32_t random);

#endif
