/* SPDX-License-Identifier: Apache-2.0 */
/* The azure origin: block blobs of one container, by SharedKey, SAS or an identity's token.
 *
 * Names on the wire: Get Blob with x-ms-range, Get Blob Properties (HEAD), Put Blob, Put Block, Put
 * Block List, Get Block List.  A staged block's id goes as the base64 of its hex digits.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "origin/azure_error.h"
#include "origin/bearer.h"
#include "origin/remote.h"

#define BLOCK_ID_MAX	 92	     /* base64 of 64 bytes, and NUL */
#define BLOCK_LIST_LIMIT (32U << 20) /* 50,000 blocks take about 7 MiB */
#define WRITE_STALL	 6 /* times the stall time: a commit of 50,000 blocks thinks long */

/* BASE/CONTAINER/NAME?QUERY&SAS */
static char *make_url(const struct origin *o, const char *name, const char *query, const char *sas)
{
	const struct url *u = &o->url;
	size_t folder = url_encode(u->folder, "/", NULL, 0), n = url_encode(name, "/", NULL, 0);
	size_t cap = strlen(u->base) + strlen(u->container) + folder + n + strlen(query) +
		     strlen(sas) + 5;
	char *s = malloc(cap), *p = s;

	if (!s)
		return NULL;
	p += sprintf(p, "%s/%s/", u->base, u->container);
	p += url_encode(u->folder, "/", p, folder + 1);
	p += url_encode(name, "/", p, n + 1);
	if (*query || *sas)
		sprintf(p, "?%s%s%s", query, *query && *sas ? "&" : "", sas);
	return s;
}

static char *azure_url(const struct origin *o, const char *name, const char *query)
{
	return make_url(o, name, query, o->cred.key_len ? "" : o->cred.sas);
}

static const char *azure_show(const struct origin *o, const char *name, char *buf, size_t len)
{
	char *s = make_url(o, name, "", "");

	snprintf(buf, len, "%s", s ? s : name);
	free(s);
	return buf;
}

/* "Authorization: SharedKey ..". The path is what stands between host and query in the URL. */
static int authorize(const struct remote_call *call, struct azure_string *s)
{
	const struct origin *o = call->origin;
	const char *host = strstr(call->url, "://"), *slash = host ? strchr(host + 3, '/') : NULL;
	char signature[AZURE_SIGNATURE_LEN];
	char *path = slash ? strndup(slash, strcspn(slash, "?")) : NULL;
	int rc;

	if (!path)
		return -ENOMEM;
	s->account = o->url.account;
	s->path = path;
	s->query = call->query;
	rc = azure_sign(s, o->cred.key, o->cred.key_len, signature);
	free(path);
	if (rc)
		return rc;
	return http_request_header((struct http_request *)&call->http,
				   "Authorization: SharedKey %s:%s", o->url.account, signature);
}

static int azure_prepare(struct http_request *r)
{
	static const char *const methods[] = {
		[HTTP_GET] = "GET", [HTTP_HEAD] = "HEAD", [HTTP_PUT] = "PUT"};
	struct remote_call *call = (struct remote_call *)r;
	struct azure_string s = {.method = methods[r->method],
				 .content_length = r->body_len,
				 .content_type = call->content_type};
	char date[30];
	int rc = 0;

	azure_date(time(NULL), date);
	s.if_match = *r->match ? r->match : NULL;
	s.if_none_match = r->if_none_match;
	s.headers[s.nheaders++] = (struct azure_header){"x-ms-date", date};
	s.headers[s.nheaders++] = (struct azure_header){"x-ms-version", call->origin->api_version};
	for (size_t i = 0; i < call->nextra; i++)
		s.headers[s.nheaders++] = call->extra[i];
	for (size_t i = 0; i < s.nheaders && !rc; i++)
		rc = http_request_header(r, "%s: %s", s.headers[i].name, s.headers[i].value);
	if (*r->range) /* sent by http.c, signed here */
		s.headers[s.nheaders++] = (struct azure_header){"x-ms-range", r->range};
	if (!rc && call->content_type)
		rc = http_request_header(r, "Content-Type: %s", call->content_type);
	if (!rc && call->origin->cred.key_len)
		rc = authorize(call, &s);
	if (!rc && call->origin->token)
		rc = bearer_authorize(call);
	return rc;
}

static int azure_stat(struct origin_client *c, struct origin *o, const char *name,
		      struct origin_stat *out, struct err *err)
{
	return remote_stat(c, o, name, out, NULL, err);
}

/* --- publishing ----------------------------------------------------------------------------- */

static void add_extra(struct remote_call *call, const char *name, const char *value)
{
	call->extra[call->nextra++] = (struct azure_header){name, value};
}

static int init_put(struct remote_call *call, struct origin_client *c, struct origin *o,
		    const char *name, const char *query, const void *body, size_t len,
		    struct err *err)
{
	int rc = remote_call_init(call, c, o, name, query, err);

	if (rc)
		return rc;
	call->http.method = HTTP_PUT;
	call->http.body = body;
	call->http.body_len = len;
	call->http.stall_timeout_ms = WRITE_STALL * c->stall_timeout_ms;
	return 0;
}

/* After an answer that was lost, "exists already" may mean our own bytes. */
static bool is_ours(struct origin_client *c, struct origin *o, const char *name, const void *buf,
		    size_t len)
{
	char *there;
	size_t there_len;
	bool same;

	if (remote_get(c, o, name, len, NULL, &there, &there_len, NULL, NULL))
		return false;
	same = there_len == len && memcmp(there, buf, len) == 0;
	free(there);
	return same;
}

