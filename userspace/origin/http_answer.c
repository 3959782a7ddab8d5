/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/http_answer.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define RETRY_AFTER_MAX_S (24 * 3600)

void http_answer_reset(struct http_answer *a)
{
	a->status = 0;
	a->etag[0] = a->error_code[0] = a->body[0] = 0;
	a->length = a->from = a->to = a->total = -1;
	a->retry_after_ms = 0;
	a->date = a->retry_at = 0;
	a->body_len = 0;
}

/* All of [s, s + n) as a number, or -1. */
static int64_t number(const char *s, size_t n)
{
	int64_t v = 0;

	if (!n || n > 18)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (!isdigit((unsigned char)s[i]))
			return -1;
		v = v * 10 + (s[i] - '0');
	}
	return v;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT"; 0 if it is not that. */
static time_t http_date(const char *s)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	struct tm tm = {0};
	char month[4];
	const char *m;

	if (sscanf(s, "%*3s, %2d %3s %4d %2d:%2d:%2d", &tm.tm_mday, month, &tm.tm_year, &tm.tm_hour,
		   &tm.tm_min, &tm.tm_sec) != 6)
		return 0;
	m = strlen(month) == 3 ? strstr(months, month) : NULL;
	if (!m || (m - months) % 3)
		return 0;
	tm.tm_mon = (int)(m - months) / 3;
	tm.tm_year -= 1900;
	return timegm(&tm);
}

static uint32_t retry_ms(int64_t s)
{
	return (uint32_t)(s < RETRY_AFTER_MAX_S ? s : RETRY_AFTER_MAX_S) * 1000;
}

/* A date means a time of the server's clock; ours may be hours away. Its Date may come after. */
static void retry_at_date(struct http_answer *a, time_t now)
{
	if (a->date)
		now = a->date;
	if (a->retry_at)
		a->retry_after_ms = a->retry_at > now ? retry_ms(a->retry_at - now) : 0;
}

static void retry_after(struct http_answer *a, const char *value, size_t n, time_t now)
{
	int64_t s = number(value, n);

	a->retry_at = s < 0 ? http_date(value) : 0;
	a->retry_after_ms = s < 0 ? 0 : retry_ms(s);
	retry_at_date(a, now);
}

/* "bytes 0-99/1000", "bytes 0-99/" with a star, "bytes * /1000" without the blank. */
static void content_range(struct http_answer *a, const char *v)
{
	const char *slash = strchr(v, '/'), *dash = strchr(v, '-');

	a->from = a->to = a->total = -1;
	if (strncasecmp(v, "bytes ", 6) != 0 || !slash)
		return;
	v += 6;
	if (dash && dash < slash) {
		a->from = number(v, (size_t)(dash - v));
		a->to = number(dash + 1, (size_t)(slash - dash) - 1);
	}
	a->total = number(slash + 1, strlen(slash + 1));
}

static void keep(char *out, size_t cap, const char *value)
{
	if (strlen(value) < cap)
		strcpy(out, value);
}

static void status_line(struct http_answer *a, const char *line)
{
	const char *sp = strchr(line, ' ');

	http_answer_reset(a);
	a->status = sp ? atoi(sp + 1) : 0;
}

void http_answer_header(struct http_answer *a, const char *line, size_t len, time_t now)
{
	char buf[512], *value;
	size_t n;

	while (len && isspace((unsigned char)line[len - 1]))
		len--;
	if (len >= sizeof(buf))
		return; /* none that matters is so long */
	memcpy(buf, line, len);
	buf[len] = 0;
	if (strncasecmp(buf, "HTTP/", 5) == 0) {
		status_line(a, buf);
		return;
	}
	value = strchr(buf, ':');
	if (!value)
		return;
	*value++ = 0;
	value += strspn(value, " \t");
	n = strlen(value);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)value[i] < 0x20)
			return; /* it might end up in a request or a log */
	if (strcasecmp(buf, "ETag") == 0)
		keep(a->etag, sizeof(a->etag), value);
	else if (strcasecmp(buf, "Content-Length") == 0)
		a->length = number(value, n);
	else if (strcasecmp(buf, "Content-Range") == 0)
		content_range(a, value);
	else if (strcasecmp(buf, "x-ms-error-code") == 0)
		keep(a->error_code, sizeof(a->error_code), value);
	else if (strcasecmp(buf, "Retry-After") == 0)
		retry_after(a, value, n, now);
	else if (strcasecmp(buf, "Date") == 0) {
		a->date = http_date(value);
		retry_at_date(a, now);
	}
}

