/* SPDX-License-Identifier: Apache-2.0 */
/* When a request is tried: the queue, the limit, back-off, stalls and deadlines. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "origin/http_impl.h"

#define BACKOFF_BASE_MS 800
#define BACKOFF_MAX_MS	20000
#define TURN_BYTES	(64U << 10)

static uint32_t next_random(struct http_client *c)
{
	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return (uint32_t)(c->random >> 16);
}

static void count_error(struct origin_counters *n, int rc)
{
	switch (rc) { /* answers that callers ask for on purpose are none */
	case 0:
	case -ECANCELED:
	case -EALREADY:
	case -EEXIST:
	case -ENOENT:
		return;
	}
	n->errors++;
}

static void finish(struct http_request *r, int rc)
{
	struct http_client *c = r->client;

	loop_timer_cancel(c->loop, &r->timer);
	if (rc) {
		free(r->buf);
		r->buf = NULL;
		r->buf_len = 0;
	}
	count_error(c->counters, rc);
	r->state = FINISHED;
	r->rc = rc;
	TAILQ_INSERT_TAIL(&c->finished, r, link);
	if (!c->depth && !c->posted) {
		c->posted = true;
		loop_post(c->loop, &c->post);
	}
}

static void pump(struct http_client *c);

static void drain(struct http_client *c)
{
	struct http_request *r;

	while ((r = TAILQ_FIRST(&c->finished))) {
		TAILQ_REMOVE(&c->finished, r, link);
		r->state = IDLE;
		r->done(r, r->rc);
	}
}

void http_event_begin(struct http_client *c)
{
	c->depth++;
}

/* done() runs outside of the event, so that what it cancels or fails to start is posted. */
void http_event_end(struct http_client *c)
{
	c->depth--;
	pump(c);
	drain(c);
}

static void on_post(struct loop_post *p)
{
	struct http_client *c = owner_of(p, struct http_client, post);

	c->posted = false;
	http_event_begin(c);
	http_event_end(c);
}

static void give_up(struct http_request *r)
{
	char why[sizeof(r->cause)];
	double s = (double)(clock_now_ns() - r->start_ns) / 1e9;

	snprintf(why, sizeof(why), "%.200s", *r->cause ? r->cause : "no answer");
	r->parked = r->state == PARKED;
	if (r->parked)
		snprintf(r->cause, sizeof(r->cause), "nothing to go on with for %.1f s", s);
	else if (r->attempts)
		snprintf(r->cause, sizeof(r->cause), "gave up after %u attempt%s in %.1f s: %.200s",
			 r->attempts, r->attempts == 1 ? "" : "s", s, why);
	else
		snprintf(r->cause, sizeof(r->cause), "no connection was free for %.1f s", s);
	finish(r, -ETIMEDOUT);
}

static uint64_t stall_ns(const struct http_request *r)
{
	uint32_t ms = r->stall_timeout_ms ? r->stall_timeout_ms : r->client->opt.stall_timeout_ms;

	return ms * NSEC_PER_MSEC;
}

void http_arm(struct http_request *r)
{
	uint64_t at = r->deadline_ns;

	if (r->state == WAITING && r->retry_ns < at)
		at = r->retry_ns;
	if (r->state == ACTIVE && r->last_ns + stall_ns(r) < at)
		at = r->last_ns + stall_ns(r);
	if (at == UINT64_MAX)
		loop_timer_cancel(r->client->loop, &r->timer);
	else
		loop_timer_set(r->client->loop, &r->timer, at);
}

/* What a request counts for in its turn: whole blobs are small. */
static uint64_t cost(const struct http_request *r)
{
	return r->range_header ? r->len - r->got : TURN_BYTES;
}

/* The last connections are for flows that have none: the others may hold theirs for as long as
 * their origin is silent. */
static bool may_start(void *arg, const struct drr_item *i)
{
	const struct http_client *c = arg;
	const struct window *w = owner_of(i, const struct http_request, turn)->window;
	uint32_t n = c->opt.connections, reserve = n / 8 ? n / 8 : n >= 4;

	if (w && w->active >= w->limit)
		return false;
	return i->flow == &c->own || !i->flow->active || c->active < n - reserve;
}

static void pump(struct http_client *c)
{
	struct drr_item *i;
	int rc;

	while (c->active < c->opt.connections && (i = drr_peek(&c->queue, may_start, c))) {
		struct http_request *r = owner_of(i, struct http_request, turn);

		drr_take(&c->queue, i);
		rc = http_attempt_start(c, r);
		if (!rc)
			continue;
		http_attempt_detach(r);
		if (rc == HTTP_PARK) {
			r->state = PARKED;
			http_arm(r);
		} else {
			finish(r, rc);
		}
	}
}

static void retry(struct http_request *r)
{
	struct http_client *c = r->client;
	uint64_t now = clock_now_ns(), left = r->deadline_ns > now ? r->deadline_ns - now : 0;
	uint64_t least = c->backoff_base_ms * NSEC_PER_MSEC, delay, asked;

	if (r->got > r->got_before)
		r->failures = 0;
	delay = NSEC_PER_MSEC * http_backoff_ms(c->backoff_base_ms, c->backoff_max_ms,
						r->failures++, next_random(c));
	asked = r->answer.retry_after_ms * NSEC_PER_MSEC;
	if (delay >= left && left > least) /* one more attempt fits before the deadline */
		delay = left / 2;
	if (asked > delay)
		delay = asked;
	if (delay >= left) {
		give_up(r);
		return;
	}
	c->counters->retries++;
	log_debug("origin", "trying again", "attempt=%u wait_ms=%llu cause=\"%s\"", r->attempts + 1,
		  (unsigned long long)(delay / NSEC_PER_MSEC), r->cause);
	r->state = WAITING;
	r->retry_ns = now + delay;
	http_arm(r);
}