static int azure_put(struct origin_client *c, struct origin *o, const char *name, const void *buf,
		     size_t len, bool exclusive, struct err *err)
{
	struct remote_call call;
	int rc = init_put(&call, c, o, name, "", buf, len, err);

	if (rc)
		return rc;
	add_extra(&call, "x-ms-blob-type", "BlockBlob");
	call.content_type = "application/octet-stream";
	call.http.if_none_match = exclusive ? "*" : NULL;
	rc = remote_call_run(&call, err);
	if (rc == -EEXIST && call.http.attempts > 1 && is_ours(c, o, name, buf, len))
		rc = 0;
	remote_call_fini(&call);
	return rc;
}

static void encode_id(const char *id, char out[BLOCK_ID_MAX])
{
	base64_encode(id, strlen(id), out);
}

static int azure_stage(struct origin_client *c, struct origin *o, const char *name, const char *id,
		       const void *buf, size_t len, struct err *err)
{
	char b64[BLOCK_ID_MAX], enc[3 * BLOCK_ID_MAX], query[4 * BLOCK_ID_MAX];
	struct remote_call call;
	int rc;

	encode_id(id, b64);
	url_encode(b64, "", enc, sizeof(enc));
	snprintf(query, sizeof(query), "comp=block&blockid=%s", enc);
	rc = init_put(&call, c, o, name, query, buf, len, err);
	if (rc)
		return rc;
	call.content_type = "application/octet-stream";
	rc = remote_call_run(&call, err);
	remote_call_fini(&call);
	return rc;
}

static char *block_list(const char *const *ids, size_t n, size_t *len)
{
	char b64[BLOCK_ID_MAX], *text = NULL;
	FILE *f = open_memstream(&text, len);
	int bad;

	if (!f)
		return NULL;
	fputs("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>", f);
	for (size_t i = 0; i < n; i++) {
		encode_id(ids[i], b64);
		fprintf(f, "<Latest>%s</Latest>", b64);
	}
	fputs("</BlockList>", f);
	bad = ferror(f);
	if (fclose(f) || bad) {
		free(text);
		return NULL;
	}
	return text;
}

static int azure_commit(struct origin_client *c, struct origin *o, const char *name,
			const char *const *ids, size_t n, char *etag, struct err *err)
{
	struct remote_call call;
	size_t len;
	char *xml = block_list(ids, n, &len);
	int rc;

	if (!xml)
		return err_set(err, -ENOMEM, "no memory for a list of %zu blocks", n);
	rc = init_put(&call, c, o, name, "comp=blocklist", xml, len, err);
	if (!rc) {
		add_extra(&call, "x-ms-blob-content-type", "application/octet-stream");
		call.content_type = "application/xml";
		rc = remote_call_run(&call, err);
		if (!rc)
			strcpy(etag, call.http.answer.etag);
		remote_call_fini(&call);
	}
	free(xml);
	return rc;
}

/* The text of the next <TAG> in [*p, end), *p moved behind it; false at the end. */
static bool next_element(const char **p, const char *end, const char *tag, char *out, size_t cap)
{
	char open[32];
	const char *s, *e;
	size_t n;

	snprintf(open, sizeof(open), "<%s>", tag);
	s = memmem(*p, (size_t)(end - *p), open, strlen(open));
	if (!s)
		return false;
	s += strlen(open);
	e = memchr(s, '<', (size_t)(end - s));
	n = e ? (size_t)(e - s) : 0;
	if (!e || n >= cap)
		return false;
	memcpy(out, s, n);
	out[n] = 0;
	*p = e;
	return true;
}

static void each_block(const char *xml, size_t len, void (*fn)(void *, const char *, uint64_t),
		       void *arg)
{
	const char *p = xml, *end = xml + len;
	char b64[BLOCK_ID_MAX], size[24], id[65];
	size_t n;

	while (next_element(&p, end, "Name", b64, sizeof(b64)) &&
	       next_element(&p, end, "Size", size, sizeof(size))) {
		if (base64_decode(b64, id, sizeof(id) - 1, &n))
			continue; /* another tool's */
		id[n] = 0;
		if (strspn(id, "0123456789abcdef") == n)
			fn(arg, id, strtoull(size, NULL, 10));
	}
}

static int azure_staged(struct origin_client *c, struct origin *o, const char *name,
			void (*fn)(void *arg, const char *id, uint64_t len), void *arg,
			struct err *err)
{
	struct remote_call call;
	struct err why = {0};
	int rc = remote_call_init(&call, c, o, name, "comp=blocklist&blocklisttype=uncommitted",
				  err);

	if (rc)
		return rc;
	call.http.method = HTTP_GET;
	call.http.limit = BLOCK_LIST_LIMIT;
	rc = remote_call_run(&call, &why);
	if (!rc) {
		each_block(call.http.buf, call.http.buf_len, fn, arg);
		free(call.http.buf);
	} else if (rc == -ENOENT && !azure_error_is_container(&call.http.answer)) {
		rc = 0; /* no such blob: nothing was staged */
	} else {
		err_set(err, rc, "%s", why.text);
	}
	remote_call_fini(&call);
	return rc;
}

const struct origin_ops azure_origin_ops = {
	.name = "azure",
	.writable = true,
	.read = remote_read,
	.cancel = remote_cancel,
	.move = remote_move,
	.show = azure_show,
	.stat = azure_stat,
	.get = remote_get,
	.put = azure_put,
	.stage = azure_stage,
	.commit = azure_commit,
	.staged = azure_staged,
	.remote_url = azure_url,
	.remote_prepare = azure_prepare,
	.remote_judge = bearer_judge,
	.remote_explain = azure_explain,
	.range_header = "x-ms-range",
};
