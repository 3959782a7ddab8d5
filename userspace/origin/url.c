/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/url.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define FORMS                                                                                      \
	"use az://ACCOUNT/CONTAINER/NAME, "                                                        \
	"https://ACCOUNT.blob.core.windows.net/CONTAINER/NAME[?SAS], "                             \
	"http://127.0.0.1:PORT/" EMULATOR_ACCOUNT                                                  \
	"/CONTAINER/NAME, https://HOST/PATH or file:///PATH"

static const char *const cloud_suffixes[] = {
	"core.windows.net", "core.chinacloudapi.cn", "core.usgovcloudapi.net",
	"core.cloudapi.de", "storage.azure.net", /* accounts with DNS zone endpoints */
};

/* The pieces of scheme://[userinfo@]host/path?query, as they were written. */
struct pieces {
	const char *scheme, *user, *host, *path, *query;
	size_t scheme_len, user_len, host_len, path_len, query_len;
};

size_t url_encode(const char *s, const char *keep, char *buf, size_t cap)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t need = 0;

	for (; *s; s++) {
		unsigned char ch = (unsigned char)*s;
		bool plain = (ch < 0x80 && isalnum(ch)) || strchr("-._~", ch) || strchr(keep, ch);
		char enc[3] = {'%', hex[ch >> 4], hex[ch & 15]};
		size_t n = plain ? 1 : 3;

		if (need + n < cap)
			memcpy(buf + need, plain ? s : enc, n);
		else if (need < cap)
			buf[need] = 0;
		need += n;
	}
	if (cap)
		buf[need < cap ? need : cap - 1] = 0;
	return need;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int url_decode(const char *s, size_t n, char *out, size_t cap)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++) {
		int ch = (unsigned char)s[i];

		if (ch == '%') {
			int hi;

			if (n - i < 3)
				return -EINVAL;
			hi = hex_value(s[i + 1]);
			ch = hex_value(s[i + 2]);
			if (hi < 0 || ch < 0)
				return -EINVAL;
			ch |= hi << 4;
			i += 2;
		}
		if (!ch)
			return -EINVAL;
		if (k + 1 >= cap)
			return -ENAMETOOLONG;
		out[k++] = (char)ch;
	}
	out[k] = 0;
	return 0;
}

bool url_query_value(const char *query, const char *key, char *out, size_t cap)
{
	size_t key_len = strlen(key);

	for (const char *p = query; *p; p += *p == '&') {
		size_t n = strcspn(p, "&");

		if (n > key_len && p[key_len] == '=' && strncasecmp(p, key, key_len) == 0)
			return url_decode(p + key_len + 1, n - key_len - 1, out, cap) == 0;
		p += n;
	}
	return false;
}

bool url_name_is_valid(const char *name)
{
	for (const char *p = name;; p++) {
		size_t n = strcspn(p, "/");

		if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && memcmp(p, "..", 2) == 0))
			return false;
		for (size_t i = 0; i < n; i++)
			if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f)
				return false;
		p += n;
		if (!*p)
			return true;
	}
}

