/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD handshake, fed whole and in pieces: both must end in the same state with the same words,
 * from every state, and no reference may be lost. */
#include <stdatomic.h>

#include "fuzz.h"
#include "nbd/handshake.h"
#include "nbd/protocol.h"

static struct nbd_export exports[2];
static int refs;

static struct nbd_export *export_ref(struct nbd_export *e)
{
	refs++;
	return e;
}

static void export_unref(struct nbd_export *e)
{
	(void)e;
	refs--;
}

static const struct nbd_export_ops ops = {.ref = export_ref, .unref = export_unref};

static struct nbd_export *find(struct nbd_directory *d, const char *name)
{
	(void)d;
	must(strlen(name) <= NBD_NAME_MAX);
	for (int i = 0; i < 2; i++)
		if (strcmp(name, exports[i].name) == 0 || (!*name && i == 0))
			return export_ref(&exports[i]);
	return NULL;
}

static void list(struct nbd_directory *d, bool (*fn)(void *, const char *, const char *), void *arg)
{
	(void)d;
	for (int i = 0; i < 2; i++)
		if (!fn(arg, exports[i].name, exports[i].description))
			return;
}

static struct nbd_directory directory = {find, list};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	for (int i = 0; i < 2; i++) {
		exports[i].ops = &ops;
		exports[i].size = 8192 * (uint64_t)(i + 1);
		strcpy(exports[i].name, i ? "two" : "one");
		strcpy(exports[i].description, i ? "the second" : "the first");
	}
	return 0;
}

/* Feed @len bytes, the first @step visible at once, then @step more; what was taken. Each piece is
 * a copy of its own size, so that reading past it is seen. */
static size_t feed(struct nbd_handshake *h, const uint8_t *data, size_t len, size_t step)
{
	size_t at = 0, seen = 0, n;

	while (seen < len) {
		seen = len - seen < step ? len : seen + step;
		do {
			uint8_t *piece = malloc(seen - at + !(seen - at));

			must(piece);
			memcpy(piece, data + at, seen - at);
			n = nbd_handshake_feed(h, piece, seen - at);
			must(n <= seen - at);
			free(piece);
			at += n;
		} while (n);
		/* what must come first always fits */
		must(h->state >= NBD_HANDSHAKE_READY ||
		     seen - at < sizeof(struct nbd_wire_option) + NBD_OPTION_DATA_MAX);
	}
	return at;
}

static void both_say_the_same(const struct nbd_handshake *a, const struct nbd_handshake *b)
{
	must(a->state == b->state);
	must(a->export == b->export);
	must((a->state == NBD_HANDSHAKE_READY) == (a->export != NULL));
	must(a->structured == b->structured && a->context == b->context);
	must(a->no_zeroes == b->no_zeroes);
	must(nbd_handshake_flags(a) == nbd_handshake_flags(b));
	must(a->out_len == b->out_len && memcmp(a->out, b->out, a->out_len) == 0);
	must(a->out_len <= a->out_cap);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	size_t step = 1 + take_number(&in, 1);
	struct nbd_handshake whole, pieces;
	size_t took;

	if (in.left > 2048 && step < 16)
		step = 16; /* byte by byte a long one copies too much */
	nbd_handshake_init(&whole, &directory);
	nbd_handshake_init(&pieces, &directory);
	took = feed(&whole, in.at, in.left, in.left + 1);
	must(feed(&pieces, in.at, in.left, step) == took);
	both_say_the_same(&whole, &pieces);
	nbd_handshake_free(&whole);
	nbd_handshake_free(&pieces);
	must(refs == 0);
	return 0;
}
