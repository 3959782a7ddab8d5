/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's NBD client over generic netlink (family "nbd", include/uapi/linux/nbd-netlink.h), by
 * libnl-genl. One thread. Every call is bounded in time.
 */
#ifndef NBD_NETLINK_H
#define NBD_NETLINK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct nbd_netlink;

/* -ENOTSUP: no nbd in this kernel (the module is not loaded); -EPERM. */
int nbd_netlink_open(struct nbd_netlink **out, struct err *err);
void nbd_netlink_close(struct nbd_netlink *n);

struct nbd_netlink_device {
	int index;	    /* -1 = the kernel's choice; after connect, the one it took */
	const int *sockets; /* connected, one a queue; the kernel takes references of its own */
	uint32_t nsockets;
	uint64_t size;	     /* bytes; 0 (when reconfiguring) = as it is */
	uint32_t block_size; /* logical sector */
	uint32_t timeout_s;  /* of a request */
	uint32_t dead_conn_timeout_s;
	uint64_t flags;	      /* NBD transmission flags, nbd/protocol.h */
	const char *identity; /* BACKEND_IDENTIFIER; NULL = none */
};

/* -EBUSY: the device is in use. */
int nbd_netlink_connect(struct nbd_netlink *n, struct nbd_netlink_device *d, struct err *err);
/* Replaces dead sockets only: returns 0 and drops yours when none is dead. */
int nbd_netlink_reconfigure(struct nbd_netlink *n, const struct nbd_netlink_device *d,
			    struct err *err);
int nbd_netlink_disconnect(struct nbd_netlink *n, int index, struct err *err);
/* 1 connected, 0 not, or a negative errno. */
int nbd_netlink_status(struct nbd_netlink *n, int index, struct err *err);

/* Link-dead events of the multicast group. The descriptor polls readable; drain calls fn for each
 * device named and returns 0, or -ENOBUFS when the kernel dropped some: then look at every device.
 */
int nbd_netlink_events_fd(const struct nbd_netlink *n);
int nbd_netlink_events_drain(struct nbd_netlink *n, void (*fn)(void *arg, int index), void *arg);

#endif
