/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the kernel's nbd family as bytes: made and read without a socket. */
#ifndef NBD_NETLINK_MESSAGE_H
#define NBD_NETLINK_MESSAGE_H

#include <netlink/msg.h>

#include "nbd/attach/netlink.h"

/* A message of command @cmd with a generic header and no attribute yet; the caller frees it
 * (nlmsg_free). NULL without memory. */
struct nl_msg *nbd_message_new(int family, uint8_t cmd);

/* NBD_CMD_CONNECT, or NBD_CMD_RECONFIGURE of d->index. 0 or -ENOMEM. */
int nbd_message_put_device(struct nl_msg *m, const struct nbd_netlink_device *d);
int nbd_message_put_index(struct nl_msg *m, int index);

/* The index in a reply to CONNECT or in a LINK_DEAD event of this family; -EBADMSG when it is none.
 */
int nbd_message_index(struct nlmsghdr *h, uint8_t cmd, int *index);

/* What a reply to STATUS says of @index: 1 connected, 0 not, -ENOENT not there, -EBADMSG. */
int nbd_message_status(struct nlmsghdr *h, int index);

/* The kernel's own words in an error message (extended ack), or NULL. Valid as long as @h. */
const char *nbd_message_reason(struct nlmsghdr *h);

#endif
