/* SPDX-License-Identifier: Apache-2.0 */
/* What Azure's refusals mean for the person who reads the message: the thing, the reason, the
 * remedy. */
#ifndef ORIGIN_AZURE_ERROR_H
#define ORIGIN_AZURE_ERROR_H

#include <stdbool.h>

#include "origin/remote.h"

/* For http_request.done's @rc of an azure origin; returns the final error. */
int azure_explain(const struct remote_call *call, int rc, struct err *err);

/* A 404 that is about the container, not the blob. */
bool azure_error_is_container(const struct http_answer *a);

/* An answer that says the token is no good (any more), not that its owner lacks rights. */
bool azure_error_is_token(const struct http_answer *a);

/* Seconds since 1970 of a SAS's time ("2024-01-31", "2024-01-31T10:00Z", "..:00:00Z"); 0 if it is
 * none of these. */
time_t azure_sas_time(const char *s);

#endif
