/* SPDX-License-Identifier: Apache-2.0 */
/* The exports that stand, kept in a file of the supervisor's so that the next worker reopens them:
 * JSON [{url, name, device, way, digest, etag, length, on_deadline, limit, store, keep, promote,
 * promoted, fetch}] in base/slots.h, for the writer may be killed at any instruction.
 */
#ifndef WORKER_ROSTER_H
#define WORKER_ROSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slots.h"

struct roster_entry {
	char url[4096]; /* as the person gave it, secrets and all: the file is root's only */
	char name[256];
	char device[64]; /* "" = exported only */
	char way[32];
	/* which image it was, as a cairnd that did not note it leaves empty */
	char digest[72];     /* "sha256:..", "" = not sealed */
	char etag[128];	     /* not sealed: the blob's */
	uint64_t length;     /* of the image, bytes */
	char on_deadline[8]; /* "eio", "wait", or "" = the daemon's */
	uint64_t limit;	     /* bytes a second from the origin; 0 = none */
	uint64_t store;	     /* bytes of the store at most; 0 = any */
	bool keep;	     /* its blocks are not evicted */
	char promote[16];    /* "auto", "never" or "" */
	bool promoted;	     /* its device reads the store's file by itself */
	bool fetch;	     /* all of it is wanted in the store */
};

/* An entry as it stands in the roster, fresh (the caller frees); NULL without memory. Whoever has
 * thousands keeps these, and makes anew only what changed. */
char *roster_text(const struct roster_entry *e);

/* Replace the roster by these texts. @last: base/slots.h. 0, -EFBIG, -ENOMEM or a write's errno.
 * One thread at a time. */
int roster_save(int fd, struct slots_last *last, const char *const *texts, size_t n);

/* Fresh array (the caller frees; NULL when *n is 0). A file never written is an empty roster;
 * -EBADMSG when it was written and no slot is valid. Out-parameters are set on success only. */
int roster_load(int fd, struct roster_entry **out, size_t *n, struct err *err);

#endif
