/* SPDX-License-Identifier: Apache-2.0 */
/* NBD on the wire: the constants and layouts this server speaks, with the names that proto.md gives
 * them (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md). All integers are
 * big-endian; cookies are opaque and copied as they came.
 */
#ifndef NBD_PROTOCOL_H
#define NBD_PROTOCOL_H

#include <stdint.h>

/* Handshake */
#define NBD_MAGIC	   0x4e42444d41474943ULL /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC   0x49484156454f5054ULL /* "IHAVEOPT" */
#define NBD_OPTREPLY_MAGIC 0x0003e889045565a9ULL

#define NBD_FLAG_FIXED_NEWSTYLE (1U << 0) /* handshake flags, and the client's echo of them */
#define NBD_FLAG_NO_ZEROES	(1U << 1)

#define NBD_OPT_EXPORT_NAME	  1U
#define NBD_OPT_ABORT		  2U
#define NBD_OPT_LIST		  3U
#define NBD_OPT_INFO		  6U
#define NBD_OPT_GO		  7U
#define NBD_OPT_STRUCTURED_REPLY  8U
#define NBD_OPT_LIST_META_CONTEXT 9U
#define NBD_OPT_SET_META_CONTEXT  10U

#define NBD_REP_ACK	     1U
#define NBD_REP_SERVER	     2U
#define NBD_REP_INFO	     3U
#define NBD_REP_META_CONTEXT 4U
#define NBD_REP_ERR(n)	     ((1U << 31) | (n))
#define NBD_REP_ERR_UNSUP    NBD_REP_ERR(1U)
#define NBD_REP_ERR_POLICY   NBD_REP_ERR(2U)
#define NBD_REP_ERR_INVALID  NBD_REP_ERR(3U)
#define NBD_REP_ERR_UNKNOWN  NBD_REP_ERR(6U)
#define NBD_REP_ERR_TOO_BIG  NBD_REP_ERR(9U)

#define NBD_INFO_EXPORT	     0U
#define NBD_INFO_NAME	     1U
#define NBD_INFO_DESCRIPTION 2U
#define NBD_INFO_BLOCK_SIZE  3U

#define NBD_FLAG_HAS_FLAGS	(1U << 0) /* transmission flags */
#define NBD_FLAG_READ_ONLY	(1U << 1)
#define NBD_FLAG_SEND_DF	(1U << 7)
#define NBD_FLAG_CAN_MULTI_CONN (1U << 8)
#define NBD_FLAG_SEND_CACHE	(1U << 10)

#define NBD_STRING_MAX 4096U /* proto.md, "Strings": no string is longer */

#define NBD_BLOCK_MIN	    1U /* any offset and length is served */
#define NBD_BLOCK_PREFERRED 65536U

#define NBD_CONTEXT_ALLOCATION	  "base:allocation"
#define NBD_CONTEXT_ALLOCATION_ID 1U

struct nbd_wire_greeting {
	uint64_t magic;
	uint64_t option_magic;
	uint16_t flags;
} __attribute__((packed));

struct nbd_wire_option {
	uint64_t magic;
	uint32_t option;
	uint32_t len; /* of the data that follows */
} __attribute__((packed));

struct nbd_wire_option_reply {
	uint64_t magic;
	uint32_t option;
	uint32_t type;
	uint32_t len;
} __attribute__((packed));

struct nbd_wire_export_name_reply { /* to NBD_OPT_EXPORT_NAME; no magic, no error possible */
	uint64_t size;
	uint16_t flags;
	uint8_t zeroes[124]; /* absent when both sides said NO_ZEROES */
} __attribute__((packed));

struct nbd_wire_info_export {
	uint16_t type;
	uint64_t size;
	uint16_t flags;
} __attribute__((packed));

struct nbd_wire_info_block_size {
	uint16_t type;
	uint32_t min, preferred, max;
} __attribute__((packed));

/* Transmission */
#define NBD_REQUEST_MAGIC	   0x25609513U
#define NBD_SIMPLE_REPLY_MAGIC	   0x67446698U
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efU

#define NBD_CMD_READ	     0U
#define NBD_CMD_WRITE	     1U
#define NBD_CMD_DISC	     2U
#define NBD_CMD_FLUSH	     3U
#define NBD_CMD_TRIM	     4U
#define NBD_CMD_CACHE	     5U
#define NBD_CMD_WRITE_ZEROES 6U
#define NBD_CMD_BLOCK_STATUS 7U

#define NBD_CMD_FLAG_DF	     (1U << 2)
#define NBD_CMD_FLAG_REQ_ONE (1U << 3)

#define NBD_REPLY_FLAG_DONE (1U << 0)

#define NBD_REPLY_TYPE_NONE	    0U
#define NBD_REPLY_TYPE_OFFSET_DATA  1U
#define NBD_REPLY_TYPE_BLOCK_STATUS 5U
#define NBD_REPLY_TYPE_ERROR	    ((1U << 15) | 1U)

#define NBD_STATE_HOLE (1U << 0) /* base:allocation */
#define NBD_STATE_ZERO (1U << 1)

#define NBD_OK	      0U /* errors of the wire: Linux numbers by chance, not by rule */
#define NBD_EPERM     1U
#define NBD_EIO	      5U
#define NBD_ENOMEM    12U
#define NBD_EINVAL    22U
#define NBD_ENOSPC    28U
#define NBD_EOVERFLOW 75U
#define NBD_ENOTSUP   95U
#define NBD_ESHUTDOWN 108U

struct nbd_wire_request {
	uint32_t magic;
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint64_t off;
	uint32_t len;
} __attribute__((packed));

struct nbd_wire_simple_reply {
	uint32_t magic;
	uint32_t error;
	uint64_t cookie;
} __attribute__((packed));

struct nbd_wire_chunk {
	uint32_t magic;
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint32_t len;
} __attribute__((packed));

struct nbd_wire_status { /* one range of a block-status chunk */
	uint32_t len;
	uint32_t flags;
} __attribute__((packed));

_Static_assert(sizeof(struct nbd_wire_request) == 28, "proto.md: request message");
_Static_assert(sizeof(struct nbd_wire_simple_reply) == 16, "proto.md: simple reply message");
_Static_assert(sizeof(struct nbd_wire_chunk) == 20, "proto.md: structured reply chunk message");

#endif
