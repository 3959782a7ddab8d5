/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/identity.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "origin/url.h"

#define AUTHORITY "https://login.microsoftonline.com"
#define GUID_LEN  36

static const struct {
	const char *name, *azure;
} kinds[] = {
	[IDENTITY_AUTO] = {"auto", "prod"},
	[IDENTITY_ENVIRONMENT] = {"environment", "EnvironmentCredential"},
	[IDENTITY_WORKLOAD] = {"workload", "WorkloadIdentityCredential"},
	[IDENTITY_MANAGED] = {"managed", "ManagedIdentityCredential"},
	[IDENTITY_OFF] = {"off", "off"},
};

const char *identity_kind_name(enum identity_kind kind)
{
	return kinds[kind].name;
}

int identity_parse(const char *s, enum identity_kind *out, struct err *err)
{
	*out = IDENTITY_AUTO;
	if (!s || !*s)
		return 0;
	for (int i = IDENTITY_AUTO; i <= IDENTITY_OFF; i++) {
		if (strcasecmp(s, kinds[i].name) == 0 || strcasecmp(s, kinds[i].azure) == 0) {
			*out = (enum identity_kind)i;
			return 0;
		}
	}
	return err_set(err, -EINVAL,
		       "AZURE_TOKEN_CREDENTIALS=%.60s names no identity that cairn knows: prod, "
		       "EnvironmentCredential, WorkloadIdentityCredential and "
		       "ManagedIdentityCredential are",
		       s);
}

static int take(char **field, const char *value)
{
	*field = value && *value ? strdup(value) : NULL;
	return value && *value && !*field ? -ENOMEM : 0;
}

int identity_init(struct identity *id, enum identity_kind kind, const char *client_id,
		  const char *ca_file, struct err *err)
{
	int rc = 0;

	memset(id, 0, sizeof(*id));
	id->kind = kind;
	rc |= take(&id->tenant, getenv("AZURE_TENANT_ID"));
	rc |= take(&id->client, client_id && *client_id ? client_id : getenv("AZURE_CLIENT_ID"));
	rc |= take(&id->secret, getenv("AZURE_CLIENT_SECRET"));
	rc |= take(&id->certificate, getenv("AZURE_CLIENT_CERTIFICATE_PATH"));
	rc |= take(&id->token_file, getenv("AZURE_FEDERATED_TOKEN_FILE"));
	rc |= take(&id->authority, getenv("AZURE_AUTHORITY_HOST"));
	rc |= take(&id->imds, getenv("AZURE_POD_IDENTITY_AUTHORITY_HOST"));
	rc |= take(&id->ca_file, ca_file);
	if (!rc)
		return 0;
	identity_fini(id);
	return err_set(err, -ENOMEM, "no memory for an identity");
}

void identity_fini(struct identity *id)
{
	char **fields[] = {&id->tenant,	    &id->client,    &id->secret, &id->certificate,
			   &id->token_file, &id->authority, &id->imds,	 &id->ca_file};

	if (id->secret)
		OPENSSL_cleanse(id->secret, strlen(id->secret));
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		free(*fields[i]);
		*fields[i] = NULL;
	}
}

bool identity_is_client_id(const char *s)
{
	return s && strlen(s) == GUID_LEN && strspn(s, "0123456789abcdefABCDEF-") == GUID_LEN;
}

/* https, or http to this machine: what goes there is a secret. */
static bool authority_is_safe(const char *s)
{
	return strncasecmp(s, "https://", 8) == 0 || strncmp(s, "http://127.0.0.1:", 17) == 0;
}

int identity_authority_url(const struct identity *id, char **out, struct err *err)
{
	const char *host = id->authority ? id->authority : AUTHORITY;
	size_t n = strlen(host);

	while (n && host[n - 1] == '/')
		n--;
	if (!authority_is_safe(host))
		return err_set(err, -EINVAL,
			       "AZURE_AUTHORITY_HOST is not https://..: secrets go nowhere else");
	if (strspn(id->tenant,
		   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") !=
	    strlen(id->tenant))
		return err_set(err, -EINVAL,
			       "AZURE_TENANT_ID is neither a tenant's id nor its domain");
	if (asprintf(out, "%.*s/%s/oauth2/v2.0/token", (int)n, host, id->tenant) < 0)
		return err_set(err, -ENOMEM, "no memory to ask for a token");
	return 0;
}

char *identity_form(const char *const pairs[][2], size_t n)
{
	size_t cap = 1, at = 0;
	char *form;

	for (size_t i = 0; i < n; i++)
		cap += strlen(pairs[i][0]) + url_encode(pairs[i][1], "", NULL, 0) + 2;
	form = malloc(cap);
	for (size_t i = 0; form && i < n; i++) {
		at += (size_t)sprintf(form + at, "%s%s=", i ? "&" : "", pairs[i][0]);
		at += url_encode(pairs[i][1], "", form + at, cap - at);
	}
	return form;
}
