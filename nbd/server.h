/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD server: connections of a listening socket spread over data threads, each with a loop.
 * Protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
 */
#ifndef NBD_SERVER_H
#define NBD_SERVER_H

#include "base/err.h"
#include "base/histogram.h"
#include "base/loop.h"
#include "nbd/export.h"

struct nbd_server;

struct nbd_server_config {
	int listen_fd;	  /* AF_UNIX stream, listening; the caller's, made non-blocking */
	uint32_t threads; /* data threads, >= 1 */
	enum loop_kind loop_kind;
	uint32_t max_connections; /* more are refused in their handshake, with a text */
	uint64_t miss_memory;	  /* most bytes of reads waiting for a fill, over all connections;
				   * when reached, sockets are not read (one read always passes) */
	struct nbd_directory *directory;
	/* Of reads that were resident: from the turn in which a request came to when all of that
	 * turn's replies left. May be NULL. */
	struct histogram *resident_latency;
	/* Run by each data thread around its sleep (may be NULL): quiescent-state marks. Replies
	 * were sent before before_sleep; nothing that resident() said is used after it. */
	void (*before_sleep)(void *arg, uint32_t thread);
	void (*after_sleep)(void *arg, uint32_t thread);
	void *turn_arg;
	/* An adopted connection ended though its client did not say goodbye and its export goes on.
	 * May be NULL. On a data thread: do not wait. */
	void (*lost)(void *arg, const char *export_name);
	void *lost_arg;
};

int nbd_server_start(const struct nbd_server_config *cfg, struct nbd_server **out, struct err *err);

/* A connection that outlives this process: others hold its descriptors, too, and a successor that
 * adopts them goes on at the very byte where this one was killed (nbd/ledger.h). */
struct nbd_link {
	int fd;	    /* TCP over loopback, non-blocking */
	int ledger; /* of this connection, by ledger_new(); -1: none, and a successor can't go on */
	/* The client begins with a handshake, in which it may name @e's export only; afterwards,
	 * and when false, it sends requests. False: the kernel's, answered by simple replies. */
	bool handshake;
};

/* Serve @e on @link. A ledger with a past is taken up where it ended: what was received and not
 * answered is answered, and a reply that left in part is continued. Any thread; takes both
 * descriptors (the socket is shut down at its end, since others may hold it) and a reference of @e.
 * Not counted against max_connections. With a ledger, whoever served @link before must be gone:
 * waited for, or through nbd_server_release(). 0; -ENOMEM, or -EBADMSG when the ledger and the
 * socket do not agree or a handshake was interrupted, and then the connection is shut, too;
 * -ESHUTDOWN after nbd_server_release(). */
int nbd_server_adopt(struct nbd_server *s, const struct nbd_link *link, struct nbd_export *e);

uint32_t nbd_server_threads(const struct nbd_server *s);

/* Close the connections of exports marked closing. Any thread; returns before they are gone (their
 * references are dropped as they go). */
void nbd_server_sweep(struct nbd_server *s);

/* Let go of the links that have a ledger, for a successor. At once nothing more is received from
 * them; replies to what is in flight are sent for at most @ms milliseconds; then the descriptors
 * are closed and the sockets are not shut. What was not answered stands in the ledgers, and `lost`
 * is not called. Returns when no thread touches such a link any more: from then on, and not before,
 * a successor may adopt them. Adopting another one fails with -ESHUTDOWN and does not shut it. No
 * connection is accepted any more; those without a ledger go on until nbd_server_stop(), which
 * comes next (it may wait for the rest of the reads in flight, so tell the successor first). Any
 * thread but a data thread, once. */
void nbd_server_release(struct nbd_server *s, uint32_t ms);

/* Drop all connections, end the threads, free. Reads in flight are waited for. Links are shut,
 * those with a ledger too unless they were released. */
void nbd_server_stop(struct nbd_server *s);

/* Any thread. */
struct nbd_server_counters {
	uint64_t connections;	  /* open now, adopted ones too */
	uint64_t requests;	  /* since start, and so the others */
	uint64_t protocol_errors; /* requests refused, and connections that ended badly */
	uint64_t refused;	  /* over max_connections */
};
void nbd_server_count(struct nbd_server *s, struct nbd_server_counters *out);

#endif
