/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger of one connection that must outlive its server: a memfd that the server writes and
 * its successor reads. What it holds, and why a kill at any instruction leaves it exact, is told
 * where its layout is: include/ledger.h. */
#ifndef NBD_LEDGER_H
#define NBD_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "include/ledger.h"
#include "nbd/tcp_count.h"
#include "nbd/transmission.h"

/* A new, empty ledger: a memfd of fixed length, sealed against growing and shrinking,
 * close-on-exec. The caller's. A negative errno with a text. */
int ledger_new(struct err *err);

/* Its memory, or NULL: not such a memfd, or no memory. @fd stays the caller's. */
struct ledger *ledger_map(int fd);
void ledger_unmap(struct ledger *l);

/* The supervisor sent @n bytes of the first reply; the ledger has no writer yet. A negative errno.
 */
int ledger_set_ahead(int fd, uint32_t n);

struct ledger_line { /* slots, first in, first out */
	uint16_t slot[LEDGER_SLOTS];
	uint32_t at, n;
};

/* What its writer keeps beside it, made from it by ledger_begin() or ledger_take_up(). One thread.
 * No I/O: who calls moves the bytes. */
struct ledger_writer {
	struct ledger *l; /* not owned */
	struct nbd_terms terms;
	uint64_t received;	     /* bytes in the stream of requests */
	uint64_t requests;	     /* taken from it */
	uint64_t end;		     /* in the stream of replies, of the last one entered */
	struct ledger_line unserved; /* in order of arrival */
	struct ledger_line unsent;   /* replies entered, in order of the stream */
	uint16_t free[LEDGER_SLOTS];
	uint32_t nfree;
};

/* The reply that a predecessor did not finish. */
struct ledger_cut {
	bool is;
	struct nbd_request request;
	uint32_t error;
	uint64_t skip; /* bytes of the reply that left, less than its length */
};

/* The client begins its handshake: from here on until ledger_begin() nobody can go on. */
void ledger_begin_handshake(struct ledger *l);

/* Requests and replies begin, at these values of the socket's counters, what was sent ahead
 * counted. Of the requests @n bytes at @in were received already. -EBADMSG: more than the ring
 * holds, or counters and bytes sent ahead do not agree. */
int ledger_begin(struct ledger_writer *w, struct ledger *l, const struct nbd_terms *terms,
		 const struct tcp_count *base, const uint8_t *in, size_t n);

/* Go on where a predecessor, which is gone, was interrupted: @now is what the socket counts, @size
 * the export's length. Trusts nothing that stands in @l. Requests that are not answered become
 * unserved, in order of arrival. May be interrupted and called again. -EBADMSG when ledger and
 * counters do not agree or it is of another version; nothing was changed then. */
int ledger_take_up(struct ledger_writer *w, struct ledger *l, const struct tcp_count *now,
		   uint64_t size, struct ledger_cut *cut);

/* Bytes in the stream of replies that left, right after ledger_take_up(); after ledger_begin() it
 * is ledger_ahead(). */
uint64_t ledger_sent(const struct ledger_writer *w, const struct ledger_cut *cut);

/* Where to receive, and how much; 0: the ring is full. Then ledger_received(). */
size_t ledger_room(struct ledger_writer *w, uint8_t **at);
void ledger_received(struct ledger_writer *w, size_t n);

/* The oldest request that is not served: the same one until ledger_served(). r->slot is its place.
 * -EAGAIN: receive more; -ENOBUFS: all slots wait for replies to leave; -EPROTO: framing is lost.
 */
int ledger_next(struct ledger_writer *w, struct nbd_request *r);
void ledger_served(struct ledger_writer *w);

/* The next bytes in the stream of replies are the reply to @r with @error; before any is sent. */
void ledger_answer(struct ledger_writer *w, const struct nbd_request *r, uint32_t error);

/* Bytes of the next reply that left before it is entered: 0 but for the first one. */
uint32_t ledger_ahead(const struct ledger_writer *w);

/* @sent bytes of the stream of replies have left. */
void ledger_settle(struct ledger_writer *w, uint64_t sent);

#endif
