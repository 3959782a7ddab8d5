/* SPDX-License-Identifier: Apache-2.0 */
/* What the way "nbd" holds open beside its devices: the kernel's netlink family, and a watch over
 * connections and link-dead events. */
#ifndef NBD_ATTACH_KERNEL_H
#define NBD_ATTACH_KERNEL_H

#include "nbd/attach/attach.h"

int attach_kernel_new(struct attach_kernel **out, struct err *err);
void attach_kernel_free(struct attach_kernel *k); /* NULL is nothing */

/* Polls readable when a connection died or the kernel said so. */
int attach_kernel_events_fd(const struct attach_kernel *k);

/* Drop the connections of @a that died; it is dead then. */
void attach_kernel_look(struct attach_kernel *k, struct attachment *a);

/* Take what happened: drop the dead connections of the list, mark their attachments dead, log. */
void attach_kernel_events(struct attach_kernel *k, struct attachment *list, size_t n);

#endif
