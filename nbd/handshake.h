/* SPDX-License-Identifier: Apache-2.0 */
/* The fixed newstyle handshake as a machine without I/O: bytes in, bytes out.
 *
 *	FLAGS -> OPTIONS -> READY	an export was chosen (GO or EXPORT_NAME)
 *	           |  `---> GOODBYE	ABORT was acknowledged: send `out`, then close
 *	           `------> BROKEN	no NBD client of ours, or one past the limits: close
 *
 * Unknown and malformed options are refused and framing is kept. Options of up to
 * NBD_OPTION_DATA_MAX bytes are looked at whole; longer ones, up to NBD_OPTION_SKIP_MAX, are
 *skipped and refused; beyond that the connection is broken.
 */
#ifndef NBD_HANDSHAKE_H
#define NBD_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nbd/export.h"

#define NBD_OPTION_DATA_MAX (32U << 10)
#define NBD_OPTION_SKIP_MAX (1U << 20)

enum nbd_handshake_state {
	NBD_HANDSHAKE_FLAGS,
	NBD_HANDSHAKE_OPTIONS,
	NBD_HANDSHAKE_READY,
	NBD_HANDSHAKE_GOODBYE,
	NBD_HANDSHAKE_BROKEN,
};

struct nbd_handshake {
	enum nbd_handshake_state state;
	struct nbd_directory *directory;
	const char *refusal; /* why no export may be had, or NULL; the caller's */
	bool no_zeroes;
	bool structured;
	bool no_contexts;		       /* grant none; set by the caller after init */
	bool context;			       /* base:allocation was chosen.. */
	char context_export[NBD_NAME_MAX + 1]; /* ..for the export of this name only */
	uint32_t skip;			       /* bytes of an oversized option still to come */
	uint32_t skip_option;
	struct nbd_export *export; /* referenced, once READY; taken by the caller */
	uint8_t *out;		   /* to be sent; the caller moves `out_sent` */
	size_t out_len, out_sent, out_cap;
};

/* Puts the greeting into h->out. */
void nbd_handshake_init(struct nbd_handshake *h, struct nbd_directory *d);

/* Drops h->export (if still there) and h->out. */
void nbd_handshake_free(struct nbd_handshake *h);

/* Takes at most one client flags field or option from @in, and returns how many bytes it took: 0
 * when more must come first (a buffer of 16 + NBD_OPTION_DATA_MAX bytes always suffices) or when
 * the machine ended. Bytes after the option that made it READY belong to transmission. */
size_t nbd_handshake_feed(struct nbd_handshake *h, const uint8_t *in, size_t len);

/* Transmission flags that this handshake leads to. */
uint16_t nbd_handshake_flags(const struct nbd_handshake *h);

#endif
