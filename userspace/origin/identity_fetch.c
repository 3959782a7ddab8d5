/* SPDX-License-Identifier: Apache-2.0 */
/* Asking for a token: one step after the other, on a loop and connections of this call's own.
 * Tokens are rare, so nothing is kept in between. */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "origin/identity.h"

#define ANSWER_LIMIT	   (64 << 10)
#define CONNECT_TIMEOUT_MS 5000
#define BACKOFF_MAX_MS	   20000
#define POLL_MS		   100 /* how soon a stop is seen */

static const struct {
	const char *label;
	int (*ask)(const struct identity *id, struct identity_ask *ask, struct err *err);
} steps[] = {
	[IDENTITY_ENVIRONMENT] = {"environment", identity_ask_environment},
	[IDENTITY_WORKLOAD] = {"workload identity", identity_ask_workload},
	[IDENTITY_MANAGED] = {"managed identity", identity_ask_imds},
};

struct fetch {
	struct http_request http;
	const struct identity *id;
	struct identity_limits limits;
	struct identity_ask ask;
	bool sure; /* this step is the one: it is worth waiting for */
	bool done;
	int rc;
};

/* Requests to here are none to an origin. */
static struct origin_counters uncounted;

static struct identity_limits limits_of(const struct identity_limits *given)
{
	static const struct identity_limits usual = {1000, 10000, 30000, 75000, 800};

	return given && given->stall_ms ? *given : usual;
}

static int prepare(struct http_request *r)
{
	return ((struct fetch *)r)->ask.imds ? http_request_header(r, "Metadata: true") : 0;
}

/* IMDS is not there yet (404), or gone for up to 70 s (410): it asks to be tried again. */
static int judge(struct http_request *r, int rc)
{
	struct fetch *f = (struct fetch *)r;
	uint64_t ms = (clock_now_ns() - r->start_ns) / NSEC_PER_MSEC;
	int status = r->answer.status;

	if (f->ask.imds && (status == 404 || status == 410))
		rc = HTTP_LATER;
	if (f->ask.imds && r->unconnected && !f->sure)
		return -EHOSTUNREACH;
	if (rc == HTTP_LATER && ms >= (status == 410 ? f->limits.gone_ms : f->limits.patience_ms))
		return -ETIMEDOUT;
	return rc;
}

static void on_done(struct http_request *r, int rc)
{
	struct fetch *f = (struct fetch *)r;

	f->rc = rc;
	f->done = true;
}

static struct http_client *client_new(struct loop *l, const struct fetch *f, struct err *err)
{
	struct http_options opt = {.connections = 1,
				   .connect_timeout_ms = f->ask.imds ? f->limits.imds_connect_ms
								     : CONNECT_TIMEOUT_MS,
				   .stall_timeout_ms = f->limits.stall_ms,
				   .ca_file = f->id->ca_file,
				   .no_proxy = f->ask.imds,
				   .counters = &uncounted};
	struct http_client *c = http_client_new(l, &opt, err);

	if (c)
		http_client_set_backoff(c, f->limits.backoff_ms, BACKOFF_MAX_MS);
	return c;
}

/* Put the request and run it to its end. */
static int exchange(struct fetch *f, const _Atomic bool *stop, struct err *err)
{
	struct loop *l = loop_new(LOOP_EPOLL, err);
	struct http_client *c = l ? client_new(l, f, err) : NULL;

	if (!c) {
		if (l)
			loop_free(l);
		return -ENOMEM;
	}
	f->http = (struct http_request){
		.method = f->ask.method,
		.url = f->ask.url,
		.body = f->ask.body,
		.body_len = f->ask.body ? strlen(f->ask.body) : 0,
		.limit = ANSWER_LIMIT,
		.prepare = prepare,
		.judge = judge,
		.done = on_done,
		.deadline_ns =
			clock_now_ns() + (f->limits.gone_ms + f->limits.stall_ms) * NSEC_PER_MSEC};
	http_submit(c, &f->http);
	while (!f->done && !*stop)
		loop_run_once(l, POLL_MS);
	if (!f->done)
		http_cancel(&f->http);
	while (!f->done)
		loop_run_once(l, POLL_MS);
	http_client_free(c);
	loop_free(l);
	return 0;
}

