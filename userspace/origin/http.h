/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous HTTP for origins: the only user of libcurl there.
 *
 * A request is tried until it succeeds, fails for good or its deadline passes.
 *
 *	QUEUED  waits for one of the client's connections; flows take turns (base/drr.h). A busy
 *		origin's are fewer (origin/window.h)
 *	ACTIVE  libcurl has it; no byte for the stall time ends the attempt
 *	WAITING backs off: 0.8 s doubled each time, jittered, or longer where Retry-After asks
 *	PARKED  prepare() lacks something (a token); http_resume() queues it again
 *	FINISHED done() is due
 *
 * Tried again: 408, 429, 500, 502, 503, 504, failures to resolve, connect or keep a connection,
 * stalls, and bodies that end early; a range read then goes on from the byte where it stopped, held
 * to the ETag that it began with. Not tried again: other statuses, bodies longer than asked, wrong
 * Content-Range, what is not HTTP, certificates that do not verify.
 *
 * Everything is called on the loop's thread. done() is never called from inside submit or cancel.
 */
#ifndef ORIGIN_HTTP_H
#define ORIGIN_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/drr.h"
#include "base/err.h"
#include "base/loop.h"
#include "origin/http_answer.h"
#include "origin/window.h"

struct http_client;

/* Beside errnos, from prepare() and judge(). */
enum {
	HTTP_LATER = 1, /* try again, after the back-off */
	HTTP_NOW,	/* try again at once */
	HTTP_PARK,	/* not before http_resume() */
};

struct http_options {
	uint32_t connections; /* most requests in flight, and connections kept */
	uint32_t connect_timeout_ms, stall_timeout_ms;
	const char *ca_file; /* extra trust; NULL or "" = the system's only. The caller's. */
	bool no_proxy;	     /* whatever the environment says */
	struct origin_counters *counters; /* NULL = origin_counters */
};

/* POST is sent as a form, and its answer taken as a whole blob's. */
enum http_method { HTTP_GET, HTTP_HEAD, HTTP_PUT, HTTP_POST };

/* Embedded in its owner; zero it before setting fields. */
struct http_request {
	/* set by the caller; strings and buffers stay the caller's until done() */
	enum http_method method;
	const char *url;	  /* may hold a secret: never logged */
	const char *userpwd;	  /* "user:password" or NULL */
	const char *range_header; /* GET only: "Range" or "x-ms-range"; NULL = the whole blob */
	uint64_t off;
	uint32_t len;
	uint8_t *dst;
	size_t limit;	      /* whole blob, POST: most bytes taken */
	const char *if_match; /* NULL or "" = none; the answer's ETag is checked against it, too */
	const char *if_none_match;
	const void *body; /* PUT, POST */
	size_t body_len;
	uint32_t max_redirects;	   /* 0 = none followed; credentials never go to another host */
	uint32_t stall_timeout_ms; /* 0 = the client's */
	uint64_t deadline_ns;	   /* CLOCK_MONOTONIC; 0 = none */
	struct drr_flow *flow;	   /* outlives it; NULL = the client's own */
	struct window *window;	   /* outlives it, zeroed at first; NULL = none */
	/* Add headers with http_request_header(); called for each attempt, so that dates and
	 * signatures are fresh. range and match below are set. 0, HTTP_PARK, or an errno that ends
	 * the request. May be NULL. */
	int (*prepare)(struct http_request *r);
	/* May overrule what a failed attempt means: @rc is HTTP_LATER or the errno that would end
	 * the request. Returns one of these or HTTP_NOW. May be NULL. */
	int (*judge)(struct http_request *r, int rc);
	/* [0, got) of dst are in. May not submit or cancel. May be NULL. */
	void (*progress)(struct http_request *r, uint32_t got);
	/* 0, or -ENOENT, -EACCES, -EEXIST (409), -EALREADY (304), -ESTALE, -ERANGE, -EFBIG,
	 * -ETIMEDOUT, -ECANCELED, -EIO, -ENOMEM. May submit again; may not free the client. */
	void (*done)(struct http_request *r, int rc);

	/* results */
	struct http_answer answer; /* of the last attempt */
	uint32_t attempts;
	char *buf; /* whole blob, NUL after it: the caller frees it after rc 0 */
	size_t buf_len;
	char cause[320];  /* why it failed, without the URL */
	bool no_host;	  /* at the end the host's name did not resolve */
	bool untrusted;	  /* its certificate did not verify */
	bool unconnected; /* at the end no connection could be made */
	bool parked;	  /* the deadline came while it was parked */

	/* of the attempt that is being prepared */
	char range[64];		     /* "bytes=0-99" or "" */
	char match[ORIGIN_ETAG_MAX]; /* what If-Match will say, or "" */

	/* the client's */
	struct http_client *client;
	TAILQ_ENTRY(http_request) link;
	struct drr_item turn;
	struct loop_timer timer;
	void *easy, *headers;
	int state, sink, rc, fatal, os_errno, socket_errno;
	bool begun;
	uint32_t got, got_before, skip, failures;
	size_t sent, cap, header_bytes, error_bytes;
	uint64_t start_ns, tried_ns, last_ns, retry_ns;
	char first_etag[ORIGIN_ETAG_MAX];
	char error[256];
};

struct http_client *http_client_new(struct loop *l, const struct http_options *opt,
				    struct err *err);
void http_client_free(struct http_client *c); /* no request may be in flight; not from done() */

void http_submit(struct http_client *c, struct http_request *r);
void http_cancel(struct http_request *r);		       /* done(-ECANCELED) follows */
void http_move(struct http_request *r, struct drr_flow *flow); /* also while it waits */
void http_resume(struct http_request *r);		       /* a parked one is prepared anew */

/* A header of the attempt that prepare() is called for. 0, -ENOMEM, or -EINVAL when the text holds
 * a control character. */
int http_request_header(struct http_request *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* For tests: 800 and 20000 otherwise. */
void http_client_set_backoff(struct http_client *c, uint32_t base_ms, uint32_t max_ms);

#endif
