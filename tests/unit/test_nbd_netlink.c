/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the kernel's nbd family, made and taken apart without a kernel. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <linux/nbd-netlink.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <string.h>

#include "nbd/attach/netlink_message.h"

#define FAMILY 0x21

static const int sockets[] = {7, 9, 11};
static const struct nbd_netlink_device device = {.index = 3,
						 .sockets = sockets,
						 .nsockets = 3,
						 .size = 1ULL << 43,
						 .block_size = 512,
						 .timeout_s = 100,
						 .dead_conn_timeout_s = 90,
						 .flags = 0x103,
						 .identity = "sha256:abc"};

static void parse(struct nl_msg *m, struct nlattr **a)
{
	assert_int_equal(genlmsg_parse(nlmsg_hdr(m), 0, a, NBD_ATTR_MAX, NULL), 0);
}

static void a_connect_says_all_of_the_device(void **state)
{
	struct nl_msg *m = nbd_message_new(FAMILY, NBD_CMD_CONNECT);
	struct nlattr *a[NBD_ATTR_MAX + 1];

	(void)state;
	assert_int_equal(nbd_message_put_device(m, &device), 0);
	assert_int_equal(nlmsg_hdr(m)->nlmsg_type, FAMILY);
	assert_int_equal(genlmsg_hdr(nlmsg_hdr(m))->cmd, NBD_CMD_CONNECT);
	parse(m, a);
	assert_int_equal(nla_get_u32(a[NBD_ATTR_INDEX]), 3);
	assert_true(nla_get_u64(a[NBD_ATTR_SIZE_BYTES]) == 1ULL << 43);
	assert_int_equal(nla_get_u64(a[NBD_ATTR_BLOCK_SIZE_BYTES]), 512);
	assert_int_equal(nla_get_u64(a[NBD_ATTR_TIMEOUT]), 100);
	assert_int_equal(nla_get_u64(a[NBD_ATTR_DEAD_CONN_TIMEOUT]), 90);
	assert_int_equal(nla_get_u64(a[NBD_ATTR_SERVER_FLAGS]), 0x103);
	assert_string_equal(nla_get_string(a[NBD_ATTR_BACKEND_IDENTIFIER]), "sha256:abc");
	nlmsg_free(m);
}

static void each_socket_is_an_item_in_order(void **state)
{
	struct nl_msg *m = nbd_message_new(FAMILY, NBD_CMD_CONNECT);
	struct nlattr *a[NBD_ATTR_MAX + 1], *item;
	int left, n = 0;

	(void)state;
	assert_int_equal(nbd_message_put_device(m, &device), 0);
	parse(m, a);
	nla_for_each_nested(item, a[NBD_ATTR_SOCKETS], left)
	{
		struct nlattr *s[NBD_SOCK_MAX + 1];

		assert_int_equal(nla_type(item), NBD_SOCK_ITEM);
		assert_int_equal(nla_parse_nested(s, NBD_SOCK_MAX, item, NULL), 0);
		assert_int_equal(nla_get_u32(s[NBD_SOCK_FD]), sockets[n++]);
	}
	assert_int_equal(n, 3);
	nlmsg_free(m);
}

static void the_most_sockets_fit(void **state)
{
	struct nl_msg *m = nbd_message_new(FAMILY, NBD_CMD_CONNECT);
	struct nbd_netlink_device d = device;
	int many[64] = {0};
	char identity[256];

	(void)state;
	memset(identity, 'i', sizeof(identity) - 1);
	identity[sizeof(identity) - 1] = 0;
	d.sockets = many;
	d.nsockets = 64;
	d.identity = identity;
	assert_int_equal(nbd_message_put_device(m, &d), 0);
	nlmsg_free(m);
}

static void any_device_and_no_size_are_not_said(void **state)
{
	struct nl_msg *m = nbd_message_new(FAMILY, NBD_CMD_RECONFIGURE);
	struct nbd_netlink_device d = device;
	struct nlattr *a[NBD_ATTR_MAX + 1];

	(void)state;
	d.index = -1;
	d.size = 0;
	d.identity = NULL;
	assert_int_equal(nbd_message_put_device(m, &d), 0);
	parse(m, a);
	assert_null(a[NBD_ATTR_INDEX]);
	assert_null(a[NBD_ATTR_SIZE_BYTES]);
	assert_null(a[NBD_ATTR_BLOCK_SIZE_BYTES]);
	assert_null(a[NBD_ATTR_BACKEND_IDENTIFIER]);
	nlmsg_free(m);
}

