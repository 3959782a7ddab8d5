/* SPDX-License-Identifier: Apache-2.0 */
/* Origins and their clients: what is the same for every kind. */
#include "origin/origin.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "origin/bearer.h"
#include "origin/origin_impl.h"
#include "origin/token.h"

#define DEFAULT_API_VERSION	   "2021-12-02"
#define DEFAULT_CONNECTIONS	   16
#define DEFAULT_CONNECT_TIMEOUT_MS 5000
#define DEFAULT_STALL_TIMEOUT_MS   10000
#define DEFAULT_DEADLINE_MS	   90000

struct origin_counters origin_counters;

static const struct origin_ops *const ops_of_kind[] = {
	[URL_AZURE] = &azure_origin_ops,
	[URL_HTTP] = &http_origin_ops,
	[URL_FILE] = &file_origin_ops,
};

/* Tokens are understood from this version of Blob's interface on. */
#define TOKEN_API_VERSION "2017-11-09"

static int take_identity(struct origin *o, const struct origin_config *cfg, struct err *err)
{
	if (!o->cred.use_identity)
		return 0;
	if (strcmp(o->api_version, TOKEN_API_VERSION) < 0)
		return err_set(err, -EINVAL,
			       "api_version %s knows no identities: " TOKEN_API_VERSION
			       " or a later one does",
			       o->api_version);
	o->token = token_source_shared(o->cred.identity, cfg->client_id, cfg->ca_file, err);
	return o->token ? 0 : -ENOMEM;
}

int origin_open(const char *url, const struct origin_config *cfg, struct origin **out, char *name,
		struct err *err)
{
	const char *version =
		cfg->api_version && *cfg->api_version ? cfg->api_version : DEFAULT_API_VERSION;
	struct origin *o = calloc(1, sizeof(*o));
	int rc;

	if (!o)
		return err_set(err, -ENOMEM, "no memory to open an origin");
	o->refs = 1;
	rc = credentials_resolve(url, cfg, &o->url, &o->cred, err);
	if (!rc && strlen(version) >= sizeof(o->api_version))
		rc = err_set(err, -EINVAL, "api_version is a date such as " DEFAULT_API_VERSION);
	if (!rc) {
		strcpy(o->api_version, version);
		rc = take_identity(o, cfg, err);
	}
	if (rc) {
		origin_unref(o);
		return rc;
	}
	o->ops = ops_of_kind[o->url.kind];
	strcpy(name, o->url.name);
	*out = o;
	return 0;
}

struct origin *origin_ref(struct origin *o)
{
	o->refs++;
	return o;
}

void origin_unref(struct origin *o)
{
	if (!o || --o->refs)
		return;
	OPENSSL_cleanse(o, sizeof(*o));
	free(o);
}

const char *origin_kind(const struct origin *o)
{
	return o->ops->name;
}

bool origin_is_writable(const struct origin *o)
{
	return o->ops->writable;
}

const char *origin_url(const struct origin *o, const char *name, char *buf, size_t len)
{
	return o->ops->show(o, name, buf, len);
}

bool origin_is_single_blob(const struct origin *o)
{
	char sr[8];

	return o->url.kind == URL_AZURE && !o->cred.key_len &&
	       url_query_value(o->cred.sas, "sr", sr, sizeof(sr)) && sr[0] == 'b';
}

/* --- clients -------------------------------------------------------------------------------- */

static void on_later(struct loop_post *p)
{
	struct origin_client *c =
		(struct origin_client *)((char *)p - offsetof(struct origin_client, post));
	struct origin_read *r;

	c->posted = false;
	while ((r = c->later)) {
		c->later = r->impl;
		if (!c->later)
			c->later_last = NULL;
		r->impl = NULL;
		r->done(r, r->err.code);
	}
}

void origin_read_finish(struct origin_client *c, struct origin_read *r, int rc)
{
	r->err.code = rc;
	r->impl = NULL;
	if (c->later_last)
		c->later_last->impl = r;
	else
		c->later = r;
	c->later_last = r;
	if (!c->posted) {
		c->posted = true;
		loop_post(c->loop, &c->post);
	}
}

bool origin_read_cancel_finished(struct origin_client *c, struct origin_read *r)
{
	for (struct origin_read *i = c->later; i; i = i->impl) {
		if (i == r) {
			err_set(&r->err, -ECANCELED, "the read was canceled");
			return true;
		}
	}
	return false;
}

uint64_t origin_deadline(const struct origin_client *c)
{
	return clock_now_ns() + c->deadline_ms * NSEC_PER_MSEC;
}

struct origin_client *origin_client_new(struct loop *l, const struct origin_config *cfg,
					struct err *err)
{
	struct http_options opt = {
		.connections = cfg->connections ? cfg->connections : DEFAULT_CONNECTIONS,
		.connect_timeout_ms = cfg->connect_timeout_ms ? cfg->connect_timeout_ms
							      : DEFAULT_CONNECT_TIMEOUT_MS,
		.stall_timeout_ms =
			cfg->stall_timeout_ms ? cfg->stall_timeout_ms : DEFAULT_STALL_TIMEOUT_MS,
		.ca_file = cfg->ca_file,
	};
	struct origin_client *c = calloc(1, sizeof(*c));

