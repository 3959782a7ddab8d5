/* SPDX-License-Identifier: Apache-2.0 */
/* A stand-in for IMDS and Entra ID's token endpoint: bad_server.h, whose blob is the answer. */
#ifndef TESTS_TOKEN_BED_H
#define TESTS_TOKEN_BED_H

#include "bad_server.h"
#include "check.h"
#include "origin/identity.h"

#define CLIENT "11111111-2222-3333-4444-555555555555"
#define SECRET "hush-hush~1"

/* Short, so that what hangs does not hang a test. */
static const struct identity_limits token_limits = {.imds_connect_ms = 200,
						    .stall_ms = 400,
						    .patience_ms = 600,
						    .gone_ms = 2500,
						    .backoff_ms = 10};

#define server_answers(s, json)                                                                    \
	do {                                                                                       \
		static const char json_[] = json;                                                  \
		(s)->blob = (const uint8_t *)json_;                                                \
		(s)->blob_len = sizeof(json_) - 1;                                                 \
	} while (0)

#define server_script(s, ...)                                                                      \
	do {                                                                                       \
		static const enum act acts_[] = {__VA_ARGS__};                                     \
		(s)->script = acts_;                                                               \
		(s)->nscript = sizeof(acts_) / sizeof(*acts_);                                     \
	} while (0)

static inline void clear_environment(void)
{
	static const char *const names[] = {"AZURE_TENANT_ID",
					    "AZURE_CLIENT_ID",
					    "AZURE_CLIENT_SECRET",
					    "AZURE_CLIENT_CERTIFICATE_PATH",
					    "AZURE_FEDERATED_TOKEN_FILE",
					    "AZURE_AUTHORITY_HOST",
					    "AZURE_TOKEN_CREDENTIALS",
					    "AZURE_POD_IDENTITY_AUTHORITY_HOST"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		unsetenv(names[i]);
}

/* Both IMDS and the authority are @s. */
static inline void set_hosts(const struct bad_server *s)
{
	char url[64];

	snprintf(url, sizeof(url), "http://127.0.0.1:%u/", s->port);
	setenv("AZURE_AUTHORITY_HOST", url, 1);
	setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", url, 1);
}

static inline void set_application(void)
{
	setenv("AZURE_TENANT_ID", "contoso.example", 1);
	setenv("AZURE_CLIENT_ID", CLIENT, 1);
	setenv("AZURE_CLIENT_SECRET", SECRET, 1);
}

static inline void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static inline void set_workload(const char *token_file)
{
	setenv("AZURE_TENANT_ID", "contoso.example", 1);
	setenv("AZURE_CLIENT_ID", CLIENT, 1);
	setenv("AZURE_FEDERATED_TOKEN_FILE", token_file, 1);
}

#endif
