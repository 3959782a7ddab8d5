/* SPDX-License-Identifier: Apache-2.0 */
/* The http origin: any server that answers range requests; read-only. A query in the URL is sent
 * with every blob of the folder, since it may be what lets us in. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "origin/remote.h"

#define MAX_REDIRECTS 5
#define PATH_KEEP     "/!$&'()*+,;=:@" /* what a path may hold unencoded */

static char *http_url(const struct origin *o, const char *name, const char *query)
{
	const struct url *u = &o->url;
	size_t n = url_encode(name, PATH_KEEP, NULL, 0);
	size_t folder = url_encode(u->folder, PATH_KEEP "%", NULL, 0);
	size_t cap = strlen(u->base) + folder + n + strlen(u->query) + 2;
	char *s = malloc(cap), *p = s;

	(void)query; /* only Azure has operations */
	if (!s)
		return NULL;
	p = stpcpy(p, u->base);
	p += url_encode(u->folder, PATH_KEEP "%", p, folder + 1);
	p += url_encode(name, PATH_KEEP, p, n + 1);
	if (*u->query)
		sprintf(p, "?%s", u->query);
	return s;
}

static const char *http_show(const struct origin *o, const char *name, char *buf, size_t len)
{
	char *s = http_url(o, name, "");

	if (s)
		origin_redact_url(s, buf, len);
	else
		snprintf(buf, len, "%s", name);
	free(s);
	return buf;
}

static int http_explain(const struct remote_call *call, int rc, struct err *err)
{
	const struct http_request *r = &call->http;
	char url[320];

	origin_url(call->origin, call->name, url, sizeof(url));
	switch (rc) {
	case -ENOENT:
		return err_set(err, rc, "%s: the server has no such file (%s)", url, r->cause);
	case -EACCES:
		return err_set(err, rc,
			       "%s: the server refuses access (%s): check user, password or token "
			       "in the URL",
			       url, r->cause);
	case -ESTALE:
		return err_set(err, rc,
			       "%s: the file changed since its manifest was written (%s): publish "
			       "it again",
			       url, r->cause);
	case -ERANGE:
		return err_set(err, rc, "%s: the file ends before byte %llu (%s)", url,
			       (unsigned long long)r->off + r->len, r->cause);
	case -EALREADY:
		return err_set(err, rc, "%s: not changed", url);
	case -EEXIST:
		return err_set(err, -EIO, "%s: %s", url, r->cause);
	case -EIO:
		if (r->untrusted)
			return err_set(
				err, rc,
				"%s: the server's certificate is not trusted (%s): set ca_file",
				url, r->cause);
	}
	return err_set(err, rc, "%s: %s%s", url, r->cause,
		       r->no_host ? ": check the host's name" : "");
}

/* For servers that refuse HEAD (a presigned GET): the answer for one byte tells the length. */
static int stat_by_range(struct origin_client *c, struct origin *o, const char *name,
			 struct origin_stat *out, struct err *err)
{
	struct remote_call call;
	struct err why = {0};
	int64_t length = -1;
	uint8_t byte;
	int rc = remote_call_init(&call, c, o, name, "", err);

	if (rc)
		return rc;
	call.http.method = HTTP_GET;
	call.http.range_header = "Range";
	call.http.len = 1;
	call.http.dst = &byte;
	rc = remote_call_run(&call, &why);
	if (call.http.answer.status == 206)
		length = call.http.answer.total;
	else if (call.http.answer.status == 200)
		length = call.http.answer.length;
	else if (call.http.answer.status == 416)
		length = 0;
	if (length >= 0) {
		out->length = (uint64_t)length;
		strcpy(out->etag, call.http.answer.etag);
		rc = 0;
	} else {
		rc = err_set(err, rc ? rc : -EIO, "%s",
			     rc ? why.text : "the server does not tell a file's length");
	}
	remote_call_fini(&call);
	return rc;
}

static int http_stat(struct origin_client *c, struct origin *o, const char *name,
		     struct origin_stat *out, struct err *err)
{
	struct err head = {0};
	int status, rc = remote_stat(c, o, name, out, &status, &head);

	if (!rc)
		return 0;
	if (status == 200 || status == 403 || status == 405 || status == 501)
		return stat_by_range(c, o, name, out, err);
	return err_set(err, rc, "%s", head.text);
}

const struct origin_ops http_origin_ops = {
	.name = "http",
	.read = remote_read,
	.cancel = remote_cancel,
	.move = remote_move,
	.show = http_show,
	.stat = http_stat,
	.get = remote_get,
	.remote_url = http_url,
	.remote_explain = http_explain,
	.range_header = "Range",
	.max_redirects = MAX_REDIRECTS,
};