	if (!c) {
		err_set(err, -ENOMEM, "no memory for an origin client");
		return NULL;
	}
	c->loop = l;
	c->post.fn = on_later;
	c->deadline_ms = cfg->deadline_ms ? cfg->deadline_ms : DEFAULT_DEADLINE_MS;
	c->stall_timeout_ms = opt.stall_timeout_ms;
	c->http = http_client_new(l, &opt, err);
	if (!c->http) {
		free(c);
		return NULL;
	}
	return c;
}

void origin_client_free(struct origin_client *c)
{
	if (!c)
		return;
	bearer_client_free(c);
	http_client_free(c->http);
	free(c);
}

/* --- reads ---------------------------------------------------------------------------------- */

static int bad_name(const struct origin *o, const char *name, struct err *err)
{
	if (url_name_is_valid(name) && strlen(o->url.folder) + strlen(name) <= ORIGIN_NAME_MAX)
		return 0;
	return err_set(err, -EINVAL,
		       "a blob's name is 1 to %d bytes without empty, '.' and '..' segments: "
		       "%.200s",
		       ORIGIN_NAME_MAX, name);
}

void origin_read_submit(struct origin_client *c, struct origin_read *r)
{
	memset(&r->err, 0, sizeof(r->err));
	*r->got_etag = 0;
	r->impl = NULL;
	if (!r->deadline_ns)
		r->deadline_ns = origin_deadline(c);
	if (!r->len)
		origin_read_finish(c, r, 0);
	else if (bad_name(r->origin, r->name, &r->err))
		origin_read_finish(c, r, -EINVAL);
	else
		r->origin->ops->read(c, r);
}

void origin_read_cancel(struct origin_client *c, struct origin_read *r)
{
	if (!origin_read_cancel_finished(c, r))
		r->origin->ops->cancel(c, r);
}

void origin_read_move(struct origin_client *c, struct origin_read *r, struct drr_flow *flow)
{
	r->flow = flow;
	for (struct origin_read *i = c->later; i; i = i->impl)
		if (i == r)
			return;
	if (r->origin->ops->move)
		r->origin->ops->move(c, r);
}

struct pread {
	struct origin_read read;
	bool done;
	int rc;
};

static void pread_done(struct origin_read *r, int rc)
{
	struct pread *p = (struct pread *)r;

	p->rc = rc;
	p->done = true;
}

int origin_pread(struct origin_client *c, struct origin *o, const char *name, const char *etag,
		 uint64_t off, uint32_t len, void *dst, struct err *err)
{
	struct pread p = {.read = {.origin = o,
				   .name = name,
				   .etag = etag,
				   .off = off,
				   .len = len,
				   .dst = dst,
				   .done = pread_done}};

	origin_read_submit(c, &p.read);
	while (!p.done)
		loop_run_once(c->loop, -1);
	return p.rc ? err_set(err, p.rc, "%s", p.read.err.text) : 0;
}

/* --- the rest goes by the table ------------------------------------------------------------- */

int origin_stat(struct origin_client *c, struct origin *o, const char *name,
		struct origin_stat *out, struct err *err)
{
	int rc = bad_name(o, name, err);

	return rc ? rc : o->ops->stat(c, o, name, out, err);
}

int origin_get(struct origin_client *c, struct origin *o, const char *name, size_t limit,
	       const char *if_none_match, char **buf, size_t *len, char etag[ORIGIN_ETAG_MAX],
	       struct err *err)
{
	int rc = bad_name(o, name, err);

	return rc ? rc : o->ops->get(c, o, name, limit, if_none_match, buf, len, etag, err);
}

static int may_write(const struct origin *o, const char *name, struct err *err)
{
	char shown[320];

	if (o->ops->writable)
		return bad_name(o, name, err);
	return err_set(err, -EROFS,
		       "%s: an http origin can't be written; publish to az:// or file://",
		       origin_url(o, name, shown, sizeof(shown)));
}

static int bad_id(const char *id, struct err *err)
{
	size_t n = strlen(id);

	if (n && n <= 64 && strspn(id, "0123456789abcdef") == n)
		return 0;
	return err_set(err, -EINVAL, "a staged block's id is 1 to 64 digits of [0-9a-f]: %.80s",
		       id);
}

int origin_put(struct origin_client *c, struct origin *o, const char *name, const void *buf,
	       size_t len, bool exclusive, struct err *err)
{
	int rc = may_write(o, name, err);

	return rc ? rc : o->ops->put(c, o, name, buf, len, exclusive, err);
}

int origin_stage(struct origin_client *c, struct origin *o, const char *name, const char *id,
		 const void *buf, size_t len, struct err *err)
{
	int rc = may_write(o, name, err);

	if (!rc)
		rc = bad_id(id, err);
	return rc ? rc : o->ops->stage(c, o, name, id, buf, len, err);
}

int origin_commit(struct origin_client *c, struct origin *o, const char *name,
		  const char *const *ids, size_t n, char etag[ORIGIN_ETAG_MAX], struct err *err)
{
	int rc = may_write(o, name, err);

	for (size_t i = 0; i < n && !rc; i++)
		rc = bad_id(ids[i], err);
	return rc ? rc : o->ops->commit(c, o, name, ids, n, etag, err);
}

int origin_staged(struct origin_client *c, struct origin *o, const char *name,
		  void (*fn)(void *arg, const char *id, uint64_t len), void *arg, struct err *err)
{
	int rc = may_write(o, name, err);

	return rc ? rc : o->ops->staged(c, o, name, fn, arg, err);
}
