/* SPDX-License-Identifier: Apache-2.0 */
/* The commands' side of the control socket: one bounded HTTP/1.1 exchange a call. */
#ifndef CONTROL_CLIENT_H
#define CONTROL_CLIENT_H

#include <stddef.h>

#include "base/err.h"

#define CLIENT_REPLY_MAX (64UL << 20)

struct client_reply {
	unsigned status;
	char *body; /* ends in NUL; the caller frees it */
	size_t len;
};

/* @path is sent as it is (see client_path()); @body may be NULL. A reply of any status is 0; the
 * error says how to start a daemon when none listens on @socket. */
int client_call(const char *socket, const char *method, const char *path, const char *body,
		int timeout_ms, struct client_reply *out, struct err *err);

/* PREFIX, then KEY percent-encoded, in fresh memory. */
char *client_path(const char *prefix, const char *key);

#endif
