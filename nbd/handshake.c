/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/handshake.h"

#include <endian.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "nbd/protocol.h"

/* What is left of an option's data. */
struct cursor {
	const uint8_t *at;
	size_t left;
};

static bool cursor_take(struct cursor *c, void *dst, size_t len)
{
	if (c->left < len)
		return false;
	memcpy(dst, c->at, len);
	c->at += len;
	c->left -= len;
	return true;
}

static bool cursor_u16(struct cursor *c, uint16_t *out)
{
	if (!cursor_take(c, out, sizeof(*out)))
		return false;
	*out = be16toh(*out);
	return true;
}

static bool cursor_u32(struct cursor *c, uint32_t *out)
{
	if (!cursor_take(c, out, sizeof(*out)))
		return false;
	*out = be32toh(*out);
	return true;
}

/* A string that stays in the option's bytes: a length, then that much. */
static bool cursor_string(struct cursor *c, const char **s, uint32_t *len)
{
	if (!cursor_u32(c, len) || c->left < *len)
		return false;
	*s = (const char *)c->at;
	c->at += *len;
	c->left -= *len;
	return true;
}

static void put(struct nbd_handshake *h, const void *data, size_t len)
{
	size_t want = h->out_len + len;

	if (want > h->out_cap) {
		size_t cap = want < 1024 ? 1024 : want * 2;
		uint8_t *grown = realloc(h->out, cap);

		if (!grown) {
			h->state = NBD_HANDSHAKE_BROKEN;
			return;
		}
		h->out = grown;
		h->out_cap = cap;
	}
	if (len)
		memcpy(h->out + h->out_len, data, len);
	h->out_len = want;
}

/* An option reply whose data is @head and then @text (either may be empty). */
static void reply(struct nbd_handshake *h, uint32_t option, uint32_t type, const void *head,
		  size_t head_len, const char *text, size_t text_len)
{
	struct nbd_wire_option_reply r = {
		.magic = htobe64(NBD_OPTREPLY_MAGIC),
		.option = htobe32(option),
		.type = htobe32(type),
		.len = htobe32((uint32_t)(head_len + text_len)),
	};

	put(h, &r, sizeof(r));
	put(h, head, head_len);
	put(h, text, text_len);
}

static void acknowledge(struct nbd_handshake *h, uint32_t option)
{
	reply(h, option, NBD_REP_ACK, NULL, 0, NULL, 0);
}

static void refuse(struct nbd_handshake *h, uint32_t option, uint32_t error, const char *why)
{
	reply(h, option, error, NULL, 0, why, strlen(why));
}

/* The export named by @len bytes at @name, or NULL with the error to give and its text. */
static struct nbd_export *find(struct nbd_handshake *h, const char *name, uint32_t len,
			       uint32_t *error, const char **why)
{
	char text[NBD_NAME_MAX + 1];
	struct nbd_export *e;

	if (len > NBD_STRING_MAX) {
		*error = NBD_REP_ERR_TOO_BIG;
		*why = "export name longer than 4096 bytes";
		return NULL;
	}
	if (memchr(name, 0, len)) {
		*error = NBD_REP_ERR_INVALID;
		*why = "export name holds a NUL";
		return NULL;
	}
	if (h->refusal) {
		*error = NBD_REP_ERR_POLICY;
		*why = h->refusal;
		return NULL;
	}
	*error = NBD_REP_ERR_UNKNOWN;
	*why = "no such export";
	if (len > NBD_NAME_MAX)
		return NULL;
	memcpy(text, name, len);
	text[len] = 0;
	e = h->directory->find(h->directory, text);
	if (e && atomic_load(&e->closing)) {
		e->ops->unref(e);
		return NULL;
	}
	return e;
}

uint16_t nbd_handshake_flags(const struct nbd_handshake *h)
{
	return (uint16_t)(NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_CAN_MULTI_CONN |
			  NBD_FLAG_SEND_CACHE | (h->structured ? NBD_FLAG_SEND_DF : 0));
}

