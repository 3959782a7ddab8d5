/* SPDX-License-Identifier: Apache-2.0 */
/* What a token endpoint or IMDS answered, and what a token says about whose it is.  Pure. */
#ifndef ORIGIN_TOKEN_ANSWER_H
#define ORIGIN_TOKEN_ANSWER_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/err.h"

#define TOKEN_MAX    16384 /* with its NUL; one with many groups takes 4 KiB */
#define TOKEN_ID_MAX 64

struct token_answer {
	char token[TOKEN_MAX]; /* a secret */
	uint32_t life_s;       /* from now; never 0 */
	uint32_t renew_s;      /* from now: refresh_in; 0 = not said */
	/* The identity's ids, as the token's own claims or the answer have them; "" = not known. */
	char client[TOKEN_ID_MAX], object[TOKEN_ID_MAX];
};

/* @now is the answerer's clock (its Date) or, for want of it, ours: expires_on is held against it.
 * Where expires_in and expires_on differ the earlier counts. ext_expires_in is passed over: Blob
 * refuses a token after its end. -EBADMSG with a text that never quotes the token. */
int token_answer_parse(const char *json, size_t len, time_t now, struct token_answer *out,
		       struct err *err);

/* "invalid_client: AADSTS7000215: Invalid client secret provided" from an error's body, cut to one
 * line; "" when it is not of that form, or where it repeats @secret (may be NULL). */
const char *token_answer_error(const char *body, const char *secret, char *out, size_t cap);

#endif
