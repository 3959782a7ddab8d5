/* SPDX-License-Identifier: Apache-2.0 */
/* What the bench's origin understands of an HTTP request: the head, one byte range, entity tags. */
#ifndef TESTS_BENCH_REQUEST_H
#define TESTS_BENCH_REQUEST_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct request {
	const char *method;
	char *path;	   /* decoded, without the first slash */
	const char *query; /* "" if none */
	const char *range; /* NULL if none */
	const char *if_match;
	bool head;
	bool close; /* after this answer */
	bool bad;
};

static inline int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place. False if an escape is malformed or hides a NUL. */
static inline bool percent_decode(char *s)
{
	char *out = s;

	for (; *s; s++) {
		int hi, lo;

		if (*s != '%') {
			*out++ = *s;
			continue;
		}
		hi = hex_digit(s[1]);
		lo = hi < 0 ? -1 : hex_digit(s[2]);
		if (lo < 0 || (hi == 0 && lo == 0))
			return false;
		*out++ = (char)(hi << 4 | lo);
		s += 2;
	}
	*out = 0;
	return true;
}

static inline void parse_header(struct request *r, const char *name, const char *value)
{
	if (strcasecmp(name, "x-ms-range") == 0)
		r->range = value;
	else if (strcasecmp(name, "Range") == 0 && !r->range)
		r->range = value;
	else if (strcasecmp(name, "If-Match") == 0)
		r->if_match = value;
	else if (strcasecmp(name, "Connection") == 0 && strcasecmp(value, "close") == 0)
		r->close = true;
	else if (strcasecmp(name, "Transfer-Encoding") == 0 ||
		 (strcasecmp(name, "Content-Length") == 0 && strcmp(value, "0") != 0))
		r->bad = true; /* a body: nothing here takes one */
}

static inline void parse_request_line(struct request *r, char *line)
{
	char *save, *target, *version, *query;

	r->method = strtok_r(line, " ", &save);
	target = strtok_r(NULL, " ", &save);
	version = strtok_r(NULL, " ", &save);
	r->query = "";
	if (!version || strncmp(version, "HTTP/1.", 7) != 0 || target[0] != '/') {
		r->bad = true;
		return;
	}
	query = strchr(target, '?');
	if (query) {
		*query = 0;
		r->query = query + 1;
	}
	r->path = target + 1;
	r->head = strcmp(r->method, "HEAD") == 0;
	r->close = strcmp(version, "HTTP/1.0") == 0;
	r->bad = !percent_decode(r->path);
}

/* @text is one request's head, ended by a NUL in place of the empty line. */
static inline void parse_request(struct request *r, char *text)
{
	char *save, *line = strtok_r(text, "\r\n", &save);

	*r = (struct request){.bad = true};
	if (!line)
		return;
	parse_request_line(r, line);
	while (!r->bad && (line = strtok_r(NULL, "\r\n", &save))) {
		char *value = strchr(line, ':');

		if (!value) {
			r->bad = true;
			return;
		}
		*value++ = 0;
		parse_header(r, line, value + strspn(value, " \t"));
	}
}

/* Ranges and entity tags. */

enum range { RANGE_WHOLE, RANGE_PART, RANGE_OUTSIDE };

static inline bool parse_number(const char **s, uint64_t *out)
{
	char *end;

	if (**s < '0' || **s > '9')
		return false;
	errno = 0;
	*out = strtoull(*s, &end, 10);
	*s = end;
	return errno == 0;
}

/* A header that is malformed or names several ranges is ignored, as RFC 9110 allows. */
static inline enum range parse_range(const char *s, uint64_t size, uint64_t *off, uint64_t *len)
{
	uint64_t first = 0, last = UINT64_MAX, tail = 0;
	bool suffix;

	if (!s || strncmp(s, "bytes=", 6) != 0)
		return RANGE_WHOLE;
	s += 6;
	suffix = *s == '-';
	if (!suffix && !parse_number(&s, &first))
		return RANGE_WHOLE;
	if (*s++ != '-')
		return RANGE_WHOLE;
	if (suffix ? !parse_number(&s, &tail) : *s && !parse_number(&s, &last))
		return RANGE_WHOLE;
	if (*s || last < first)
		return RANGE_WHOLE;
	if (suffix)
		first = tail < size ? size - tail : 0;
	if (first >= size || (suffix && tail == 0))
		return RANGE_OUTSIDE;
	*off = first;
	*len = (last < size - 1 ? last : size - 1) - first + 1;
	return RANGE_PART;
}

static inline bool etag_matches(const char *list, const char *etag)
{
	const char *at;

	if (!list || strcmp(list, "*") == 0)
		return true;
	at = strstr(list, etag); /* the quotes are part of it; "W/" makes it another tag */
	return at && (at == list || at[-1] == ' ' || at[-1] == ',');
}

#endif
