/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger of one connection: what the successor of a killed server must know to go on at the
 * very byte. Shared memory that only the connection's thread writes. Two processes of different
 * versions may meet over it: whoever reads it takes version N and N-1, and writes on in the one it
 * found.
 *
 * The stream of requests is counted in bytes from its first one, `base_received`; requests are all
 * of one length, so the n-th begins at 28 n, and at 28 n modulo the ring's length in the ring, into
 * which bytes are received straight from the socket. The stream of replies is counted from
 * `base_sent`. How much of either was taken from and put into the socket is not written here: it
 * would lag behind a kill. The socket's own counters say it.
 *
 * All simple replies begin with the same four bytes. A supervisor may send them before there is a
 * request, to see that the other end reads (nbd/attach/kernel_reader.h), and notes them in `ahead`
 * before the ledger has a writer. They belong to the stream of replies, at its begin.
 *
 * A request: ring -> a slot (seq, then `requests` is moved on) -> its reply's place in the stream
 * is written to the slot (`start`), before the first byte of it is sent -> known to have left
 * whole: `settled` is moved on, then the slot is free. A reply is a function of its slot, of the
 * terms and of the image, so it can be made again from any byte. Each of these steps is one store,
 * in this order, so that a kill between two instructions leaves one of the states that
 * ledger_take_up() (nbd/ledger.h) knows.
 */
#ifndef CAIRN_LEDGER_H
#define CAIRN_LEDGER_H

#include <stdint.h>

#define LEDGER_MAGIC   0x315244474c4e5243ULL /* "CRNLGDR1" */
#define LEDGER_VERSION 1u
#define LEDGER_OLDEST  1u
#define LEDGER_LEN     (64u << 10) /* of the memory; what lies behind the struct is zeros */

#define LEDGER_SLOTS	     256u /* requests not answered whole; twice what the kernel has in flight */
#define LEDGER_REQUEST_LEN   28u
#define LEDGER_RING_REQUESTS 585u
#define LEDGER_RING_LEN	     (LEDGER_RING_REQUESTS * LEDGER_REQUEST_LEN) /* no request wraps */

#define LEDGER_UNANSWERED UINT64_MAX
#define LEDGER_AHEAD_MAX  4u

enum ledger_phase {
	LEDGER_NEW,	  /* all zeros: nothing was received or sent */
	LEDGER_HANDSHAKE, /* begun; nobody can go on from here */
	LEDGER_TRANSMISSION,
};

struct ledger_slot {
	uint64_t seq;	 /* 1 + the request's number; 0 = free */
	uint64_t cookie; /* as it came */
	uint64_t off;
	uint32_t len;
	uint16_t type, flags;
	uint64_t start; /* of its reply in the stream of replies, or LEDGER_UNANSWERED */
	uint32_t error; /* of the reply, as on the wire; good when `start` is */
	uint32_t reserved;
};

struct ledger {
	uint64_t magic;
	uint32_t version;
	uint32_t phase;
	uint32_t structured; /* replies, as agreed on: 0 or 1 */
	uint32_t ahead;	     /* bytes of the first reply that were sent before it was asked for */
	uint64_t base_received, base_sent; /* the socket's counters where the streams begin */
	uint64_t requests;		   /* taken from the ring into slots */
	uint64_t settled;		   /* bytes of replies that left and whose slots are free */
	struct ledger_slot slots[LEDGER_SLOTS];
	uint8_t ring[LEDGER_RING_LEN];
};

_Static_assert(sizeof(struct ledger_slot) == 48, "a format that processes share");
_Static_assert(sizeof(struct ledger) <= LEDGER_LEN, "a format that processes share");

#endif
