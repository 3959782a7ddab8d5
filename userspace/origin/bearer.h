/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that carry an identity's token: parked while there is none, and tried once more with
 * another when Blob refuses the one they carried. On the client's thread. */
#ifndef ORIGIN_BEARER_H
#define ORIGIN_BEARER_H

#include "origin/remote.h"

/* For prepare(): "Authorization: Bearer ..". As http_request.prepare. */
int bearer_authorize(struct remote_call *call);

/* For judge(). */
int bearer_judge(struct http_request *r, int rc);

/* The request is done. */
void bearer_leave(struct remote_call *call);

/* No request is in flight any more. */
void bearer_client_free(struct origin_client *c);

/* What became of a request for want of a token; 0 when that is not why it failed. */
int bearer_explain(const struct remote_call *call, const char *url, int rc, struct err *err);

#endif