static int check_whole(const struct http_answer *a, uint64_t off, uint32_t len, uint32_t got,
		       uint32_t *skip, char *why, size_t cap)
{
	if (off || (a->length >= 0 && a->length > (int64_t)len)) {
		snprintf(why, cap,
			 "the server ignores ranges (answered 200 to a part of the blob)");
		return -EIO;
	}
	if (a->length >= 0 && a->length < (int64_t)len) {
		snprintf(why, cap, "the blob has only %lld bytes", (long long)a->length);
		return -ERANGE;
	}
	*skip = got;
	return 0;
}

int http_answer_check_range(const struct http_answer *a, uint64_t off, uint32_t len, uint32_t got,
			    uint32_t *skip, char *why, size_t cap)
{
	int64_t from = (int64_t)off + got, to = (int64_t)off + len - 1;

	*skip = 0;
	if (a->status == 200)
		return check_whole(a, off, len, got, skip, why, cap);
	if (a->status != 206) {
		snprintf(why, cap, "unexpected answer %d to a range request", a->status);
		return -EIO;
	}
	if (a->total >= 0 && a->total <= to && (a->from == from || a->total <= from)) {
		snprintf(why, cap, "the blob has only %lld bytes", (long long)a->total);
		return -ERANGE; /* Azurite says "bytes 10-9/10" where Azure says 416 */
	}
	if (a->from != from || a->to < from || a->to > to) {
		snprintf(why, cap, "wrong Content-Range: asked for %lld-%lld, got %lld-%lld",
			 (long long)from, (long long)to, (long long)a->from, (long long)a->to);
		return -EIO;
	}
	if (a->length >= 0 && a->length != a->to - from + 1) {
		snprintf(why, cap, "Content-Length %lld does not fit Content-Range %lld-%lld",
			 (long long)a->length, (long long)a->from, (long long)a->to);
		return -EIO;
	}
	return 0; /* a shorter piece than asked is gone on from where it ends */
}

bool http_status_is_transient(int status)
{
	switch (status) {
	case 408:
	case 429:
	case 500:
	case 502:
	case 503:
	case 504:
		return true;
	}
	return false;
}

int http_status_errno(int status)
{
	if (status < 300)
		return 0;
	switch (status) {
	case 304:
		return -EALREADY;
	case 401:
	case 403:
	case 407:
		return -EACCES;
	case 404:
	case 410:
		return -ENOENT;
	case 409:
		return -EEXIST;
	case 412:
		return -ESTALE;
	case 416:
		return -ERANGE;
	}
	return -EIO;
}

bool http_etag_is_strong(const char *etag)
{
	return etag && *etag && strncmp(etag, "W/", 2) != 0;
}

bool http_etag_equal(const char *a, const char *b)
{
	a += strncmp(a, "W/", 2) == 0 ? 2 : 0;
	b += strncmp(b, "W/", 2) == 0 ? 2 : 0;
	return strcmp(a, b) == 0;
}

uint32_t http_backoff_ms(uint32_t base, uint32_t max, uint32_t n, uint32_t random)
{
	uint64_t d = n < 20 ? (uint64_t)base << n : max;

	if (d > max)
		d = max;
	return (uint32_t)(d / 2 + d * (random % 1024) / 1024);
}