static void an_index_is_read_from_its_own_command_only(void **state)
{
	struct nl_msg *m = nbd_message_new(FAMILY, NBD_CMD_LINK_DEAD);
	int index = -7;

	(void)state;
	assert_int_equal(nbd_message_index(nlmsg_hdr(m), NBD_CMD_LINK_DEAD, &index), -EBADMSG);
	assert_int_equal(nbd_message_put_index(m, 5), 0);
	assert_int_equal(nbd_message_index(nlmsg_hdr(m), NBD_CMD_CONNECT, &index), -EBADMSG);
	assert_int_equal(index, -7);
	assert_int_equal(nbd_message_index(nlmsg_hdr(m), NBD_CMD_LINK_DEAD, &index), 0);
	assert_int_equal(index, 5);
	nlmsg_free(m);
}

static void a_message_cut_short_is_refused(void **state)
{
	struct nl_msg *m = nbd_message_new(FAMILY, NBD_CMD_LINK_DEAD);
	int index = -7;

	(void)state;
	nbd_message_put_index(m, 5);
	for (uint32_t len = NLMSG_HDRLEN; len < NLMSG_HDRLEN + GENL_HDRLEN + 8; len++) {
		nlmsg_hdr(m)->nlmsg_len = len;
		assert_int_equal(nbd_message_index(nlmsg_hdr(m), NBD_CMD_LINK_DEAD, &index),
				 -EBADMSG);
		assert_int_equal(nbd_message_status(nlmsg_hdr(m), 5), -EBADMSG);
	}
	assert_int_equal(index, -7);
	nlmsg_free(m);
}

static void put_state(struct nl_msg *m, uint32_t index, uint8_t connected)
{
	struct nlattr *item = nla_nest_start(m, NBD_DEVICE_ITEM);

	nla_put_u32(m, NBD_DEVICE_INDEX, index);
	nla_put_u8(m, NBD_DEVICE_CONNECTED, connected);
	nla_nest_end(m, item);
}

static void a_status_tells_the_device_that_was_asked_about(void **state)
{
	struct nl_msg *m = nbd_message_new(FAMILY, NBD_CMD_STATUS);
	struct nlattr *list = nla_nest_start(m, NBD_ATTR_DEVICE_LIST);

	(void)state;
	put_state(m, 1, 0);
	put_state(m, 2, 1);
	nla_nest_end(m, list);
	assert_int_equal(nbd_message_status(nlmsg_hdr(m), 1), 0);
	assert_int_equal(nbd_message_status(nlmsg_hdr(m), 2), 1);
	assert_int_equal(nbd_message_status(nlmsg_hdr(m), 3), -ENOENT);
	nlmsg_free(m);
}

/* As the kernel builds it: nlmsgerr, without the request when it is capped, then attributes. */
static struct nl_msg *refusal(uint32_t request_len, int flags, const char *words, int len)
{
	struct nl_msg *m = nlmsg_alloc_simple(NLMSG_ERROR, flags);
	struct nlmsgerr e = {.error = -EINVAL, .msg.nlmsg_len = NLMSG_HDRLEN + request_len};
	static const char request[64];

	nlmsg_append(m, &e, sizeof(e), 0);
	if (!(flags & NLM_F_CAPPED))
		nlmsg_append(m, (void *)request, request_len, NLMSG_ALIGNTO);
	if (words)
		nla_put(m, NLMSGERR_ATTR_MSG, len, words);
	return m;
}

static void the_kernels_own_words_are_found(void **state)
{
	struct nl_msg *m = refusal(20, NLM_F_ACK_TLVS | NLM_F_CAPPED, "too big", 8);

	(void)state;
	assert_string_equal(nbd_message_reason(nlmsg_hdr(m)), "too big");
	nlmsg_free(m);
	m = refusal(20, NLM_F_ACK_TLVS, "too big", 8);
	assert_string_equal(nbd_message_reason(nlmsg_hdr(m)), "too big");
	nlmsg_free(m);
}

static void where_there_are_no_words_none_are_made_up(void **state)
{
	struct nl_msg *m = refusal(20, NLM_F_CAPPED, "too big", 8);

	(void)state;
	assert_null(nbd_message_reason(nlmsg_hdr(m))); /* the flag does not say there are any */
	nlmsg_free(m);
	m = refusal(20, NLM_F_ACK_TLVS | NLM_F_CAPPED, NULL, 0);
	assert_null(nbd_message_reason(nlmsg_hdr(m)));
	nlmsg_free(m);
	m = refusal(20, NLM_F_ACK_TLVS | NLM_F_CAPPED, "no end", 6);
	assert_null(nbd_message_reason(nlmsg_hdr(m)));
	nlmsg_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_connect_says_all_of_the_device),
		cmocka_unit_test(each_socket_is_an_item_in_order),
		cmocka_unit_test(the_most_sockets_fit),
		cmocka_unit_test(any_device_and_no_size_are_not_said),
		cmocka_unit_test(an_index_is_read_from_its_own_command_only),
		cmocka_unit_test(a_message_cut_short_is_refused),
		cmocka_unit_test(a_status_tells_the_device_that_was_asked_about),
		cmocka_unit_test(the_kernels_own_words_are_found),
		cmocka_unit_test(where_there_are_no_words_none_are_made_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