/* Ahead of the younger. The event that runs pumps at its end. */
static void requeue(struct http_request *r)
{
	r->state = QUEUED;
	drr_push_front(&r->client->queue, http_flow_of(r), &r->turn, cost(r));
	http_arm(r);
}

static void note_answer(struct http_request *r, int rc)
{
	struct window *w = r->window;
	int status = r->answer.status;

	if (!w)
		return;
	if (!rc)
		window_good(w);
	else if ((status == 429 || status == 503) && window_busy(w, r->tried_ns, clock_now_ns()))
		log_info("origin", "busy: fewer requests at once", "limit=%u of=%u cause=\"%s\"",
			 w->limit, w->most, r->cause);
}

void http_attempt_end(struct http_request *r, int rc)
{
	note_answer(r, rc);
	http_attempt_detach(r);
	if (!rc)
		rc = http_body_seal(r);
	if (rc && r->judge)
		rc = r->judge(r, rc);
	if (rc == AGAIN)
		retry(r);
	else if (rc == HTTP_NOW)
		requeue(r);
	else
		finish(r, rc);
}

static void on_request_timer(struct loop_timer *t)
{
	struct http_request *r = owner_of(t, struct http_request, timer);
	struct http_client *c = r->client;
	uint64_t now = clock_now_ns();

	http_event_begin(c);
	if (now >= r->deadline_ns) {
		if (r->state == QUEUED)
			drr_remove(&c->queue, &r->turn);
		if (r->state == ACTIVE && !*r->cause)
			snprintf(r->cause, sizeof(r->cause), "no whole answer before the deadline");
		http_attempt_detach(r);
		give_up(r);
	} else if (r->state == WAITING && now >= r->retry_ns) {
		requeue(r);
	} else if (r->state == ACTIVE && now >= r->last_ns + stall_ns(r)) {
		snprintf(r->cause, sizeof(r->cause), "no byte for %.1f s",
			 (double)stall_ns(r) / 1e9);
		r->answer.retry_after_ms = 0;
		http_attempt_end(r, AGAIN);
	} else {
		http_arm(r);
	}
	http_event_end(c);
}

void http_client_set_backoff(struct http_client *c, uint32_t base_ms, uint32_t max_ms)
{
	c->backoff_base_ms = base_ms;
	c->backoff_max_ms = max_ms;
}

void http_submit(struct http_client *c, struct http_request *r)
{
	r->client = c;
	r->easy = r->headers = NULL;
	r->buf = NULL;
	r->buf_len = r->cap = 0;
	r->got = r->failures = r->attempts = 0;
	r->fatal = r->rc = 0;
	r->parked = false;
	*r->cause = *r->first_etag = 0;
	memset(&r->timer, 0, sizeof(r->timer));
	r->timer.fn = on_request_timer;
	r->start_ns = clock_now_ns();
	if (!r->deadline_ns)
		r->deadline_ns = UINT64_MAX;
	http_answer_reset(&r->answer);
	if (r->window && !r->window->most)
		window_init(r->window, c->opt.connections);
	r->state = QUEUED;
	drr_push(&c->queue, http_flow_of(r), &r->turn, cost(r));
	http_arm(r);
	pump(c);
}

void http_cancel(struct http_request *r)
{
	switch (r->state) {
	case FINISHED: /* done() is due: it says so instead */
		TAILQ_REMOVE(&r->client->finished, r, link);
		break;
	case QUEUED:
		drr_remove(&r->client->queue, &r->turn);
		break;
	case ACTIVE:
	case WAITING:
	case PARKED:
		break;
	default:
		return;
	}
	http_attempt_detach(r);
	snprintf(r->cause, sizeof(r->cause), "canceled");
	finish(r, -ECANCELED);
	pump(r->client);
}

void http_resume(struct http_request *r)
{
	if (r->state != PARKED)
		return;
	r->state = QUEUED;
	drr_push(&r->client->queue, http_flow_of(r), &r->turn, cost(r));
	pump(r->client);
}

void http_move(struct http_request *r, struct drr_flow *flow)
{
	if (r->state == QUEUED)
		drr_remove(&r->client->queue, &r->turn);
	if (r->state == ACTIVE) {
		http_flow_of(r)->active--;
		flow->active++;
	}
	r->flow = flow;
	if (r->state == QUEUED)
		drr_push(&r->client->queue, http_flow_of(r), &r->turn, cost(r));
}

void http_queue_init(struct http_client *c)
{
	c->post.fn = on_post;
	c->backoff_base_ms = BACKOFF_BASE_MS;
	c->backoff_max_ms = BACKOFF_MAX_MS;
	if (getrandom(&c->random, sizeof(c->random), GRND_NONBLOCK) < 0 || !c->random)
		c->random = clock_now_ns() | 1;
	drr_init(&c->queue, TURN_BYTES);
	drr_flow_init(&c->own, DRR_DEMAND);
	TAILQ_INIT(&c->finished);
}
