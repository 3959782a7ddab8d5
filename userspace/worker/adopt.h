/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that the supervisor made between the kernel and this worker: taken when a device is
 * attached, when this worker follows one that died, and when one of them ended before its time. */
#ifndef WORKER_ADOPT_H
#define WORKER_ADOPT_H

#include "worker/exports.h"

struct adopter;

/* A thread that asks the supervisor for new connections in place of lost ones. */
int adopter_start(struct exports *x, int supervisor_fd, struct adopter **out, struct err *err);
void adopter_stop(struct adopter *a); /* NULL is nothing */

/* A connection of the export was lost. Any thread; does not wait. @adopter as void, for the NBD
 * server. */
void adopter_lost(void *adopter, const char *export_name);

/* Each export of the table that has a device of this kind: from the worker before. */
void adopter_take_over(struct adopter *a);

/* Serve the export on the connected sockets, which are this call's from now on. -ENOENT, -ENOMEM.
 */
int exports_adopt(struct exports *x, const char *name, const int *fds, uint32_t n);

#endif
