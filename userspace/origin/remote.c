/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/remote.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "origin/bearer.h"

static void on_done(struct http_request *http, int rc);

static void on_progress(struct http_request *http, uint32_t got)
{
	struct origin_read *r = ((struct remote_call *)http)->read;

	if (r && r->progress)
		r->progress(r, got);
}

int remote_call_init(struct remote_call *call, struct origin_client *c, struct origin *o,
		     const char *name, const char *query, struct err *err)
{
	memset(call, 0, sizeof(*call));
	call->client = c;
	call->name = name;
	call->query = query;
	call->url = o->ops->remote_url(o, name, query);
	if (!call->url)
		return err_set(err, -ENOMEM, "no memory to ask for %.200s", name);
	call->origin = origin_ref(o);
	call->http.url = call->url;
	call->http.userpwd = o->url.userinfo;
	call->http.prepare = o->ops->remote_prepare;
	call->http.judge = o->ops->remote_judge;
	call->http.progress = on_progress;
	call->http.done = on_done;
	call->http.max_redirects = o->ops->max_redirects;
	call->http.deadline_ns = origin_deadline(c);
	return 0;
}

void remote_call_fini(struct remote_call *call)
{
	if (call->url)
		OPENSSL_cleanse(call->url, strlen(call->url));
	free(call->url);
	origin_unref(call->origin);
	call->url = NULL;
	call->origin = NULL;
}

static void on_done(struct http_request *http, int rc)
{
	struct remote_call *call = (struct remote_call *)http;
	struct origin_read *r = call->read;

	bearer_leave(call);
	if (!r) {
		call->rc = rc;
		call->done = true;
		return;
	}
	strcpy(r->got_etag, http->answer.etag);
	r->err.code = 0;
	if (rc)
		rc = call->origin->ops->remote_explain(call, rc, &r->err);
	remote_call_fini(call);
	free(call);
	r->impl = NULL;
	r->done(r, rc);
}

int remote_call_run(struct remote_call *call, struct err *err)
{
	http_submit(call->client->http, &call->http);
	while (!call->done)
		loop_run_once(call->client->loop, -1);
	return call->rc ? call->origin->ops->remote_explain(call, call->rc, err) : 0;
}

void remote_read(struct origin_client *c, struct origin_read *r)
{
	struct remote_call *call = malloc(sizeof(*call));

	if (!call || remote_call_init(call, c, r->origin, r->name, "", &r->err)) {
		free(call);
		err_set(&r->err, -ENOMEM, "no memory to read %.200s", r->name);
		origin_read_finish(c, r, -ENOMEM);
		return;
	}
	call->read = r;
	call->http.method = HTTP_GET;
	call->http.range_header = r->origin->ops->range_header;
	call->http.off = r->off;
	call->http.len = r->len;
	call->http.dst = r->dst;
	call->http.if_match = r->etag;
	call->http.deadline_ns = r->deadline_ns;
	call->http.flow = r->flow;
	call->http.window = r->window;
	r->impl = call;
	http_submit(c->http, &call->http);
}

void remote_cancel(struct origin_client *c, struct origin_read *r)
{
	struct remote_call *call = r->impl;

	(void)c;
	if (call)
		http_cancel(&call->http);
}

void remote_move(struct origin_client *c, struct origin_read *r)
{
	struct remote_call *call = r->impl;

	(void)c;
	if (call)
		http_move(&call->http, r->flow);
}

int remote_get(struct origin_client *c, struct origin *o, const char *name, size_t limit,
	       const char *if_none_match, char **buf, size_t *len, char *etag, struct err *err)
{
	struct remote_call call;
	int rc = remote_call_init(&call, c, o, name, "", err);

	if (rc)
		return rc;
	call.http.method = HTTP_GET;
	call.http.limit = limit;
	call.http.if_none_match = if_none_match;
	rc = remote_call_run(&call, err);
	if (!rc) {
		*buf = call.http.buf;
		*len = call.http.buf_len;
		if (etag)
			strcpy(etag, call.http.answer.etag);
	}
	remote_call_fini(&call);
	return rc;
}

int remote_stat(struct origin_client *c, struct origin *o, const char *name,
		struct origin_stat *out, int *status, struct err *err)
{
	struct remote_call call;
	int rc = remote_call_init(&call, c, o, name, "", err);
	char shown[320];

	if (status)
		*status = 0;
	if (rc)
		return rc;
	call.http.method = HTTP_HEAD;
	rc = remote_call_run(&call, err);
	if (status)
		*status = call.http.answer.status;
	if (!rc && call.http.answer.length < 0)
		rc = err_set(err, -EIO, "%s: the server gives no length",
			     origin_url(o, name, shown, sizeof(shown)));
	if (!rc) {
		out->length = (uint64_t)call.http.answer.length;
		strcpy(out->etag, call.http.answer.etag);
	}
	remote_call_fini(&call);
	return rc;
}
