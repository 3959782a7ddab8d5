/* SPDX-License-Identifier: Apache-2.0 */
/* The transmission phase as pure functions: parse and judge a request, encode replies. No I/O. */
#ifndef NBD_TRANSMISSION_H
#define NBD_TRANSMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nbd/export.h"
#include "nbd/protocol.h"

#define NBD_STATUS_RUNS_MAX 512 /* ranges in one block-status reply */

/* Room that any reply but a read's data fits in. */
#define NBD_REPLY_MAX (sizeof(struct nbd_wire_chunk) + 4 + NBD_STATUS_RUNS_MAX * 8)

/* Room for the header of a read's data, simple or structured. */
#define NBD_READ_HEADER_MAX (sizeof(struct nbd_wire_chunk) + 8)

struct nbd_request {
	uint16_t flags, type;
	uint16_t slot;	 /* its place in the ledger of a connection that has one (nbd/ledger.h) */
	uint64_t cookie; /* as it came */
	uint64_t off;
	uint32_t len;
};

/* What a connection agreed on. */
struct nbd_terms {
	bool structured;
	bool context; /* base:allocation */
};

/* 0; -EPROTO when the magic is wrong: framing is lost and nothing more can be said. */
int nbd_request_parse(const uint8_t in[sizeof(struct nbd_wire_request)], struct nbd_request *out);

/* Bytes of payload that follow the request: a write's, to be thrown away. */
uint32_t nbd_request_payload(const struct nbd_request *r);

/* NBD_OK, or the error that the protocol names for such a request to an export of @size bytes. */
uint32_t nbd_request_check(const struct nbd_request *r, const struct nbd_terms *t, uint64_t size);

/* The wire's error for a negative errno. */
uint32_t nbd_error_of(int rc);

/* Encoders: write at @out, return the length written. */

/* The header of a successful read's data, which must follow whole. */
size_t nbd_put_read_header(uint8_t *out, const struct nbd_request *r, const struct nbd_terms *t);

/* The whole reply to a request that failed (@error != NBD_OK) or has nothing to return. */
size_t nbd_put_plain(uint8_t *out, const struct nbd_request *r, const struct nbd_terms *t,
		     uint32_t error);

/* The length of the whole reply that begins with what one of these two put, a read's data included.
 */
uint64_t nbd_reply_len(const struct nbd_request *r, const struct nbd_terms *t, uint32_t error);

/* A block-status reply of @n >= 1 runs, n <= NBD_STATUS_RUNS_MAX. */
size_t nbd_put_status(uint8_t *out, const struct nbd_request *r, const struct nbd_extent *runs,
		      int n);

/* Make what an export said lawful: no empty runs, at most @r->len bytes, neighbours of the same
 * kind as one, and one run only where REQ_ONE asks for it. Returns the runs left (0: it said
 * nothing). */
int nbd_status_trim(const struct nbd_request *r, struct nbd_extent *runs, int n);

#endif
