/* SPDX-License-Identifier: Apache-2.0 */
/* What the worker may ask of its supervisor. Thread-safe: one request is under way at a time,
 * others wait for it. @fd is the worker_fds' supervisor. Each waits at most PRIVILEGED_WAIT_MS and
 * then says -ETIMEDOUT; the supervisor may still do it. Out-parameters are written on success only.
 */
#ifndef WORKER_PRIVILEGED_H
#define WORKER_PRIVILEGED_H

#include <stdbool.h>

#include "base/err.h"

#define PRIVILEGED_WAIT_MS 40000

/* Put a device on an export that is served. @way: "auto" or a way's name. An export that has one
 * gets the same again. -ENOTSUP: the way cannot work here, and the text says what it lacks. */
int privileged_attach(int fd, const char *export_name, const char *way, char device[64],
		      char way_used[32], struct err *err);

/* Take it away. -EBUSY: mounted or open (the text says by whom), unless @force. -ENOENT. */
int privileged_detach(int fd, const char *export_name, bool force, struct err *err);

/* Serving. */
int privileged_ready(int fd, struct err *err);

#endif