static void become_ready(struct nbd_handshake *h, struct nbd_export *e)
{
	/* Contexts hold for the export they were set for and no other. */
	if (strcmp(h->context_export, e->name) != 0)
		h->context = false;
	h->export = e;
	if (h->state != NBD_HANDSHAKE_BROKEN)
		h->state = NBD_HANDSHAKE_READY;
}

static void option_export_name(struct nbd_handshake *h, const uint8_t *data, uint32_t len)
{
	struct nbd_wire_export_name_reply r = {0};
	struct nbd_export *e;
	const char *why;
	uint32_t error;

	e = find(h, (const char *)data, len, &error, &why);
	if (!e) { /* this option has no way to say no */
		h->state = NBD_HANDSHAKE_BROKEN;
		return;
	}
	r.size = htobe64(e->size);
	r.flags = htobe16(nbd_handshake_flags(h));
	put(h, &r, h->no_zeroes ? offsetof(struct nbd_wire_export_name_reply, zeroes) : sizeof(r));
	become_ready(h, e);
}

static bool list_one(void *arg, const char *name, const char *description)
{
	struct nbd_handshake *h = arg;
	uint8_t head[sizeof(uint32_t) + NBD_NAME_MAX];
	size_t len = strnlen(name, NBD_NAME_MAX);
	uint32_t wire_len = htobe32((uint32_t)len);

	memcpy(head, &wire_len, sizeof(wire_len));
	memcpy(head + sizeof(wire_len), name, len);
	reply(h, NBD_OPT_LIST, NBD_REP_SERVER, head, sizeof(wire_len) + len, description,
	      strlen(description));
	return h->state != NBD_HANDSHAKE_BROKEN;
}