static int explain_imds(const struct fetch *f, int rc, struct err *err)
{
	const struct http_answer *a = &f->http.answer;
	char said[200];

	if (!a->status)
		return err_set(err, rc, "no metadata service answers at %.60s (%.140s)",
			       f->id->imds ? f->id->imds : "169.254.169.254", f->http.cause);
	token_answer_error(a->body, NULL, said, sizeof(said));
	if (a->status == 400)
		return err_set(err, -EACCES,
			       "the machine has no such identity (%s%.120s): assign one, or check "
			       "the client id",
			       *said ? "" : "HTTP 400", said);
	return err_set(err, rc, "the metadata service says %.80s %.120s", f->http.cause, said);
}

static int explain(const struct fetch *f, int rc, struct err *err)
{
	const struct http_answer *a = &f->http.answer;
	char said[240];

	if (f->ask.imds)
		return explain_imds(f, rc, err);
	if (!a->status)
		return err_set(err, rc, "%.80s does not answer (%.140s)%s", f->ask.url,
			       f->http.cause, f->http.untrusted ? ": set ca_file" : "");
	token_answer_error(a->body, f->id->secret, said, sizeof(said));
	return err_set(err, a->status < 500 && a->status != 429 ? -EACCES : rc,
		       "Entra ID says %.60s %.200s", f->http.cause, said);
}

static int run_step(struct fetch *f, const _Atomic bool *stop, struct token_answer *out,
		    struct err *err)
{
	time_t now;
	int rc = exchange(f, stop, err);

	if (rc)
		return rc;
	if (f->rc == -ECANCELED)
		return err_set(err, f->rc, "canceled");
	if (f->rc)
		return explain(f, f->rc, err);
	now = f->http.answer.date ? f->http.answer.date : time(NULL);
	rc = token_answer_parse(f->http.buf, f->http.buf_len, now, out, err);
	OPENSSL_cleanse(f->http.buf, f->http.buf_len);
	free(f->http.buf);
	return rc;
}

static void ask_fini(struct identity_ask *ask)
{
	if (ask->body)
		OPENSSL_cleanse(ask->body, strlen(ask->body));
	free(ask->body);
	free(ask->url);
}

/* *@there: the step is set up, so that its failure ends the search. */
static int try_step(struct fetch *f, enum identity_kind kind, const _Atomic bool *stop, bool *there,
		    struct token_answer *out, struct err *err)
{
	int rc = steps[kind].ask(f->id, &f->ask, err);

	*there = rc != -ENOENT;
	if (!rc)
		rc = run_step(f, stop, out, err);
	ask_fini(&f->ask);
	return rc;
}

static void add_reason(struct err *all, const char *label, const char *why)
{
	size_t n = strlen(all->text);

	snprintf(all->text + n, sizeof(all->text) - n, "%s%s: %.210s", n ? "; " : "", label, why);
}

int identity_fetch(const struct identity *id, const struct identity_limits *limits,
		   const _Atomic bool *stop, enum identity_kind *step, struct token_answer *out,
		   struct err *err)
{
	enum identity_kind only = *step ? *step : id->kind;
	struct err all = {0};
	bool there = false;
	int rc = -EACCES;

	for (int kind = IDENTITY_ENVIRONMENT; kind <= IDENTITY_MANAGED; kind++) {
		struct fetch f = {.id = id,
				  .limits = limits_of(limits),
				  .sure = only == (enum identity_kind)kind};
		struct err why = {0};

		if (only != IDENTITY_AUTO && only != (enum identity_kind)kind)
			continue;
		if (there) {
			add_reason(&all, steps[kind].label, "not tried after that");
			continue;
		}
		rc = try_step(&f, (enum identity_kind)kind, stop, &there, out, &why);
		if (!rc) {
			*step = (enum identity_kind)kind;
			return 0;
		}
		add_reason(&all, steps[kind].label, why.text);
	}
	if (rc == -ENOENT || rc == -EINVAL || rc == -EHOSTUNREACH || rc == -EBADMSG)
		rc = -EACCES; /* waiting does not help */
	return err_set(err, rc, "%s", all.text);
}
