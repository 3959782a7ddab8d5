/* SPDX-License-Identifier: Apache-2.0 */
/* Who this process is for Microsoft Entra ID, and the ways to get a token for Blob as that.
 *
 * The steps, in the order of Azure's own DefaultAzureCredential, of which these are the ones that
 * a daemon can have:
 *	environment	AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET
 *	workload	AZURE_FEDERATED_TOKEN_FILE (read anew for each token, since kubelet
 *			changes it), AZURE_TENANT_ID, AZURE_CLIENT_ID
 *	managed		the instance metadata service (IMDS)
 * A step that is not set up gives way to the next; one that is and fails ends the search, as it
 * does there: a pod whose workload identity is broken must not become the node.
 * AZURE_AUTHORITY_HOST and AZURE_POD_IDENTITY_AUTHORITY_HOST say where, if not at the public
 * cloud's and the machine's. Certificates are not supported.
 */
#ifndef ORIGIN_IDENTITY_H
#define ORIGIN_IDENTITY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "origin/http.h"
#include "origin/token_answer.h"

#define IDENTITY_RESOURCE "https://storage.azure.com/"

enum identity_kind {
	IDENTITY_AUTO, /* all steps */
	IDENTITY_ENVIRONMENT,
	IDENTITY_WORKLOAD,
	IDENTITY_MANAGED,
	IDENTITY_OFF,
};

/* "", "auto", "environment", "workload", "managed", "off", or as AZURE_TOKEN_CREDENTIALS has them:
 * "prod", "EnvironmentCredential", "WorkloadIdentityCredential", "ManagedIdentityCredential".
 * -EINVAL with a text. NULL = auto. */
int identity_parse(const char *s, enum identity_kind *out, struct err *err);

/* Settings, copied; NULL or "" = not set. */
struct identity {
	enum identity_kind kind;
	char *tenant;
	/* A client id; for a managed identity also "object:ID", or a resource's
	 * "/subscriptions/..." */
	char *client;
	char *secret;
	char *certificate; /* only to say that it is not supported */
	char *token_file;
	char *authority;
	char *imds;
	char *ca_file;
};

/* From the environment; @client_id (may be NULL or "") stands in for AZURE_CLIENT_ID. -ENOMEM. */
int identity_init(struct identity *id, enum identity_kind kind, const char *client_id,
		  const char *ca_file, struct err *err);
void identity_fini(struct identity *id);

/* How a token is asked for. */
struct identity_ask {
	enum http_method method;
	char *url;
	char *body; /* a form; holds a secret */
	bool imds;
};

/* One for each step, in its own file. -ENOENT with what is not set when the step is not set up,
 * another errno when it is and can't be used. The caller frees url and body. */
int identity_ask_environment(const struct identity *id, struct identity_ask *ask, struct err *err);
int identity_ask_workload(const struct identity *id, struct identity_ask *ask, struct err *err);
int identity_ask_imds(const struct identity *id, struct identity_ask *ask, struct err *err);

/* What the two that speak to Entra ID share: where it is, and a form of names and values. */
int identity_authority_url(const struct identity *id, char **out, struct err *err);
char *identity_form(const char *const pairs[][2], size_t n);
bool identity_is_client_id(const char *s);

/* Bounds; all 0 = those given here. */
struct identity_limits {
	uint32_t imds_connect_ms; /* 1000: on no Azure machine nobody answers there */
	uint32_t stall_ms;	  /* 10000 */
	uint32_t patience_ms;	  /* 30000: no attempt begins after it */
	uint32_t gone_ms;	  /* 75000: the same for IMDS's 410, which lasts up to 70 s */
	uint32_t backoff_ms;	  /* 800, doubled up to 20 s */
};

/* Get a token; blocks its thread, within the limits, or until *@stop: -ECANCELED. *@step is 0 or
 * the kind that was right before; set when one is. Otherwise @err tells each step's failure.
 * -EACCES: what was asked refused, or nothing is set up; -EIO, -ETIMEDOUT: no answer. */
int identity_fetch(const struct identity *id, const struct identity_limits *limits,
		   const _Atomic bool *stop, enum identity_kind *step, struct token_answer *out,
		   struct err *err);

const char *identity_kind_name(enum identity_kind kind);

#endif
