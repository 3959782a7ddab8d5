/* SPDX-License-Identifier: Apache-2.0 */
/* One NBD connection, the turn it takes on its thread's loop, and what it needs of that thread.
 * Internal to nbd/; all but what says otherwise runs on the thread that owns the connection.
 *
 * A turn goes on until something pauses it (enum nbd_pause):
 *
 *	receive what is there -> parse each request -> answer from the store into `out`, or send
 *	header and file range, or start a miss -> send `out` once
 *
 * Memory: a connection holds buffers only while bytes are in them (one set is shared by all idle
 * connections of a thread, and stays in the CPU's cache); misses hold what the budget gave. A
 * client that does not read its replies stops being parsed.
 *
 * A closed connection stays in memory until its reads in flight are done and its place in the
 * budget's line is given up.
 */
#ifndef NBD_CONNECTION_H
#define NBD_CONNECTION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "nbd/budget.h"
#include "nbd/handshake.h"
#include "nbd/link.h"
#include "nbd/server.h"
#include "nbd/transmission.h"

#define NBD_IN_LEN  (64U << 10)
#define NBD_OUT_LEN (192U << 10) /* 32 reads of 4 KiB go in one send */

#define NBD_AHEAD_LEN	(64U << 10) /* so much is sent before the batch is answered */
#define NBD_ALONE_TURNS 16U	    /* of one connection, until it counts as the only one */
#define NBD_CROWD_TURNS 64U	    /* between two looks at how often the thread is preempted */

/* Reads below this are copied into `out` and sent together; from here on the file is sent from. At
 * QD16 on AF_UNIX copying costs 4.4 us against 7.0 at 16 KiB, and as much as sendfile at 32 KiB. */
#define NBD_SMALL_LEN (32U << 10)

/* Room in `out` before a request is looked at: any small reply fits. */
#define NBD_OUT_ROOM (NBD_SMALL_LEN + NBD_REPLY_MAX)

#define NBD_IN_FLIGHT_MAX 1024U /* misses of one connection */

/* A connection's share of a turn; the others go next. */
#define NBD_TURN_REQUESTS 256U
#define NBD_TURN_BYTES	  (8U << 20)

/* Beside its data a miss takes a flight, what asks for it and what answers: about so much. */
#define NBD_MISS_OVERHEAD 4096U

#define NBD_LOOK_LEN (256U << 10) /* of a reply that goes on: about what a socket takes at once */

#define NBD_MISS_ALIGN ((size_t)4096) /* of the memory of a miss */

#define NBD_REFETCH_LEN (1U << 20) /* bytes brought in at a time when a reply lost its store */

#define NBD_REFUSAL	 "too many connections; raise [nbd] max_connections, or close some"
#define NBD_HANDSHAKE_MS 10000U
#define NBD_STALL_MS                                                                               \
	1000U /* a client reads nothing, holds misses' memory, and others wait for it */

struct nbd_buffers {
	struct nbd_buffers *next; /* among the thread's spare ones */
	uint8_t in[NBD_IN_LEN];
	uint8_t out[NBD_OUT_LEN];
};

/* Memory of misses that ended, for the next ones: malloc maps 1 MiB anew each time, and page faults
 * were 7 % of the CPU of reads from the origin. */
#define NBD_KEPT     4U
#define NBD_KEPT_MIN ((size_t)1 << 20) /* less comes from the heap */
#define NBD_KEPT_MAX ((size_t)2 << 20)

struct nbd_memory {
	uint8_t *p; /* NULL: none */
	size_t len;
};

