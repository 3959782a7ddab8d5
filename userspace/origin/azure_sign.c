/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/azure_sign.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "origin/url.h"

/* First level: place in this list + 1; 0 = ignored ('-' and "'"). */
static int weight(char c)
{
	static const char order[] = "!#$%&*.^_`|~+0123456789abcdefghijklmnopqrstuvwxyz";
	const char *at = c ? strchr(order, tolower((unsigned char)c)) : NULL;

	return at ? (int)(at - order) + 1 : 0;
}

static const char *next_counted(const char *s)
{
	while (*s && !weight(*s))
		s++;
	return s;
}

int azure_header_cmp(const char *a, const char *b)
{
	const char *p = a, *q = b;

	for (;; p++, q++) {
		p = next_counted(p);
		q = next_counted(q);
		if (weight(*p) != weight(*q))
			return weight(*p) - weight(*q);
		if (!*p)
			break;
	}
	while (*a && *a == *b) /* equal but for '-': the name whose '-' comes later goes first */
		a++, b++;
	if (*a == *b)
		return 0;
	if (!weight(*a) && !weight(*b))
		return *a == '-' || !*b ? 1 : -1; /* "'" before '-'; the end before both */
	return weight(*a) ? -1 : 1;
}

struct param {
	char *key, *value; /* key in lower case, value decoded */
};

static int param_cmp(const void *a, const void *b)
{
	return strcmp(((const struct param *)a)->key, ((const struct param *)b)->key);
}

static int header_cmp(const void *a, const void *b)
{
	return azure_header_cmp(((const struct azure_header *)a)->name,
				((const struct azure_header *)b)->name);
}

static void write_headers(FILE *f, const struct azure_string *s)
{
	struct azure_header sorted[AZURE_HEADERS_MAX];

	memcpy(sorted, s->headers, sizeof(sorted));
	qsort(sorted, s->nheaders, sizeof(*sorted), header_cmp);
	for (size_t i = 0; i < s->nheaders; i++)
		fprintf(f, "%s:%s\n", sorted[i].name, sorted[i].value);
}

/* Cut @query (changed) into decoded parameters. Returns how many, or -1 when there are too many or
 * one does not decode. */
static int cut_params(char *query, struct param *params)
{
	char *save = NULL;
	int n = 0;

	for (char *p = strtok_r(query, "&", &save); p; p = strtok_r(NULL, "&", &save)) {
		char *eq = strchr(p, '=');

		if (n == AZURE_PARAMS_MAX)
			return -1;
		if (eq)
			*eq = 0;
		params[n].key = p;
		params[n].value = eq ? eq + 1 : p + strlen(p);
		if (url_decode(params[n].value, strlen(params[n].value), params[n].value,
			       strlen(params[n].value) + 1))
			return -1;
		for (char *c = p; *c; c++)
			*c = (char)tolower((unsigned char)*c);
		n++;
	}
	qsort(params, (size_t)n, sizeof(*params), param_cmp);
	return n;
}

static int write_resource(FILE *f, const struct azure_string *s)
{
	struct param params[AZURE_PARAMS_MAX] = {{NULL, NULL}};
	char *query = strdup(s->query);
	int n = query ? cut_params(query, params) : -1;

	fprintf(f, "/%s%s", s->account, s->path);
	for (int i = 0; i < n; i++)
		fprintf(f, "\n%s:%s", params[i].key, params[i].value);
	free(query);
	return n < 0 ? -1 : 0;
}

char *azure_string_to_sign(const struct azure_string *s)
{
	char *text = NULL, length[24] = "";
	size_t len;
	int bad;
	FILE *f;

	if (s->nheaders > AZURE_HEADERS_MAX)
		return NULL;
	f = open_memstream(&text, &len);
	if (!f)
		return NULL;
	if (s->content_length)
		snprintf(length, sizeof(length), "%llu", (unsigned long long)s->content_length);
	/* method, encoding, language, length, MD5, type, date, since, match, none-match,
	 * unmodified, range: the date is x-ms-date and the range x-ms-range, both below */
	fprintf(f, "%s\n\n\n%s\n\n%s\n\n\n%s\n%s\n\n\n", s->method, length,
		s->content_type ? s->content_type : "", s->if_match ? s->if_match : "",
		s->if_none_match ? s->if_none_match : "");
	write_headers(f, s);
	bad = write_resource(f, s);
	bad |= ferror(f);
	bad |= fclose(f);
	if (bad) {
		free(text);
		return NULL;
	}
	return text;
}

int azure_sign(const struct azure_string *s, const void *key, size_t key_len,
	       char out[AZURE_SIGNATURE_LEN])
{
	unsigned char mac[EVP_MAX_MD_SIZE];
	char *text = azure_string_to_sign(s);
	unsigned int n;

	if (!text)
		return -ENOMEM;
	if (!HMAC(EVP_sha256(), key, (int)key_len, (unsigned char *)text, strlen(text), mac, &n)) {
		free(text);
		return -ENOMEM;
	}
	base64_encode(mac, n, out);
	free(text);
	return 0;
}

void azure_date(time_t t, char out[30])
{
	static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	struct tm tm;

	gmtime_r(&t, &tm);
	snprintf(out, 30, "%s, %02u %s %04u %02u:%02u:%02u GMT", days[tm.tm_wday],
		 (unsigned)tm.tm_mday % 100, months[tm.tm_mon],
		 (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)tm.tm_hour % 100,
		 (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}

void base64_encode(const void *src, size_t len, char *out)
{
	EVP_EncodeBlock((unsigned char *)out, src, (int)len);
}

int base64_decode(const char *s, void *out, size_t cap, size_t *len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t n = strlen(s), pad = 0;
	unsigned char *buf;
	int got;

	while (pad < 2 && pad < n && s[n - 1 - pad] == '=')
		pad++;
	if (!n || n % 4 || n > 65536 || strspn(s, digits) != n - pad)
		return -EINVAL;
	buf = malloc(n);
	if (!buf)
		return -EINVAL;
	got = EVP_DecodeBlock(buf, (const unsigned char *)s, (int)n);
	got -= (int)pad;
	if (got > 0 && (size_t)got <= cap) {
		memcpy(out, buf, (size_t)got);
		*len = (size_t)got;
	}
	OPENSSL_cleanse(buf, n);
	free(buf);
	return got > 0 && (size_t)got <= cap ? 0 : -EINVAL;
}