/* 0 or -EINVAL; the text of the error masks what @url may hide. */
__attribute__((format(printf, 3, 4))) static int refuse(struct err *err, const char *url,
							const char *fmt, ...)
{
	char shown[256], why[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	origin_redact_url(url, shown, sizeof(shown));
	return err_set(err, -EINVAL, "%s: %s; " FORMS, shown, why);
}

static int split(const char *s, struct pieces *p, struct err *err)
{
	const char *sep = strstr(s, "://"), *at;
	size_t n;

	if (!sep)
		return refuse(err, s,
			      s[0] == '/' ? "a local file is written file://PATH" : "is not a URL");
	if (strlen(s) >= ORIGIN_URL_MAX)
		return refuse(err, s, "is longer than %d bytes", ORIGIN_URL_MAX - 1);
	if (strchr(s, '#'))
		return refuse(err, s, "'#' in a name is written %%23");
	for (const char *c = s; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return refuse(err, s, "holds a control character");
	p->scheme = s;
	p->scheme_len = (size_t)(sep - s);
	p->host = sep + 3;
	n = strcspn(p->host, "/?");
	p->path = p->host + n;
	at = memrchr(p->host, '@', n);
	p->user = p->host;
	p->user_len = at ? (size_t)(at - p->host) : 0;
	if (at)
		p->host = at + 1;
	p->host_len = (size_t)(p->path - p->host);
	p->path_len = strcspn(p->path, "?");
	p->query = p->path + p->path_len;
	p->query += *p->query == '?';
	p->query_len = strlen(p->query);
	return 0;
}

static bool is_scheme(const struct pieces *p, const char *scheme)
{
	return p->scheme_len == strlen(scheme) &&
	       strncasecmp(p->scheme, scheme, p->scheme_len) == 0;
}

/* Cut "ACCOUNT.blob.SUFFIX" (or "ACCOUNT.zNN.blob.SUFFIX", "ACCOUNT.privatelink.blob..") of a host
 * without port; false if the host is none of Azure's. */
static bool host_account(const char *host, size_t len, const char *suffix, char *account,
			 size_t cap)
{
	const char *dot = memchr(host, '.', len);
	size_t label = dot ? (size_t)(dot - host) : 0;

	if (!label || label >= cap)
		return false;
	for (size_t i = 0; i <= sizeof(cloud_suffixes) / sizeof(*cloud_suffixes); i++) {
		char tail[160];
		size_t n;

		if (!i && (!suffix || !*suffix))
			continue;
		n = (size_t)snprintf(tail, sizeof(tail), ".blob.%s",
				     i ? cloud_suffixes[i - 1] : suffix);
		if (n < sizeof(tail) && len >= label + n &&
		    strncasecmp(host + len - n, tail, n) == 0) {
			memcpy(account, host, label);
			account[label] = 0;
			return true;
		}
	}
	return false;
}

static size_t without_port(const char *host, size_t len)
{
	const char *colon;

	if (len && host[0] == '[') {
		const char *end = memchr(host, ']', len);

		return end ? (size_t)(end - host) + 1 : len;
	}
	colon = memchr(host, ':', len);
	return colon ? (size_t)(colon - host) : len;
}

/* An address rather than a name: path style is the emulator's way then. */
static bool host_is_address(const char *host, size_t len)
{
	len = without_port(host, len);
	if (len && host[0] == '[')
		return true;
	if (len == 9 && strncasecmp(host, "localhost", 9) == 0)
		return true;
	return len && strspn(host, "0123456789.") >= len;
}

/* Signing uses the primary's name also where the replica is read. */
static void cut_secondary(char *account)
{
	static const char tail[] = "-secondary";
	size_t n = strlen(account), t = sizeof(tail) - 1;

	if (n > t && strcmp(account + n - t, tail) == 0)
		account[n - t] = 0;
}

static int copy(char *out, size_t cap, const char *s, size_t n)
{
	if (n >= cap)
		return -ENAMETOOLONG;
	memcpy(out, s, n);
	out[n] = 0;
	return 0;
}

/* /CONTAINER/FOLDER/NAME into @u. */
static int parse_blob_path(const char *s, const char *path, size_t len, struct url *u,
			   struct err *err)
{
	const char *slash, *end = path + len;
	char blob[ORIGIN_NAME_MAX + 1], *last;

	if (len)
		path++;
	slash = memchr(path, '/', (size_t)(end - path));
	if (!slash || slash + 1 == end)
		return refuse(err, s, "names no blob in a container");
	if (copy(u->container, sizeof(u->container), path, (size_t)(slash - path)) ||
	    !*u->container ||
	    strspn(u->container, "abcdefghijklmnopqrstuvwxyz0123456789-$") != strlen(u->container))
		return refuse(err, s,
			      "a container's name is 3 to 63 lower-case letters, digits and '-'");
	if (url_decode(slash + 1, (size_t)(end - slash) - 1, blob, sizeof(blob)))
		return refuse(err, s,
			      "the blob's name is over %d bytes, or has a '%%' that is not "
			      "written %%25",
			      ORIGIN_NAME_MAX);
	if (!url_name_is_valid(blob))
		return refuse(err, s,
			      "the blob's name is empty or has an empty, '.' or '..' segment");
	last = strrchr(blob, '/');
	last = last ? last + 1 : blob;
	strcpy(u->name, last);
	*last = 0;
	strcpy(u->folder, blob);
	return 0;
}

/* What follows '?' in an Azure URL must be a whole SAS. */
static int parse_sas(const char *s, const struct pieces *p, struct url *u, struct err *err)
{
	char sig[256];

	if (copy(u->query, sizeof(u->query), p->query, p->query_len))
		return refuse(err, s, "the SAS is too long");
	if (!p->query_len)
		return 0;
	if (!url_query_value(u->query, "sig", sig, sizeof(sig)))
		return refuse(
			err, s,
			"what follows '?' is not a whole SAS (no sig=): put the URL in quotes");
	if (strpbrk(u->query, " \"<>\\^`{|}"))
		return refuse(err, s, "the SAS holds a character that no SAS has: copy it again");
	return 0;
}

static int parse_az(const char *s, const struct pieces *p, struct url *u, struct err *err)
{
	if (p->user_len || !p->host_len ||
	    copy(u->account, sizeof(u->account), p->host, p->host_len) ||
	    strspn(u->account, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(u->account))
		return refuse(
			err, s,
			"az:// is followed by an account's name of lower-case letters and digits");
	u->kind = URL_AZURE;
	cut_secondary(u->account);
	return parse_blob_path(s, p->path, p->path_len, u, err);
}

/* True, with u->account set and *skip the bytes of the path that belong to the endpoint, if the URL
 * is Azure's. */
static bool is_azure(const struct pieces *p, const struct url_hints *h, struct url *u, size_t *skip)
{
	const char *seg = p->path + (p->path_len > 0), *end = p->path + p->path_len;
	size_t n, endpoint_len = h->blob_endpoint ? strlen(h->blob_endpoint) : 0;

	*skip = 0;
	if (host_account(p->host, without_port(p->host, p->host_len), h->suffix, u->account,
			 sizeof(u->account)))
		return true;
	while (endpoint_len && h->blob_endpoint[endpoint_len - 1] == '/')
		endpoint_len--;
	n = strcspn(seg, "/?");
	if (seg + n > end || n > AZURE_ACCOUNT_MAX)
		return false;
	memcpy(u->account, seg, n);
	u->account[n] = 0;
	*skip = n + 1;
	if (strcmp(u->account, EMULATOR_ACCOUNT) == 0 ||
	    strcmp(u->account, EMULATOR_ACCOUNT "-secondary") == 0)
		return true;
	if (h->account && *h->account && strcmp(h->account, u->account) == 0 &&
	    host_is_address(p->host, p->host_len))
		return true;
	if (!endpoint_len || strncasecmp(p->scheme, h->blob_endpoint, endpoint_len) != 0 ||
	    !strchr("/", p->scheme[endpoint_len]) ||
	    url_endpoint_account(h->blob_endpoint, h->suffix, u->account))
		return false;
	*skip = p->scheme + endpoint_len > p->path ? (size_t)(p->scheme + endpoint_len - p->path)
						   : 0;
	return true;
}

static int parse_http(const char *s, const struct pieces *p, struct url *u, struct err *err)
{
	const char *slash = memrchr(p->path, '/', p->path_len);
	size_t dir = slash ? (size_t)(slash - p->path) + 1 : 0;

	u->kind = URL_HTTP;
	if (!slash || dir == p->path_len)
		return refuse(err, s, "names no file");
	if (snprintf(u->base, sizeof(u->base), "%.*s://%.*s", (int)p->scheme_len, p->scheme,
		     (int)p->host_len, p->host) >= (int)sizeof(u->base) ||
	    url_decode(p->user, p->user_len, u->userinfo, sizeof(u->userinfo)) ||
	    copy(u->folder, sizeof(u->folder), p->path, dir) ||
	    copy(u->query, sizeof(u->query), p->query, p->query_len) ||
	    url_decode(slash + 1, p->path_len - dir, u->name, sizeof(u->name)))
		return refuse(err, s,
			      "a part of it is too long, or has a '%%' that is not written %%25");
	if (!url_name_is_valid(u->name))
		return refuse(err, s, "the file's name is '.', '..' or holds a control character");
	return 0;
}

static int parse_http_or_azure(const char *s, const struct pieces *p, const struct url_hints *h,
			       struct url *u, struct err *err)
{
	size_t skip;
	int rc;

	if (!p->host_len)
		return refuse(err, s, "names no host");
	if (!is_azure(p, h, u, &skip)) {
		*u->account = 0;
		return parse_http(s, p, u, err);
	}
	u->kind = URL_AZURE;
	cut_secondary(u->account);
	if (p->user_len)
		return refuse(err, s, "Azure takes no user and password");
	if (snprintf(u->base, sizeof(u->base), "%.*s://%.*s%.*s", (int)p->scheme_len, p->scheme,
		     (int)p->host_len, p->host, (int)skip, p->path) >= (int)sizeof(u->base))
		return refuse(err, s, "the host is too long");
	rc = parse_sas(s, p, u, err);
	return rc ? rc : parse_blob_path(s, p->path + skip, p->path_len - skip, u, err);
}

static int parse_file(const char *s, const struct pieces *p, struct url *u, struct err *err)
{
	char path[ORIGIN_NAME_MAX + 1], *last;

	u->kind = URL_FILE;
	if (p->host_len && !(p->host_len == 9 && strncasecmp(p->host, "localhost", 9) == 0))
		return refuse(err, s, "a file's path is absolute, after three slashes");
	if (p->query_len)
		return refuse(err, s, "'?' in a file's name is written %%3F");
	if (url_decode(p->path, p->path_len, path, sizeof(path)))
		return refuse(err, s,
			      "the path is over %d bytes, or has a '%%' that is not written %%25",
			      ORIGIN_NAME_MAX);
	last = strrchr(path, '/');
	if (!last || !url_name_is_valid(last + 1))
		return refuse(err, s, "names no file");
	strcpy(u->name, last + 1);
	last[1] = 0;
	strcpy(u->folder, path);
	return 0;
}

int url_parse(const char *s, const struct url_hints *hints, struct url *out, struct err *err)
{
	static const struct url_hints none;
	struct pieces p;
	int rc = split(s, &p, err);

	if (rc)
		return rc;
	memset(out, 0, sizeof(*out));
	if (is_scheme(&p, "file"))
		return parse_file(s, &p, out, err);
	if (is_scheme(&p, "http") || is_scheme(&p, "https"))
		return parse_http_or_azure(s, &p, hints ? hints : &none, out, err);
	if (!is_scheme(&p, "az"))
		return refuse(err, s, "the scheme is not known");
	rc = parse_sas(s, &p, out, err);
	return rc ? rc : parse_az(s, &p, out, err);
}

int url_endpoint_account(const char *endpoint, const char *suffix,
			 char account[AZURE_ACCOUNT_MAX + 1])
{
	const char *host = strstr(endpoint, "://"), *seg;
	size_t host_len, n;

	if (!host)
		return -EINVAL;
	host += 3;
	host_len = strcspn(host, "/?");
	if (!host_account(host, without_port(host, host_len), suffix, account,
			  AZURE_ACCOUNT_MAX + 1)) {
		seg = host + host_len;
		seg += *seg == '/';
		n = strcspn(seg, "/?");
		if (!n) { /* a custom domain: the first label is the best guess */
			seg = host;
			n = strcspn(seg, ".:/?");
		}
		if (!n || n > AZURE_ACCOUNT_MAX)
			return -EINVAL;
		memcpy(account, seg, n);
		account[n] = 0;
	}
	cut_secondary(account);
	return 0;
}
