/* SPDX-License-Identifier: Apache-2.0 */
/* The URLs an image may have, taken apart; percent-encoding; masking of secrets.  Pure.
 *
 * An Azure, HTTP or file URL becomes a folder and the name of one blob in it, because a manifest
 * names its blobs relative to itself.
 */
#ifndef ORIGIN_URL_H
#define ORIGIN_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "origin/origin.h"

#define AZURE_ACCOUNT_MAX   63 /* 24, and room for "-secondary" and the emulator's own names */
#define AZURE_CONTAINER_MAX 63
#define EMULATOR_ACCOUNT    "devstoreaccount1"

enum url_kind { URL_AZURE, URL_HTTP, URL_FILE };

struct url {
	enum url_kind kind;
	/* Azure only. @account signs: "-secondary" is cut off. */
	char account[AZURE_ACCOUNT_MAX + 1];
	char container[AZURE_CONTAINER_MAX + 1];
	/* Azure: where the account is, without the last '/'; "" for az://, which leaves it to the
	 * credentials. http: scheme, host and port. file: "". */
	char base[512];
	/* Azure: the folder inside the container, decoded, "" or ending in '/'. http: the path as
	 * it was written, from '/' to the last '/'. file: the directory's path, ending in '/'. */
	char folder[ORIGIN_NAME_MAX + 1];
	char name[ORIGIN_NAME_MAX + 1]; /* decoded */
	char query[ORIGIN_URL_MAX];	/* without '?', as it was written; may hold a secret */
	char userinfo[256];		/* http only, decoded "user:password"; a secret */
};

/* What the credentials know that decides whether an http(s) URL is Azure's. NULL = unknown. */
struct url_hints {
	const char *account;	   /* path style is believed for this one, too */
	const char *blob_endpoint; /* a URL below it is Azure's */
	const char *suffix;	   /* EndpointSuffix, as "core.windows.net" */
};

/* -EINVAL with a text that shows the accepted forms. @out is undefined on error. */
int url_parse(const char *s, const struct url_hints *hints, struct url *out, struct err *err);

/* The account that a blob endpoint belongs to: its first label, or the first segment of its path
 * where the host is not one of Azure's. -EINVAL if there is none. */
int url_endpoint_account(const char *endpoint, const char *suffix,
			 char account[AZURE_ACCOUNT_MAX + 1]);

/* True if @name may be asked of an origin: not empty, no empty, "." or ".." segment, no control
 * character, not absolute. */
bool url_name_is_valid(const char *name);

/* Percent-encode all but letters, digits, "-._~" and what @keep lists. Like snprintf: returns the
 * length needed, and always terminates when cap > 0. */
size_t url_encode(const char *s, const char *keep, char *buf, size_t cap);

/* Decode [s, s + n) into @out with a NUL. -EINVAL on a broken escape or %00, -ENAMETOOLONG. */
int url_decode(const char *s, size_t n, char *out, size_t cap);

/* The decoded value of @key in a query ("a=1&b=2"); false if it is not there or too long. */
bool url_query_value(const char *query, const char *key, char *out, size_t cap);

#endif
