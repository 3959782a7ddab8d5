/* SPDX-License-Identifier: Apache-2.0 */
/* What the handshake's tests share: a handshake over two exports, and both sides of the talk, in
 * memory. Include it once a test. */
#ifndef TESTS_NBD_HANDSHAKE_BED_H
#define TESTS_NBD_HANDSHAKE_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <endian.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "nbd/handshake.h"
#include "nbd/protocol.h"

/* Two exports, of which "" names the first; references are counted. */
static struct nbd_export exports[2];
static int refs;

static inline struct nbd_export *export_ref(struct nbd_export *e)
{
	refs++;
	return e;
}

static inline void export_unref(struct nbd_export *e)
{
	(void)e;
	refs--;
}

static const struct nbd_export_ops ops = {.ref = export_ref, .unref = export_unref};

static inline struct nbd_export *find(struct nbd_directory *d, const char *name)
{
	(void)d;
	for (int i = 0; i < 2; i++)
		if (strcmp(name, exports[i].name) == 0 || (!*name && i == 0))
			return export_ref(&exports[i]);
	return NULL;
}

static inline void list(struct nbd_directory *d, bool (*fn)(void *, const char *, const char *),
			void *arg)
{
	(void)d;
	for (int i = 0; i < 2; i++)
		if (!fn(arg, exports[i].name, exports[i].description))
			return;
}

static struct nbd_directory directory = {find, list};

struct bed {
	struct nbd_handshake h;
	uint8_t in[2 * NBD_OPTION_SKIP_MAX];
	size_t in_len;
};

static inline int set_up(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	for (int i = 0; i < 2; i++) {
		exports[i].ops = &ops;
		exports[i].size = 8192 * (uint64_t)(i + 1);
		strcpy(exports[i].name, i ? "two" : "one");
		strcpy(exports[i].description, i ? "the second" : "the first");
		atomic_store(&exports[i].closing, false);
	}
	refs = 0;
	nbd_handshake_init(&b->h, &directory);
	*state = b;
	return 0;
}

static inline int tear_down(void **state)
{
	struct bed *b = *state;

	nbd_handshake_free(&b->h);
	free(b);
	return refs; /* each reference was dropped */
}

/* What the client says. */

static inline void say(struct bed *b, const void *data, size_t len)
{
	memcpy(b->in + b->in_len, data, len);
	b->in_len += len;
}

static inline void say_u16(struct bed *b, uint16_t v)
{
	v = htobe16(v);
	say(b, &v, sizeof(v));
}

static inline void say_u32(struct bed *b, uint32_t v)
{
	v = htobe32(v);
	say(b, &v, sizeof(v));
}

static inline void say_string(struct bed *b, const char *s)
{
	say_u32(b, (uint32_t)strlen(s));
	say(b, s, strlen(s));
}

static inline void say_option(struct bed *b, uint32_t option, uint32_t len)
{
	uint64_t magic = htobe64(NBD_OPTION_MAGIC);

	say(b, &magic, sizeof(magic));
	say_u32(b, option);
	say_u32(b, len);
}

static inline void say_go(struct bed *b, uint32_t option, const char *name)
{
	say_option(b, option, (uint32_t)strlen(name) + 6);
	say_string(b, name);
	say_u16(b, 0);
}

static inline void say_context(struct bed *b, uint32_t option, const char *name, const char *query)
{
	say_option(b, option, (uint32_t)(8 + strlen(name) + (query ? 4 + strlen(query) : 0)));
	say_string(b, name);
	say_u32(b, query ? 1 : 0);
	if (query)
		say_string(b, query);
}

/* Feed until nothing is taken; @chunk bytes become visible at a time. */
static inline void feed(struct bed *b, size_t chunk)
{
	size_t at = 0, seen = 0;

	while (seen < b->in_len) {
		size_t n;

		seen = seen + chunk < b->in_len ? seen + chunk : b->in_len;
		while ((n = nbd_handshake_feed(&b->h, b->in + at, seen - at)))
			at += n;
	}
	memmove(b->in, b->in + at, b->in_len - at);
	b->in_len -= at;
}

/* What the server said. */

static inline void hear(struct bed *b, void *dst, size_t len)
{
	assert_true(b->h.out_len - b->h.out_sent >= len);
	memcpy(dst, b->h.out + b->h.out_sent, len);
	b->h.out_sent += len;
}

static inline size_t unheard(struct bed *b)
{
	return b->h.out_len - b->h.out_sent;
}

/* The next option reply must be of @type to @option; returns its data, NUL-terminated. */
static inline const uint8_t *expect(struct bed *b, uint32_t option, uint32_t type, uint32_t *len)
{
	static uint8_t data[65536];
	struct nbd_wire_option_reply r;

	hear(b, &r, sizeof(r));
	assert_true(be64toh(r.magic) == NBD_OPTREPLY_MAGIC);
	assert_int_equal(be32toh(r.option), option);
	assert_int_equal(be32toh(r.type), type);
	assert_true(be32toh(r.len) < sizeof(data));
	hear(b, data, be32toh(r.len));
	data[be32toh(r.len)] = 0;
	if (len)
		*len = be32toh(r.len);
	return data;
}

static inline void greet(struct bed *b, uint32_t flags)
{
	struct nbd_wire_greeting g;

	hear(b, &g, sizeof(g));
	say_u32(b, flags);
	feed(b, 4096);
}

static inline void greet_well(struct bed *b)
{
	greet(b, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	assert_int_equal(b->h.state, NBD_HANDSHAKE_OPTIONS);
}

static inline void agree_on_structured(struct bed *b)
{
	say_option(b, NBD_OPT_STRUCTURED_REPLY, 0);
	feed(b, 4096);
	expect(b, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL);
}

static inline uint16_t expect_go(struct bed *b, uint32_t option, uint64_t size)
{
	struct nbd_wire_info_export e;
	struct nbd_wire_info_block_size s;
	uint32_t len;

	memcpy(&e, expect(b, option, NBD_REP_INFO, &len), sizeof(e));
	assert_int_equal(len, sizeof(e));
	assert_int_equal(be16toh(e.type), NBD_INFO_EXPORT);
	assert_true(be64toh(e.size) == size);
	memcpy(&s, expect(b, option, NBD_REP_INFO, &len), sizeof(s));
	assert_int_equal(len, sizeof(s));
	assert_int_equal(be16toh(s.type), NBD_INFO_BLOCK_SIZE);
	assert_int_equal(be32toh(s.min), 1);
	assert_int_equal(be32toh(s.preferred), 65536);
	assert_int_equal(be32toh(s.max), 32 << 20);
	expect(b, option, NBD_REP_ACK, NULL);
	return be16toh(e.flags);
}

/* Refused, and a GO right behind is understood. */
static inline void expect_refusal(struct bed *b, uint32_t option, uint32_t error)
{
	say_go(b, NBD_OPT_GO, "one");
	feed(b, 4096);
	expect(b, option, error, NULL);
	expect_go(b, NBD_OPT_GO, 8192);
	assert_int_equal(b->h.state, NBD_HANDSHAKE_READY);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

#endif
