/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the HTTP client: http_queue.c decides when a request is tried, http.c tries it with
 * libcurl, http_body.c takes what comes back. */
#ifndef ORIGIN_HTTP_IMPL_H
#define ORIGIN_HTTP_IMPL_H

#include "origin/http.h"

#define AGAIN	  HTTP_LATER /* instead of an errno: try again */
#define SPARE_MAX 64

enum state { IDLE, QUEUED, ACTIVE, WAITING, PARKED, FINISHED };
enum sink { SINK_RANGE, SINK_WHOLE, SINK_ERROR };

#define owner_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

TAILQ_HEAD(request_list, http_request);

struct http_client {
	struct loop *loop;
	struct http_options opt;
	struct origin_counters *counters;
	void *multi;
	struct loop_timer timer; /* libcurl's */
	struct loop_post post;	 /* drains what finished outside an event */
	bool posted;
	uint32_t depth; /* inside an event of ours: finished requests are drained at its end */
	struct drr queue;
	struct drr_flow own; /* of requests that name none */
	struct request_list finished;
	uint32_t active;
	uint32_t backoff_base_ms, backoff_max_ms;
	uint64_t random;
	void *spare[SPARE_MAX]; /* libcurl's easy handles */
	uint32_t nspare;
};

/* Is a good answer's body what was asked for? */
static inline bool http_wants_body(const struct http_request *r)
{
	return r->method == HTTP_GET || r->method == HTTP_POST;
}

static inline struct drr_flow *http_flow_of(struct http_request *r)
{
	return r->flow ? r->flow : &r->client->own;
}

/* --- http_queue.c --- */

void http_queue_init(struct http_client *c);

/* Around whatever the loop calls: requests that finish meanwhile are answered at its end. */
void http_event_begin(struct http_client *c);
void http_event_end(struct http_client *c);

/* Set the timer for what comes first: deadline, end of the back-off, or stall. */
void http_arm(struct http_request *r);

/* An attempt is over: @rc is 0, AGAIN or the error that ends the request. */
void http_attempt_end(struct http_request *r, int rc);

/* --- http.c --- */

/* Hand the request to libcurl. An error ends it; HTTP_PARK when prepare() says so. */
int http_attempt_start(struct http_client *c, struct http_request *r);

/* Give the attempt's handle and headers back; a transfer under way is cut. */
void http_attempt_detach(struct http_request *r);

/* --- http_body.c --- */

/* At the first byte of a body, or at its end when it has none: may it be taken? An error is kept in
 * r->fatal with r->cause. */
int http_body_begin(struct http_request *r);

/* 0, or an error when the transfer is to be cut: r->fatal, or an error's body that is too long. */
int http_body_take(struct http_request *r, const char *p, size_t n);

/* The NUL after a whole blob, also after one of no bytes. 0 or -ENOMEM. */
int http_body_seal(struct http_request *r);

#endif