struct nbd_thread {
	struct nbd_server *server;
	struct nbd_budget *budget;	    /* the server's */
	struct histogram *resident_latency; /* the server's owner's; may be NULL */
	struct loop *loop;
	uint32_t idx;
	_Atomic uint32_t open; /* connections, and those on their way here */
	LIST_HEAD(nbd_connections, nbd_connection)
	connections; /* closed ones that still wait for reads, too */
	TAILQ_HEAD(nbd_runnable, nbd_connection) runnable;
	struct nbd_buffers *spare;
	uint32_t spare_count;
	struct nbd_memory kept[NBD_KEPT];
	uint32_t kept_next;
	const struct nbd_connection *latest; /* whose turn it was; may be gone */
	uint32_t in_a_row;		     /* turns of it since another's */
	uint32_t turns;
	long preempted;	 /* times, ever */
	bool is_crowded; /* it shares its CPU with those whom it serves */
	bool stopping;
	bool releasing; /* links with a ledger are let go of when nothing of them is under way */
	_Atomic uint64_t requests, protocol_errors; /* written by the thread alone */
};

struct nbd_miss {	      /* one ops->read */
	struct nbd_read read; /* dst is `data` */
	struct nbd_connection *c;
	struct nbd_request request;
	TAILQ_ENTRY(nbd_miss) line;
	bool is_refetch; /* of the body that is being sent */
	bool asked;	 /* whether it became resident */
	int rc;
	uint8_t *data; /* NULL once let go: the store has it */
};

TAILQ_HEAD(nbd_miss_line, nbd_miss);

enum nbd_pause {
	NBD_GO_ON,
	NBD_PAUSE_SHARE,  /* others first */
	NBD_PAUSE_INPUT,  /* until the client sends */
	NBD_PAUSE_OUTPUT, /* until the client reads */
	NBD_PAUSE_READS,  /* until a read is done or memory is granted */
	NBD_PAUSE_END,	  /* close */
};

/* The data of one read, sent after `out`, which ends in its header. */
struct nbd_body {
	enum { NBD_BODY_NONE, NBD_BODY_FILE, NBD_BODY_REFETCH, NBD_BODY_MEMORY } kind;
	uint64_t off;	       /* in the export, of the next byte */
	uint32_t left;	       /* to send */
	struct nbd_miss *miss; /* MEMORY */
	bool looked;	       /* FILE: all of it was in the page cache a moment ago */
	uint64_t asked_off;    /* of the request */
	uint32_t asked_len;
};

/* A client that sends one request at a time and is quick is waited for awake: going to sleep and
 * being woken costs either side more than its answer takes to be asked for. A wait in vain costs
 * credit; without credit one turn in NBD_SPIN_TRY tries again. */
#define NBD_SPIN_NS	(20 * 1000ULL)
#define NBD_SPIN_CREDIT 8U
#define NBD_SPIN_TRY	128U
#define NBD_SPIN_TURNS	8U /* in a row */

struct nbd_spin {
	uint32_t credit, turns;
};

struct nbd_connection {
	struct nbd_thread *thread;
	int fd;
	struct loop_watch *watch;
	struct loop_timer timer; /* the handshake's deadline; later, a stalled client's look */
	struct loop_post post;	 /* its way to the thread; later, a grant's */
	LIST_ENTRY(nbd_connection) all;
	TAILQ_ENTRY(nbd_connection) turn;
	bool is_runnable;
	bool readable;	/* the socket may hold bytes */
	bool is_ending; /* DISC or end of file: answer what is under way, then close */
	bool closed;
	bool is_link;			      /* by nbd_server_adopt */
	bool let_go;			      /* its socket goes on in another process */
	bool said_goodbye;		      /* DISC */
	bool is_refused;		      /* over the limit: told so in its handshake */
	struct nbd_link_ledger *ledger;	      /* NULL: none, or closed */
	struct nbd_link_directory *directory; /* of a link's handshake; NULL: the thread's */
	struct nbd_handshake *handshake;      /* NULL once transmission began */
	struct nbd_terms terms;
	struct nbd_export *export;
	struct nbd_buffers *buffers; /* NULL while no byte is held */
	uint32_t in_at, in_len, out_at, out_len;
	bool sent_ahead; /* of this batch */
	uint32_t skip;	 /* bytes of a refused write's payload to come */
	struct nbd_request skipped;
	struct nbd_body body;
	uint32_t in_flight;
	struct nbd_miss_line done;  /* hold data, are to be answered */
	struct nbd_miss_line again; /* let go of their data: read them from the store */
	uint32_t served;	    /* reads answered from the store in this turn */
	uint32_t taken;		    /* requests of the last turn */
	struct nbd_spin spin;
	bool waiting; /* in the budget's line, or its grant is on the way */
	struct nbd_budget_wait wait;
	uint64_t grant; /* bytes given by the budget and not used yet */
	uint64_t sent;	/* bytes of replies, ever; with a ledger, by any process */
};

