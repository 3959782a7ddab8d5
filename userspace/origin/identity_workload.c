/* SPDX-License-Identifier: Apache-2.0 */
/* Workload identity: a token of the cluster's, in a file that kubelet renews, is exchanged for one
 * of Entra ID's (RFC 7523). */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "origin/identity.h"

#define ASSERTION_TYPE "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

static int check(const struct identity *id, struct err *err)
{
	const char *missing = !id->token_file ? "AZURE_FEDERATED_TOKEN_FILE"
			      : !id->tenant   ? "AZURE_TENANT_ID"
			      : !id->client   ? "AZURE_CLIENT_ID"
					      : NULL;

	if (missing)
		return err_set(err, -ENOENT, "%s is not set", missing);
	if (!identity_is_client_id(id->client))
		return err_set(err, -ENOENT, "the client id is not one of an application");
	return 0;
}

static int read_assertion(const char *path, char **out, struct err *err)
{
	size_t len, n;
	int rc = file_read_all(path, TOKEN_MAX, out, &len);

	if (rc == -EACCES)
		return err_set(err, -EACCES,
			       "the token file %.200s can't be read (%s): let user %u at it", path,
			       strerror(-rc), geteuid());
	if (rc)
		return err_set(err, -EACCES,
			       "the token file %.200s can't be read (%s): is the pod labelled "
			       "azure.workload.identity/use?",
			       path, strerror(-rc));
	n = strcspn(*out, " \t\r\n");
	if (!n || (*out)[n + strspn(*out + n, " \t\r\n")]) {
		OPENSSL_cleanse(*out, len);
		free(*out);
		return err_set(err, -EACCES, "the token file %.200s %s", path,
			       n ? "holds more than one token" : "is empty");
	}
	(*out)[n] = 0;
	return 0;
}

int identity_ask_workload(const struct identity *id, struct identity_ask *ask, struct err *err)
{
	char *assertion;
	int rc = check(id, err);

	if (!rc)
		rc = identity_authority_url(id, &ask->url, err);
	if (!rc)
		rc = read_assertion(id->token_file, &assertion, err);
	if (rc)
		return rc;
	const char *const form[][2] = {{"grant_type", "client_credentials"},
				       {"client_id", id->client},
				       {"client_assertion_type", ASSERTION_TYPE},
				       {"client_assertion", assertion},
				       {"scope", IDENTITY_RESOURCE ".default"}};
	ask->method = HTTP_POST;
	ask->body = identity_form(form, sizeof(form) / sizeof(*form));
	OPENSSL_cleanse(assertion, strlen(assertion));
	free(assertion);
	return ask->body ? 0 : err_set(err, -ENOMEM, "no memory to ask for a token");
}
