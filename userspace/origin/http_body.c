/* SPDX-License-Identifier: Apache-2.0 */
/* What comes back: which body may be taken, and where its bytes go. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "origin/http_impl.h"

#define ERROR_BYTES_MAX (64 << 10) /* of an error's body, before the connection is dropped */

static int fail_attempt(struct http_request *r, int rc)
{
	r->fatal = rc;
	return rc;
}

/* The blob must still be the one that was asked for, and the one that an earlier attempt began. */
static int check_etag(struct http_request *r)
{
	const char *etag = r->answer.etag;

	if (!*etag)
		return 0;
	if ((r->if_match && *r->if_match && !http_etag_equal(r->if_match, etag)) ||
	    (r->got && *r->first_etag && !http_etag_equal(r->first_etag, etag))) {
		snprintf(r->cause, sizeof(r->cause), "the blob's ETag is now %s", etag);
		return -ESTALE;
	}
	if (!r->got)
		strcpy(r->first_etag, etag);
	return 0;
}

int http_body_begin(struct http_request *r)
{
	const struct http_answer *a = &r->answer;
	int rc;

	r->begun = true;
	r->sink = SINK_ERROR;
	if (a->status >= 300 || a->status < 200 || !http_wants_body(r))
		return 0;
	rc = check_etag(r);
	if (rc)
		return fail_attempt(r, rc);
	if (r->range_header) {
		r->sink = SINK_RANGE;
		rc = http_answer_check_range(a, r->off, r->len, r->got, &r->skip, r->cause,
					     sizeof(r->cause));
		return rc ? fail_attempt(r, rc) : 0;
	}
	r->sink = SINK_WHOLE;
	if (a->status != 200) {
		snprintf(r->cause, sizeof(r->cause), "unexpected answer %d", a->status);
		return fail_attempt(r, -EIO);
	}
	if (a->length >= 0 && (uint64_t)a->length > r->limit) {
		snprintf(r->cause, sizeof(r->cause),
			 "it has %lld bytes, more than the %zu expected at most",
			 (long long)a->length, r->limit);
		return fail_attempt(r, -EFBIG);
	}
	return 0;
}

static int take_range(struct http_request *r, const char *p, size_t n)
{
	size_t skip = r->skip < n ? r->skip : n;

	r->skip -= (uint32_t)skip;
	p += skip;
	n -= skip;
	if (n > r->len - r->got) {
		snprintf(r->cause, sizeof(r->cause),
			 "the server sent more than the %u bytes asked for", r->len);
		return fail_attempt(r, -EIO);
	}
	if (!n)
		return 0;
	memcpy(r->dst + r->got, p, n);
	r->got += (uint32_t)n;
	if (r->progress)
		r->progress(r, r->got);
	return 0;
}

static int take_whole(struct http_request *r, const char *p, size_t n)
{
	if (n > r->limit - r->buf_len) {
		snprintf(r->cause, sizeof(r->cause),
			 "it has more than the %zu bytes expected at most", r->limit);
		return fail_attempt(r, -EFBIG);
	}
	if (r->buf_len + n + 1 > r->cap) {
		size_t want = r->answer.length >= 0 ? (size_t)r->answer.length + 1 : r->cap * 2;
		size_t cap = want > r->buf_len + n + 1 ? want : r->buf_len + n + 1;
		char *buf = realloc(r->buf, cap);

		if (!buf)
			return fail_attempt(r, -ENOMEM);
		r->buf = buf;
		r->cap = cap;
	}
	memcpy(r->buf + r->buf_len, p, n);
	r->buf_len += n;
	return 0;
}

static int take_error(struct http_request *r, const char *p, size_t n)
{
	struct http_answer *a = &r->answer;
	size_t room = sizeof(a->body) - 1 - a->body_len;
	size_t m = n < room ? n : room;

	memcpy(a->body + a->body_len, p, m);
	a->body_len += m;
	a->body[a->body_len] = 0;
	r->error_bytes += n;
	return r->error_bytes > ERROR_BYTES_MAX ? -EMSGSIZE : 0; /* the status says enough */
}

int http_body_take(struct http_request *r, const char *p, size_t n)
{
	int rc = r->begun ? 0 : http_body_begin(r);

	if (rc)
		return rc;
	if (r->sink == SINK_ERROR)
		return take_error(r, p, n);
	r->client->counters->get_bytes += n;
	return r->sink == SINK_RANGE ? take_range(r, p, n) : take_whole(r, p, n);
}

int http_body_seal(struct http_request *r)
{
	if (!http_wants_body(r) || r->range_header)
		return 0;
	if (!r->buf)
		r->buf = malloc(1);
	if (!r->buf)
		return -ENOMEM;
	r->buf[r->buf_len] = 0;
	return 0;
}