/* connection.c */

/* A connection that owns @fd (non-blocking), not yet on a thread; NULL without memory. Any thread.
 */
struct nbd_connection *nbd_connection_new(int fd);

/* Begin on @t, by whose loop this is called. */
void nbd_connection_start(struct nbd_connection *c, struct nbd_thread *t);

/* Hang up at once. @c may be gone afterwards. */
void nbd_connection_close(struct nbd_connection *c);

/* Free a closed connection that nothing waits for any more. */
void nbd_connection_reap(struct nbd_connection *c);

/* Have it take a turn at the end of the loop's. */
void nbd_connection_wake(struct nbd_connection *c);

void nbd_count_protocol_error(struct nbd_thread *t);

/* Take a turn. @c may be gone afterwards. */
void nbd_connection_run(struct nbd_connection *c);

/* Send `out`, then, in the same call, @len bytes at @body (len may be 0). Moves on what was sent of
 * either; GO_ON when `out` is empty and *body_sent says how much of the body left. */
enum nbd_pause nbd_connection_send(struct nbd_connection *c, const void *body, size_t len,
				   int flags, size_t *body_sent);

enum nbd_pause nbd_connection_flush(struct nbd_connection *c);

/* What a recv() that gave @n <= 0 means. */
enum nbd_pause nbd_receive_ended(struct nbd_connection *c, ssize_t n);

/* NBD_OUT_ROOM bytes in `out`. */
enum nbd_pause nbd_connection_make_room(struct nbd_connection *c);

/* @n bytes were put at the end of `out`: the reply to @r, or the begin of it, with @error. None of
 * them was sent yet. */
void nbd_reply_enter(struct nbd_connection *c, const struct nbd_request *r, size_t n,
		     uint32_t error);

/* A whole reply without data. */
void nbd_reply_plain(struct nbd_connection *c, const struct nbd_request *r, uint32_t error);

/* read.c */

/* Answer a lawful READ. GO_ON: it is answered, is the body, or is a miss in flight. @first is false
 * when the owner of the export has already been told of it. */
enum nbd_pause nbd_read_serve(struct nbd_connection *c, const struct nbd_request *r, bool first);

/* Send on with the body. */
enum nbd_pause nbd_body_send(struct nbd_connection *c);

/* Answer the first of c->done, or serve the first of c->again. */
enum nbd_pause nbd_miss_answer(struct nbd_connection *c);

/* The client does not read: let go of data that the store has by now. True if some is still held.
 */
bool nbd_misses_let_go(struct nbd_connection *c);

/* Let go of all data, to be read again when the client reads. */
void nbd_misses_let_go_all(struct nbd_connection *c);

void nbd_miss_free(struct nbd_miss *m);
void nbd_kept_free(struct nbd_thread *t); /* at its end */
void nbd_misses_drop(struct nbd_connection *c);

/* Set up c's place in the budget's line; give back a grant that was not needed. */
void nbd_grant_init(struct nbd_connection *c);
void nbd_grant_return(struct nbd_connection *c);

/* server.c */
void nbd_thread_ended_one(struct nbd_thread *t); /* a connection was freed */
/* @c hung up. */
void nbd_thread_closed_one(struct nbd_thread *t, const struct nbd_connection *c);
struct nbd_directory *nbd_thread_directory(struct nbd_thread *t);

#endif
