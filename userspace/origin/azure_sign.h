/* SPDX-License-Identifier: Apache-2.0 */
/* SharedKey: the string that Azure signs for a request, and its HMAC-SHA256.  Pure.
 *
 * The order of header names.  Azure's documentation says "lexicographically", but the service
 * compares them as .NET does in the en-US culture: '-' (and "'") counts for nothing until all else
 * is equal, and punctuation, '_' among it, comes before digits, which come before letters.  The
 * rule is taken from the sort-key tables that Microsoft's own JavaScript client carries for this
 * reason (storage-common, SharedKeyComparator: "We need to imitate .Net culture-aware sorting,
 * which is used in storage service") and from azure-sdk-for-python issue 10277 (i_ before i0).  The
 * emulator uses its JavaScript engine's localeCompare(), which differs for names that are equal but
 * for '-'; for the names that Cairn sends all orders agree, which was checked against the emulator.
 */
#ifndef ORIGIN_AZURE_SIGN_H
#define ORIGIN_AZURE_SIGN_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define AZURE_SIGNATURE_LEN 45 /* base64 of 32 bytes, and NUL */
#define AZURE_HEADERS_MAX   12
#define AZURE_PARAMS_MAX    8 /* of a query that is signed */

struct azure_header {
	const char *name; /* lower case, "x-ms-..." */
	const char *value;
};

struct azure_string {
	const char *method;  /* "GET" */
	const char *account; /* without "-secondary" */
	const char *path;  /* as sent, encoded; with the account again where the emulator has it */
	const char *query; /* as sent, encoded, without '?'; never NULL */
	uint64_t content_length;
	const char *content_type; /* these three: NULL = not sent */
	const char *if_match;
	const char *if_none_match;
	struct azure_header headers[AZURE_HEADERS_MAX];
	size_t nheaders;
};

/* <0, 0, >0 as Azure orders two lower-case header names. */
int azure_header_cmp(const char *a, const char *b);

/* Fresh memory, the caller frees; NULL when out of memory or over the limits above. */
char *azure_string_to_sign(const struct azure_string *s);

/* The signature for "Authorization: SharedKey ACCOUNT:SIGNATURE". 0 or -ENOMEM. */
int azure_sign(const struct azure_string *s, const void *key, size_t key_len,
	       char out[AZURE_SIGNATURE_LEN]);

/* "Sun, 06 Nov 1994 08:49:37 GMT" whatever the locale. @out holds 30 bytes. */
void azure_date(time_t t, char out[30]);

/* @out holds 4 * ((len + 2) / 3) + 1. */
void base64_encode(const void *src, size_t len, char *out);

/* 0 with *len set, or -EINVAL (not base64, empty, or over @cap). */
int base64_decode(const char *s, void *out, size_t cap, size_t *len);

#endif
