/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/bearer.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "origin/azure_error.h"
#include "origin/token.h"

/* A client's requests that wait for one source. */
struct bearer {
	struct token_waiter waiter;
	struct token_source *source;
	struct bearer_calls parked;
	struct bearer *next;
};

static void on_wake(struct token_waiter *w)
{
	struct bearer *b = (struct bearer *)w;
	struct bearer_calls woken;
	struct remote_call *call;

	TAILQ_INIT(&woken); /* those that must wait on are parked anew */
	TAILQ_CONCAT(&woken, &b->parked, parked_link);
	while ((call = TAILQ_FIRST(&woken))) {
		TAILQ_REMOVE(&woken, call, parked_link);
		call->parked = NULL;
		http_resume(&call->http);
	}
}

static struct bearer *bearer_of(struct origin_client *c, struct token_source *source)
{
	struct bearer *b = c->bearers;

	while (b && b->source != source)
		b = b->next;
	if (b)
		return b;
	b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	b->waiter.loop = c->loop;
	b->waiter.wake = on_wake;
	b->source = source;
	TAILQ_INIT(&b->parked);
	b->next = c->bearers;
	c->bearers = b;
	return b;
}

int bearer_authorize(struct remote_call *call)
{
	struct bearer *b = bearer_of(call->client, call->origin->token);
	struct token token;
	int rc;

	if (!b)
		return -ENOMEM;
	rc = token_take(b->source, call->refused, &b->waiter, &token, &call->token_err);
	if (rc == TOKEN_WAIT) {
		TAILQ_INSERT_TAIL(&b->parked, call, parked_link);
		call->parked = &b->parked;
		return HTTP_PARK;
	}
	if (rc)
		return rc;
	call->carried = token.generation;
	rc = http_request_header(&call->http, "Authorization: Bearer %s", token.text);
	OPENSSL_cleanse(&token, sizeof(token));
	return rc;
}

int bearer_judge(struct http_request *r, int rc)
{
	struct remote_call *call = (struct remote_call *)r;

	if (!call->origin->token || call->refused || !azure_error_is_token(&r->answer))
		return rc;
	if (!token_may_change(call->origin->token, call->carried))
		return rc;
	call->refused = call->carried;
	return HTTP_NOW;
}

void bearer_leave(struct remote_call *call)
{
	if (call->parked)
		TAILQ_REMOVE(call->parked, call, parked_link);
	call->parked = NULL;
}

void bearer_client_free(struct origin_client *c)
{
	struct bearer *b;

	while ((b = c->bearers)) {
		c->bearers = b->next;
		token_leave(&b->waiter);
		free(b);
	}
}

int bearer_explain(const struct remote_call *call, const char *url, int rc, struct err *err)
{
	const char *what = call->refused ? "Blob refused the token, and there is no other"
					 : "no token for Blob";
	char why[sizeof(err->text)];

	if (call->http.parked) {
		token_why(call->origin->token, why, sizeof(why));
		return err_set(err, rc, "%s: no token for Blob in time: %.600s", url,
			       *why ? why : "the answer is still waited for");
	}
	if (!call->token_err.code)
		return 0;
	return err_set(err, call->token_err.code, "%s: %s: %s%.600s", url, what,
		       call->origin->cred.why, call->token_err.text);
}
