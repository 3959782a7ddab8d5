/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens for Blob, one at a time for all threads of the process.
 *
 * A source keeps the token of one identity. Who needs it takes it; nothing runs while nobody does.
 *
 *	none     fetched at the first take; those who come meanwhile wait for the same fetch
 *	good     taken without waiting
 *	ageing   past its renewal point (refresh_in; else when under 5 minutes, or half of a
 *		 short life, remain): the next take begins ONE fetch in the background, and the
 *		 old one still serves
 *	ended    as none
 *
 * A fetch that fails leaves the old token as it is and is tried again at a next take, not before a
 * back-off of 1 s doubled up to 60 s. With no token left: an identity that never gave one fails at
 * once until the back-off is over; one that did is worth waiting for, so takers wait until their
 * own deadlines and the source tries on.
 *
 * Fetches block, so they run on a thread that the source starts at its first.
 */
#ifndef ORIGIN_TOKEN_H
#define ORIGIN_TOKEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/err.h"
#include "base/loop.h"
#include "origin/identity.h"
#include "origin/token_answer.h"

struct token_source;

struct token {
	char text[TOKEN_MAX];
	uint64_t generation; /* from 1; grows with each token of the source */
};

/* One thread's place in the queue. Zero it, and set the first two. */
struct token_waiter {
	struct loop *loop;
	void (*wake)(struct token_waiter *w); /* on the loop: take again */
	/* the source's */
	struct token_source *source;
	struct loop_post post;
	bool listed, posted;
	TAILQ_ENTRY(token_waiter) link;
};

#define TOKEN_WAIT 1

/* The process's source for such an identity; it lives as long as the process. NULL with @err. */
struct token_source *token_source_shared(enum identity_kind kind, const char *client_id,
					 const char *ca_file, struct err *err);

/* One of its own. @id is consumed. @limits may be NULL. Free it when no waiter is left. */
struct token_source *token_source_new(struct identity *id, const struct identity_limits *limits,
				      struct err *err);
void token_source_free(struct token_source *s);

/* A token younger than generation @after (0 = any). Any thread.
 * 0 with *out; TOKEN_WAIT: @w wakes once a fetch has ended, then take again; or a negative errno
 * with a text that tells what each step failed with. */
int token_take(struct token_source *s, uint64_t after, struct token_waiter *w, struct token *out,
	       struct err *err);

/* Blob refused generation @generation: is there, or may there soon be, a younger one? */
bool token_may_change(struct token_source *s, uint64_t generation);

/* No wake after this, which runs the loop when one is due. On the loop's thread, or when none runs.
 */
void token_leave(struct token_waiter *w);

/* Why there is no token: the last failure, or "" . */
void token_why(struct token_source *s, char *buf, size_t len);

/* "client id X, object id Y" of the last token, as far as known; never the token. */
void token_whose(struct token_source *s, char *buf, size_t len);

/* Seconds before its end at which a token of @life_s is due, by its answer's @renew_s (0 = not
 * said). */
uint32_t token_renewal_margin(uint32_t life_s, uint32_t renew_s);

#endif
