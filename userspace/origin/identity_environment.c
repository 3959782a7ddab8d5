/* SPDX-License-Identifier: Apache-2.0 */
/* An application with a client secret (RFC 6749, client credentials). */
#include <errno.h>

#include "origin/identity.h"

static int check(const struct identity *id, struct err *err)
{
	const char *missing = !id->tenant   ? "AZURE_TENANT_ID"
			      : !id->client ? "AZURE_CLIENT_ID"
			      : !id->secret ? "AZURE_CLIENT_SECRET"
					    : NULL;

	if (missing)
		return err_set(err, -ENOENT, "%s is not set%s", missing,
			       id->certificate && !id->secret ? " (certificates are not supported)"
							      : "");
	if (!identity_is_client_id(id->client))
		return err_set(err, -ENOENT, "the client id is not one of an application");
	return 0;
}

int identity_ask_environment(const struct identity *id, struct identity_ask *ask, struct err *err)
{
	int rc = check(id, err);

	if (!rc)
		rc = identity_authority_url(id, &ask->url, err);
	if (rc)
		return rc;
	const char *const form[][2] = {{"grant_type", "client_credentials"},
				       {"client_id", id->client},
				       {"client_secret", id->secret},
				       {"scope", IDENTITY_RESOURCE ".default"}};
	ask->method = HTTP_POST;
	ask->body = identity_form(form, sizeof(form) / sizeof(*form));
	return ask->body ? 0 : err_set(err, -ENOMEM, "no memory to ask for a token");
}
