/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that the supervisor made between the kernel and this worker: taken when a device is
 * attached, when this worker follows one that died, and when one of them ended before its time. */
#ifndef WORKER_ADOPT_H
#define WORKER_ADOPT_H

#include "worker/exports.h"
#include "worker/privileged.h"

struct adopter;

/* A thread that asks the supervisor for new connections in place of lost ones. */
int adopter_start(struct exports *x, int supervisor_fd, struct adopter **out, struct err *err);
void adopter_stop(struct adopter *a); /* NULL is nothing */

/* A connection of the export was lost. Any thread; does not wait. @adopter as void, for the NBD
 * server. */
void adopter_lost(void *adopter, const char *export_name);

/* The connections of all devices of the table, from the worker before; then, on the adopter's
 * thread, new ones for those that are dead. Waits for the supervisor, once a device. */
void adopter_take_over(struct adopter *a);

/* Serve the export on the connections, which are this call's from now on: all that can be. -ENOENT;
 * -ENOMEM; -EBADMSG: a ledger does not fit its socket, which was shut (the adopter asks for a new
 * one when it hears adopter_lost()). */
int exports_adopt(struct exports *x, const char *name, const struct privileged_links *l);

/* The same as privileged_device.serve; @exports is a struct exports. */
void exports_adopt_early(void *exports, const char *name, const struct privileged_links *l);

#endif
