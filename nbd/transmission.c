/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/transmission.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

int nbd_request_parse(const uint8_t in[sizeof(struct nbd_wire_request)], struct nbd_request *out)
{
	struct nbd_wire_request w;

	memcpy(&w, in, sizeof(w));
	if (be32toh(w.magic) != NBD_REQUEST_MAGIC)
		return -EPROTO;
	out->flags = be16toh(w.flags);
	out->type = be16toh(w.type);
	out->slot = 0;
	out->cookie = w.cookie;
	out->off = be64toh(w.off);
	out->len = be32toh(w.len);
	return 0;
}

uint32_t nbd_request_payload(const struct nbd_request *r)
{
	return r->type == NBD_CMD_WRITE ? r->len : 0;
}

static bool request_is_inside(const struct nbd_request *r, uint64_t size)
{
	return r->off <= size && r->len <= size - r->off;
}

static uint32_t check_read(const struct nbd_request *r, const struct nbd_terms *t, uint64_t size)
{
	if (r->flags & ~(t->structured ? NBD_CMD_FLAG_DF : 0U))
		return NBD_EINVAL;
	if (!request_is_inside(r, size))
		return NBD_EINVAL;
	/* proto.md, "Error values": EOVERFLOW only to one who asked not to fragment. */
	if (r->len > NBD_PAYLOAD_MAX)
		return r->flags & NBD_CMD_FLAG_DF ? NBD_EOVERFLOW : NBD_EINVAL;
	return NBD_OK;
}

uint32_t nbd_request_check(const struct nbd_request *r, const struct nbd_terms *t, uint64_t size)
{
	switch (r->type) {
	case NBD_CMD_READ:
		return check_read(r, t, size);
	case NBD_CMD_WRITE:
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		return NBD_EPERM;
	case NBD_CMD_CACHE:
		return r->flags || !request_is_inside(r, size) ? NBD_EINVAL : NBD_OK;
	case NBD_CMD_BLOCK_STATUS:
		if (!t->structured || !t->context || r->flags & ~NBD_CMD_FLAG_REQ_ONE)
			return NBD_EINVAL;
		return r->len == 0 || !request_is_inside(r, size) ? NBD_EINVAL : NBD_OK;
	default: /* FLUSH too: it was not announced */
		return NBD_EINVAL;
	}
}

uint32_t nbd_error_of(int rc)
{
	switch (-rc) {
	case 0:
		return NBD_OK;
	case EPERM:
	case EROFS:
		return NBD_EPERM;
	case ENOMEM:
		return NBD_ENOMEM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOSPC:
		return NBD_ENOSPC;
	case EOVERFLOW:
		return NBD_EOVERFLOW;
	case ENOTSUP:
		return NBD_ENOTSUP;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	default:
		return NBD_EIO;
	}
}

static size_t put_simple(uint8_t *out, uint64_t cookie, uint32_t error)
{
	struct nbd_wire_simple_reply s = {
		.magic = htobe32(NBD_SIMPLE_REPLY_MAGIC),
		.error = htobe32(error),
		.cookie = cookie,
	};

	memcpy(out, &s, sizeof(s));
	return sizeof(s);
}

/* Each of our replies is one chunk. */
static size_t put_chunk(uint8_t *out, uint64_t cookie, uint16_t type, uint32_t len)
{
	struct nbd_wire_chunk c = {
		.magic = htobe32(NBD_STRUCTURED_REPLY_MAGIC),
		.flags = htobe16(NBD_REPLY_FLAG_DONE),
		.type = htobe16(type),
		.cookie = cookie,
		.len = htobe32(len),
	};

	memcpy(out, &c, sizeof(c));
	return sizeof(c);
}

size_t nbd_put_read_header(uint8_t *out, const struct nbd_request *r, const struct nbd_terms *t)
{
	uint64_t off = htobe64(r->off);
	size_t n;

	if (!t->structured)
		return put_simple(out, r->cookie, NBD_OK);
	if (r->len == 0) /* an empty data chunk is not lawful */
		return put_chunk(out, r->cookie, NBD_REPLY_TYPE_NONE, 0);
	n = put_chunk(out, r->cookie, NBD_REPLY_TYPE_OFFSET_DATA, (uint32_t)sizeof(off) + r->len);
	memcpy(out + n, &off, sizeof(off));
	return n + sizeof(off);
}

size_t nbd_put_plain(uint8_t *out, const struct nbd_request *r, const struct nbd_terms *t,
		     uint32_t error)
{
	struct {
		uint32_t error;
		uint16_t text_len;
	} __attribute__((packed)) e = {htobe32(error), 0};
	size_t n;

	/* Once structured replies are agreed on, a read and a status may get nothing else. */
	if (!t->structured || (r->type != NBD_CMD_READ && r->type != NBD_CMD_BLOCK_STATUS))
		return put_simple(out, r->cookie, error);
	if (error == NBD_OK)
		return put_chunk(out, r->cookie, NBD_REPLY_TYPE_NONE, 0);
	n = put_chunk(out, r->cookie, NBD_REPLY_TYPE_ERROR, sizeof(e));
	memcpy(out + n, &e, sizeof(e));
	return n + sizeof(e);
}

uint64_t nbd_reply_len(const struct nbd_request *r, const struct nbd_terms *t, uint32_t error)
{
	uint8_t head[NBD_READ_HEADER_MAX];

	if (r->type == NBD_CMD_READ && error == NBD_OK)
		return nbd_put_read_header(head, r, t) + (uint64_t)r->len;
	return nbd_put_plain(head, r, t, error);
}

size_t nbd_put_status(uint8_t *out, const struct nbd_request *r, const struct nbd_extent *runs,
		      int n)
{
	uint32_t id = htobe32(NBD_CONTEXT_ALLOCATION_ID);
	size_t at = put_chunk(out, r->cookie, NBD_REPLY_TYPE_BLOCK_STATUS,
			      (uint32_t)(sizeof(id) + (size_t)n * sizeof(struct nbd_wire_status)));

	memcpy(out + at, &id, sizeof(id));
	at += sizeof(id);
	for (int i = 0; i < n; i++) {
		struct nbd_wire_status s = {htobe32(runs[i].len), htobe32(runs[i].flags)};

		memcpy(out + at, &s, sizeof(s));
		at += sizeof(s);
	}
	return at;
}

int nbd_status_trim(const struct nbd_request *r, struct nbd_extent *runs, int n)
{
	uint32_t left = r->len;
	int kept = 0;

	for (int i = 0; i < n && left; i++) {
		struct nbd_extent e = runs[i];

		if (e.len > left)
			e.len = left;
		if (e.len == 0)
			continue;
		left -= e.len;
		if (kept && runs[kept - 1].flags == e.flags)
			runs[kept - 1].len += e.len;
		else
			runs[kept++] = e;
	}
	return kept && r->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : kept;
}
