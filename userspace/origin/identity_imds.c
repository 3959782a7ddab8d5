/* SPDX-License-Identifier: Apache-2.0 */
/* Managed identity: the instance metadata service at a link-local address of the machine. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "origin/identity.h"
#include "origin/url.h"

#define IMDS_HOST "http://169.254.169.254"
#define IMDS_PATH "/metadata/identity/oauth2/token?api-version=2018-02-01"

/* Which of the machine's identities. */
static const char *selector(const char *client, const char **value)
{
	*value = client;
	if (!client)
		return NULL;
	if (strncasecmp(client, "object:", 7) == 0) {
		*value = client + 7;
		return "object_id";
	}
	return *client == '/' ? "msi_res_id" : "client_id";
}

int identity_ask_imds(const struct identity *id, struct identity_ask *ask, struct err *err)
{
	const char *host = id->imds ? id->imds : IMDS_HOST, *value;
	const char *name = selector(id->client, &value);
	size_t n = strlen(host), cap;

	while (n && host[n - 1] == '/')
		n--;
	if (strncasecmp(host, "http://", 7) != 0 && strncasecmp(host, "https://", 8) != 0)
		return err_set(err, -EINVAL,
			       "AZURE_POD_IDENTITY_AUTHORITY_HOST is not http(s)://HOST");
	const char *const form[][2] = {{"resource", IDENTITY_RESOURCE}, {name, value}};
	char *query = identity_form(form, name ? 2 : 1);

	cap = n + sizeof(IMDS_PATH) + (query ? strlen(query) : 0) + 1;
	ask->url = query ? malloc(cap) : NULL;
	if (ask->url)
		snprintf(ask->url, cap, "%.*s" IMDS_PATH "&%s", (int)n, host, query);
	free(query);
	ask->method = HTTP_GET;
	ask->imds = true;
	return ask->url ? 0 : err_set(err, -ENOMEM, "no memory to ask for a token");
}
