/* SPDX-License-Identifier: Apache-2.0 */
/* Which account, endpoint and secret a blob is reached with: the environment's variables and
 * connection strings, as Azure's own tools read them.  Pure but for getenv().
 *
 * Order: a SAS in the URL; the connection string if it is for the URL's account; the key; the SAS
 * token; an identity (identity.h).  Key and token count when AZURE_STORAGE_ACCOUNT names the URL's
 * account or is not set.  An identity that is asked for by name is used before all but the URL's
 * SAS.
 */
#ifndef ORIGIN_CREDENTIALS_H
#define ORIGIN_CREDENTIALS_H

#include "base/err.h"
#include "origin/identity.h"
#include "origin/origin.h"
#include "origin/url.h"

/* A connection string taken apart; "" = not in it. */
struct connection_string {
	char account[AZURE_ACCOUNT_MAX + 1]; /* AccountName, else the one that BlobEndpoint is of */
	char blob_endpoint[512];	     /* without a last '/' */
	char suffix[128];		     /* EndpointSuffix */
	char protocol[8];		     /* "https" unless DefaultEndpointsProtocol says http */
	char key[512];			     /* base64; a secret */
	char sas[ORIGIN_URL_MAX];	     /* without '?'; a secret */
};

/* -EINVAL with a text that never quotes the string. */
int connection_string_parse(const char *s, struct connection_string *out, struct err *err);

struct credentials {
	uint8_t key[256]; /* key_len 0: the SAS is used */
	size_t key_len;
	char sas[ORIGIN_URL_MAX]; /* without '?', ready to be sent */
	bool use_identity;	  /* then neither of them */
	enum identity_kind identity;
	char why[160]; /* with it: why no other credential fits, and "; "; or "" */
};

/* Parse @url with what @cfg knows, and find its credential. Sets u->base also for az://. http and
 * file URLs need none. -EINVAL (URL or connection string), -EACCES when no credential fits. */
int credentials_resolve(const char *url, const struct origin_config *cfg, struct url *u,
			struct credentials *cred, struct err *err);

#endif
