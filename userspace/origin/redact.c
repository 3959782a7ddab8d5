/* SPDX-License-Identifier: Apache-2.0 */
/* Masking what a person may type where a URL belongs: URLs with a SAS or a password, tokens and
 * connection strings pasted whole.  Everything in a query is masked but what is known to be public.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "origin/origin.h"

#define MASK "***"

/* The fields of a SAS that say what it allows but not who may, and Azure's own parameters. */
static const char *const public_keys[] = {
	"sv",  "sr",   "ss",	  "srt",      "sp",	   "st",      "se",  "spr",
	"sip", "sdd",  "ses",	  "skoid",    "sktid",	   "skt",     "ske", "sks",
	"skv", "comp", "restype", "snapshot", "versionid", "timeout",
};

/* Masked also where no '?' stands before them. */
static const char *const secret_keys[] = {"sig", "AccountKey", "SharedAccessSignature", "password",
					  "token"};

static bool listed(const char *const *keys, size_t n, const char *key, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (strlen(keys[i]) == len && strncasecmp(keys[i], key, len) == 0)
			return true;
	return false;
}

struct text {
	char *buf;
	size_t len, n;
};

static void put(struct text *t, const char *s, size_t n)
{
	while (n-- && t->n + 1 < t->len)
		t->buf[t->n++] = *s++;
}

/* "user:password@" of an authority; returns what follows it. */
static const char *put_authority(struct text *t, const char *s)
{
	size_t n = strcspn(s, "/?#");
	const char *at = memrchr(s, '@', n);

	if (!at)
		return s;
	put(t, MASK "@", 4);
	return at + 1;
}

const char *origin_redact_url(const char *url, char *buf, size_t len)
{
	struct text t = {buf, len, 0};
	const char *p = strstr(url, "://"), *encoded = strcasestr(url, "sig%3d");
	bool in_query = false;

	if (!len)
		return buf;
	if (p) {
		put(&t, url, (size_t)(p + 3 - url));
		p = put_authority(&t, p + 3);
	} else {
		p = url;
	}
	while (*p && !(encoded && p >= encoded)) {
		size_t n = strcspn(p, "?&;"), key = strcspn(p, "=");
		bool secret;

		if (encoded && p + n > encoded)
			n = (size_t)(encoded - p);
		secret = key < n &&
			 (in_query ? !listed(public_keys,
					     sizeof(public_keys) / sizeof(*public_keys), p, key)
				   : listed(secret_keys, sizeof(secret_keys) / sizeof(*secret_keys),
					    p, key));
		if (in_query && key >= n && n) /* a bare word: nothing says that it is harmless */
			key = n, secret = true;
		put(&t, p, !secret ? n : key < n ? key + 1 : 0);
		if (secret)
			put(&t, MASK, 3);
		p += n;
		in_query |= *p == '?';
		if (strchr("?&;", *p) && *p)
			put(&t, p++, 1);
	}
	if (encoded && *p)
		put(&t, "sig%3D" MASK, 9);
	buf[t.n] = 0;
	return buf;
}
