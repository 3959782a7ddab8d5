/* SPDX-License-Identifier: Apache-2.0 */
/* The privileged half of cairnd: sockets, devices and the worker's life. One thread and poll(). */
#ifndef SUPERVISOR_SUPERVISOR_H
#define SUPERVISOR_SUPERVISOR_H

#include "base/config.h"

/* Serve until SIGTERM or SIGINT. @cfg is what @file (NULL = defaults) says; an upgrade reads it
 * again. Returns the exit status (1: could not start, and why is logged).
 */
int supervisor_run(const struct config *cfg, const char *file);

#endif