static void option_list(struct nbd_handshake *h, uint32_t len)
{
	if (len) {
		refuse(h, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST takes no data");
		return;
	}
	h->directory->list(h->directory, list_one, h);
	acknowledge(h, NBD_OPT_LIST);
}

static void info_reply(struct nbd_handshake *h, uint32_t option, struct nbd_export *e,
		       uint16_t type)
{
	struct nbd_wire_info_export export = {
		.type = htobe16(type),
		.size = htobe64(e->size),
		.flags = htobe16(nbd_handshake_flags(h)),
	};
	struct nbd_wire_info_block_size block = {
		.type = htobe16(type),
		.min = htobe32(NBD_BLOCK_MIN),
		.preferred = htobe32(NBD_BLOCK_PREFERRED),
		.max = htobe32(NBD_PAYLOAD_MAX),
	};
	uint16_t wire_type = htobe16(type);

	switch (type) {
	case NBD_INFO_EXPORT:
		reply(h, option, NBD_REP_INFO, &export, sizeof(export), NULL, 0);
		break;
	case NBD_INFO_BLOCK_SIZE:
		reply(h, option, NBD_REP_INFO, &block, sizeof(block), NULL, 0);
		break;
	case NBD_INFO_NAME:
		reply(h, option, NBD_REP_INFO, &wire_type, sizeof(wire_type), e->name,
		      strlen(e->name));
		break;
	case NBD_INFO_DESCRIPTION:
		reply(h, option, NBD_REP_INFO, &wire_type, sizeof(wire_type), e->description,
		      strlen(e->description));
		break;
	default: /* an information we lack is left out, not refused */
		break;
	}
}

/* INFO and GO: a name, a count, and that many wanted informations. */
static void option_go(struct nbd_handshake *h, uint32_t option, struct cursor c)
{
	uint32_t name_len, error;
	const char *name, *why;
	struct nbd_export *e;
	uint32_t seen = 0;
	uint16_t n, type;

	if (!cursor_string(&c, &name, &name_len) || !cursor_u16(&c, &n) ||
	    c.left != n * sizeof(type)) {
		refuse(h, option, NBD_REP_ERR_INVALID, "lengths do not add up");
		return;
	}
	e = find(h, name, name_len, &error, &why);
	if (!e) {
		refuse(h, option, error, why);
		return;
	}
	info_reply(h, option, e, NBD_INFO_EXPORT);
	info_reply(h, option, e, NBD_INFO_BLOCK_SIZE);
	seen = 1U << NBD_INFO_EXPORT | 1U << NBD_INFO_BLOCK_SIZE;
	while (cursor_u16(&c, &type)) {
		/* Once each, however often it is asked: replies stay in proportion. */
		if (type > NBD_INFO_BLOCK_SIZE || seen & 1U << type)
			continue;
		seen |= 1U << type;
		info_reply(h, option, e, type);
	}
	acknowledge(h, option);
	if (option == NBD_OPT_GO)
		become_ready(h, e);
	else
		e->ops->unref(e);
}

static bool context_matches(uint32_t option, const char *query, uint32_t len)
{
	if (len == strlen(NBD_CONTEXT_ALLOCATION) && !memcmp(query, NBD_CONTEXT_ALLOCATION, len))
		return true;
	/* "base:" asks for all of the namespace, and only when listing. */
	return option == NBD_OPT_LIST_META_CONTEXT && len == 5 && !memcmp(query, "base:", 5);
}

static void context_reply(struct nbd_handshake *h, uint32_t option)
{
	uint32_t id = option == NBD_OPT_SET_META_CONTEXT ? htobe32(NBD_CONTEXT_ALLOCATION_ID) : 0;

	reply(h, option, NBD_REP_META_CONTEXT, &id, sizeof(id), NBD_CONTEXT_ALLOCATION,
	      strlen(NBD_CONTEXT_ALLOCATION));
}

static void option_meta_context(struct nbd_handshake *h, uint32_t option, struct cursor c)
{
	bool set = option == NBD_OPT_SET_META_CONTEXT, match;
	uint32_t name_len, query_len, n, error;
	const char *name, *query, *why;
	struct nbd_export *e;

	if (set) /* even a failed SET forgets the last one */
		h->context = false;
	if (!h->structured) {
		refuse(h, option, NBD_REP_ERR_INVALID, "structured replies come first");
		return;
	}
	if (!cursor_string(&c, &name, &name_len) || !cursor_u32(&c, &n)) {
		refuse(h, option, NBD_REP_ERR_INVALID, "lengths do not add up");
		return;
	}
	match = !set && n == 0;
	for (; n; n--) { /* ends early: each turn needs 4 bytes of @c */
		if (!cursor_string(&c, &query, &query_len)) {
			refuse(h, option, NBD_REP_ERR_INVALID, "lengths do not add up");
			return;
		}
		if (query_len > NBD_STRING_MAX) {
			refuse(h, option, NBD_REP_ERR_TOO_BIG, "query longer than 4096 bytes");
			return;
		}
		match |= context_matches(option, query, query_len);
	}
	if (c.left) {
		refuse(h, option, NBD_REP_ERR_INVALID, "lengths do not add up");
		return;
	}
	e = find(h, name, name_len, &error, &why);
	if (!e) {
		refuse(h, option, error, why);
		return;
	}
	match = match && !h->no_contexts;
	if (match)
		context_reply(h, option);
	if (set) {
		h->context = match;
		strcpy(h->context_export, e->name);
	}
	e->ops->unref(e);
	acknowledge(h, option);
}

static void option_structured_reply(struct nbd_handshake *h, uint32_t len)
{
	if (len) {
		refuse(h, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID,
		       "STRUCTURED_REPLY takes no data");
		return;
	}
	h->structured = true;
	acknowledge(h, NBD_OPT_STRUCTURED_REPLY);
}

static void option_take(struct nbd_handshake *h, uint32_t option, const uint8_t *data, uint32_t len)
{
	struct cursor c = {data, len};

	switch (option) {
	case NBD_OPT_EXPORT_NAME:
		option_export_name(h, data, len);
		break;
	case NBD_OPT_ABORT:
		acknowledge(h, option);
		h->state = NBD_HANDSHAKE_GOODBYE;
		break;
	case NBD_OPT_LIST:
		option_list(h, len);
		break;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		option_go(h, option, c);
		break;
	case NBD_OPT_STRUCTURED_REPLY:
		option_structured_reply(h, len);
		break;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		option_meta_context(h, option, c);
		break;
	default:
		refuse(h, option, NBD_REP_ERR_UNSUP, "option not supported");
		break;
	}
}

static size_t feed_flags(struct nbd_handshake *h, const uint8_t *in, size_t len)
{
	uint32_t flags;

	if (len < sizeof(flags))
		return 0;
	memcpy(&flags, in, sizeof(flags));
	flags = be32toh(flags);
	/* proto.md: an unknown client flag must end the session. Without FIXED_NEWSTYLE a client
	 * could not understand a refusal, and none has been written for a decade. */
	if (flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES) ||
	    !(flags & NBD_FLAG_FIXED_NEWSTYLE)) {
		h->state = NBD_HANDSHAKE_BROKEN;
		return 0;
	}
	h->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
	h->state = NBD_HANDSHAKE_OPTIONS;
	return sizeof(flags);
}

