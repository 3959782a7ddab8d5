/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the way "nbd". */
#ifndef NBD_ATTACH_KERNEL_IMPL_H
#define NBD_ATTACH_KERNEL_IMPL_H

#include "nbd/attach/kernel.h"
#include "nbd/attach/netlink.h"

#define KERNEL_NOTE "nbd.json"

struct attach_kernel {
	struct nbd_netlink *netlink; /* NULL until the first use */
	int epoll;		     /* links, and the netlink's events */
};

/* What the kernel is told of a device whose worker takes @deadline_s at most, or, with @wait, as
 * long as it takes: TIMEOUT and DEAD_CONN_TIMEOUT, seconds. */
unsigned kernel_timeout_s(unsigned deadline_s, bool wait);
unsigned kernel_dead_timeout_s(unsigned deadline_s, bool wait);

/* The module and its netlink family, at the first use. -ENOTSUP, -EPERM. */
int attach_kernel_ready(struct attach_kernel *k, struct err *err);

/* kernel_links.c: the supervisor's ends */

/* Watch and keep @fd as one more, fresh, with a new ledger. It is closed when that fails. */
int links_add(struct attach_kernel *k, struct attachment *a, int fd);

/* The same for a connection of the supervisor before, with its ledger. */
int links_restore(struct attach_kernel *k, struct attachment *a, int fd, int ledger);

/* Shut all down, so that the kernel and the worker see them end, and forget them. */
void links_cut(struct attach_kernel *k, struct attachment *a);

/* Forget those whose other end is gone; how many. */
uint32_t links_drop_dead(struct attach_kernel *k, struct attachment *a);

/* kernel_sweep.c */
void attach_kernel_sweep(const struct attach_env *env);

#endif
