/* SPDX-License-Identifier: Apache-2.0 */
/* Listening Unix sockets that outlive workers. */
#ifndef SUPERVISOR_LISTEN_H
#define SUPERVISOR_LISTEN_H

#include "base/err.h"

/* A listening stream socket at @path, mode 0600; its folder is made if need be. The file of a
 * daemon that is gone is replaced. -EADDRINUSE: someone listens there; -EEXIST: it is no socket.
 * @key names the setting in errors. */
int listen_unix(const char *path, const char *key, struct err *err);

/* Let @group connect, too. Without such a group, or without the right to give the socket to it, the
 * socket stays its owner's: -ENOENT, -EPERM, which is no reason to fail. */
int listen_share(const char *path, const char *group);

/* Every missing folder of @path, 0755. */
int folder_make(const char *path, struct err *err);

#endif