static size_t feed_skip(struct nbd_handshake *h, size_t len)
{
	size_t n = len < h->skip ? len : h->skip;

	h->skip -= (uint32_t)n;
	if (n && !h->skip)
		refuse(h, h->skip_option, NBD_REP_ERR_TOO_BIG, "option too long");
	return n;
}

static size_t feed_option(struct nbd_handshake *h, const uint8_t *in, size_t len)
{
	struct nbd_wire_option o;
	uint32_t data_len;

	if (len < sizeof(o))
		return 0;
	memcpy(&o, in, sizeof(o));
	data_len = be32toh(o.len);
	if (be64toh(o.magic) != NBD_OPTION_MAGIC || data_len > NBD_OPTION_SKIP_MAX) {
		h->state = NBD_HANDSHAKE_BROKEN;
		return 0;
	}
	if (data_len > NBD_OPTION_DATA_MAX) {
		if (be32toh(o.option) == NBD_OPT_EXPORT_NAME) {
			h->state = NBD_HANDSHAKE_BROKEN;
			return 0;
		}
		h->skip = data_len;
		h->skip_option = be32toh(o.option);
		return sizeof(o);
	}
	if (len - sizeof(o) < data_len)
		return 0;
	option_take(h, be32toh(o.option), in + sizeof(o), data_len);
	return sizeof(o) + data_len;
}

static size_t feed(struct nbd_handshake *h, const uint8_t *in, size_t len)
{
	switch (h->state) {
	case NBD_HANDSHAKE_FLAGS:
		return feed_flags(h, in, len);
	case NBD_HANDSHAKE_OPTIONS:
		return h->skip ? feed_skip(h, len) : feed_option(h, in, len);
	default:
		return 0;
	}
}

size_t nbd_handshake_feed(struct nbd_handshake *h, const uint8_t *in, size_t len)
{
	bool entered = crash_enter(CRASH_HANDSHAKE, NULL, 0, 0);
	size_t n = feed(h, in, len);

	crash_leave(entered);
	return n;
}

void nbd_handshake_init(struct nbd_handshake *h, struct nbd_directory *d)
{
	struct nbd_wire_greeting g = {
		.magic = htobe64(NBD_MAGIC),
		.option_magic = htobe64(NBD_OPTION_MAGIC),
		.flags = htobe16(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
	};

	*h = (struct nbd_handshake){.state = NBD_HANDSHAKE_FLAGS, .directory = d};
	put(h, &g, sizeof(g));
}

void nbd_handshake_free(struct nbd_handshake *h)
{
	if (h->export)
		h->export->ops->unref(h->export);
	free(h->out);
	*h = (struct nbd_handshake){.state = NBD_HANDSHAKE_BROKEN};
}
