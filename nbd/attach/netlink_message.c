/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/attach/netlink_message.h"

#include <errno.h>
#include <linux/nbd-netlink.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <string.h>

struct nl_msg *nbd_message_new(int family, uint8_t cmd)
{
	struct nl_msg *m = nlmsg_alloc();

	if (m && !genlmsg_put(m, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, cmd, NBD_GENL_VERSION)) {
		nlmsg_free(m);
		m = NULL;
	}
	return m;
}

int nbd_message_put_index(struct nl_msg *m, int index)
{
	return nla_put_u32(m, NBD_ATTR_INDEX, (uint32_t)index) ? -ENOMEM : 0;
}

static int put_sockets(struct nl_msg *m, const struct nbd_netlink_device *d)
{
	struct nlattr *all = nla_nest_start(m, NBD_ATTR_SOCKETS);

	for (uint32_t i = 0; all && i < d->nsockets; i++) {
		struct nlattr *item = nla_nest_start(m, NBD_SOCK_ITEM);

		if (!item || nla_put_u32(m, NBD_SOCK_FD, (uint32_t)d->sockets[i]))
			return -ENOMEM;
		nla_nest_end(m, item);
	}
	if (!all)
		return -ENOMEM;
	nla_nest_end(m, all);
	return 0;
}

int nbd_message_put_device(struct nl_msg *m, const struct nbd_netlink_device *d)
{
	if (d->index >= 0 && nbd_message_put_index(m, d->index))
		return -ENOMEM;
	if (d->size && (nla_put_u64(m, NBD_ATTR_SIZE_BYTES, d->size) ||
			nla_put_u64(m, NBD_ATTR_BLOCK_SIZE_BYTES, d->block_size)))
		return -ENOMEM;
	if (nla_put_u64(m, NBD_ATTR_TIMEOUT, d->timeout_s) ||
	    nla_put_u64(m, NBD_ATTR_DEAD_CONN_TIMEOUT, d->dead_conn_timeout_s) ||
	    nla_put_u64(m, NBD_ATTR_SERVER_FLAGS, d->flags))
		return -ENOMEM;
	if (d->identity && nla_put_string(m, NBD_ATTR_BACKEND_IDENTIFIER, d->identity))
		return -ENOMEM;
	return put_sockets(m, d);
}

int nbd_message_index(struct nlmsghdr *h, uint8_t cmd, int *index)
{
	struct nlattr *a[NBD_ATTR_MAX + 1];

	if (!genlmsg_valid_hdr(h, 0) || genlmsg_hdr(h)->cmd != cmd ||
	    genlmsg_parse(h, 0, a, NBD_ATTR_MAX, NULL) || !a[NBD_ATTR_INDEX] ||
	    nla_len(a[NBD_ATTR_INDEX]) < (int)sizeof(uint32_t))
		return -EBADMSG;
	*index = (int)nla_get_u32(a[NBD_ATTR_INDEX]);
	return 0;
}

int nbd_message_status(struct nlmsghdr *h, int index)
{
	struct nlattr *a[NBD_ATTR_MAX + 1], *item;
	int left;

	if (!genlmsg_valid_hdr(h, 0) || genlmsg_hdr(h)->cmd != NBD_CMD_STATUS ||
	    genlmsg_parse(h, 0, a, NBD_ATTR_MAX, NULL) || !a[NBD_ATTR_DEVICE_LIST])
		return -EBADMSG;
	nla_for_each_nested(item, a[NBD_ATTR_DEVICE_LIST], left)
	{
		struct nlattr *d[NBD_DEVICE_ATTR_MAX + 1];

		if (nla_parse_nested(d, NBD_DEVICE_ATTR_MAX, item, NULL) || !d[NBD_DEVICE_INDEX] ||
		    !d[NBD_DEVICE_CONNECTED] ||
		    nla_len(d[NBD_DEVICE_INDEX]) < (int)sizeof(uint32_t) ||
		    nla_len(d[NBD_DEVICE_CONNECTED]) < 1)
			return -EBADMSG;
		if ((int)nla_get_u32(d[NBD_DEVICE_INDEX]) == index)
			return nla_get_u8(d[NBD_DEVICE_CONNECTED]) != 0;
	}
	return -ENOENT;
}

const char *nbd_message_reason(struct nlmsghdr *h)
{
	struct nlmsgerr *e = nlmsg_data(h);
	int at = (int)sizeof(*e), left;
	struct nlattr *a;

	if (h->nlmsg_type != NLMSG_ERROR || !(h->nlmsg_flags & NLM_F_ACK_TLVS))
		return NULL;
	if (!(h->nlmsg_flags & NLM_F_CAPPED))
		at += (int)NLMSG_ALIGN(e->msg.nlmsg_len) - NLMSG_HDRLEN;
	left = nlmsg_datalen(h) - at;
	if (left <= 0)
		return NULL;
	a = nla_find((struct nlattr *)((char *)e + at), left, NLMSGERR_ATTR_MSG);
	if (!a || nla_len(a) < 1 || memchr(nla_data(a), 0, (size_t)nla_len(a)) == NULL)
		return NULL;
	return nla_data(a);
}
