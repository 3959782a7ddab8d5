/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of origins over HTTP, and the reads that azure and http share. */
#ifndef ORIGIN_REMOTE_H
#define ORIGIN_REMOTE_H

#include "origin/azure_sign.h"
#include "origin/http.h"
#include "origin/origin_impl.h"

#define REMOTE_EXTRA_MAX 4

TAILQ_HEAD(bearer_calls, remote_call);

/* One request for one blob. remote_call_init() zeroes it; then set http's fields and run it. */
struct remote_call {
	struct http_request http;
	struct origin_client *client;
	struct origin *origin;
	const char *name;
	char *url; /* may hold a SAS */

	const char *query; /* of the operation, without the SAS: what SharedKey signs */
	const char *content_type;
	struct azure_header extra[REMOTE_EXTRA_MAX]; /* x-ms-... of the operation */
	size_t nextra;

	/* bearer.c's */
	struct bearer_calls *parked; /* the list it waits in, or NULL */
	TAILQ_ENTRY(remote_call) parked_link;
	uint64_t carried, refused; /* generations of tokens: sent last; refused by Blob */
	struct err token_err;

	struct origin_read *read; /* the read it serves, or NULL: */
	bool done;		  /* then the outcome is here */
	int rc;
};

/* @query may be "". -ENOMEM with a text. */
int remote_call_init(struct remote_call *call, struct origin_client *c, struct origin *o,
		     const char *name, const char *query, struct err *err);
void remote_call_fini(struct remote_call *call);

/* Run the loop until it is answered. Returns HTTP's rc and explains it in @err. */
int remote_call_run(struct remote_call *call, struct err *err);

void remote_read(struct origin_client *c, struct origin_read *r);
void remote_cancel(struct origin_client *c, struct origin_read *r);
void remote_move(struct origin_client *c, struct origin_read *r);
int remote_get(struct origin_client *c, struct origin *o, const char *name, size_t limit,
	       const char *if_none_match, char **buf, size_t *len, char *etag, struct err *err);

/* HEAD; *status (may be NULL) is the last answer's, 0 = none. */
int remote_stat(struct origin_client *c, struct origin *o, const char *name,
		struct origin_stat *out, int *status, struct err *err);

#endif
