/* SPDX-License-Identifier: Apache-2.0 */
/* A server of one NBD connection that may be killed at any instruction and whose successor goes on
 * with the same connected socket: the prototype of the hand-over.
 *
 * What must outlive it is in a ledger, shared memory that the parent holds with the socket.
 * Requests are received straight into the ledger; a reply is entered in its log before its first
 * byte is sent. Then two numbers tell a successor everything: how many bytes were taken from the
 * socket, and how many were put into it. Over TCP the kernel keeps both. Over AF_UNIX it keeps
 * neither: what was taken shows in the ledger (free room is zeros, a request starts with its
 * magic), what was put is only what the last server wrote down after each call.
 */
#ifndef HANDOVER_SERVER_H
#define HANDOVER_SERVER_H

#include <linux/nbd.h>
#include <stdbool.h>
#include <stdint.h>

#define REQUEST_LEN 28 /* of the wire, unlike sizeof on some machines */
#define REPLY_LEN   16
#define RING_LEN    1024 /* requests; more are not received until the oldest is answered */
#define LOG_LEN	    (4 * RING_LEN) /* replies; all that are younger than a request in the ring */
#define IMAGE_LEN   (64U << 20)

struct log_entry {
	uint64_t request; /* number, counted from 0 in the order of arrival */
	uint64_t start;	  /* where in the stream of replies it begins */
	uint64_t off;
	uint32_t len; /* of the data */
	struct nbd_reply reply;
};

struct ledger {
	uint64_t received; /* bytes, as far as the server got to write it down */
	uint64_t sent;
	uint64_t logged; /* replies; the log is good up to here */
	struct log_entry log[LOG_LEN];
	uint8_t ring[RING_LEN * REQUEST_LEN];
};

/* What the kernel's counters say of a socket. */
struct counters {
	uint64_t received; /* bytes read from it */
	uint64_t sent;	   /* bytes put into it */
};

struct server {
	int sock;
	bool tcp;
	bool shuffle;	       /* answer in another order than asked */
	uint32_t sendfile_min; /* bytes; smaller data is copied */
	struct counters base;  /* when the ledger was empty */
	struct ledger *ledger;
	const uint8_t *image;
	int image_fd;
};

/* What a successor found. */
struct inheritance {
	uint64_t received, sent;
	bool lag_received, lag_sent; /* the ledger alone would have been wrong */
	bool mid_reply;		     /* the last one stopped inside of a reply */
};

void counters_read(int sock, struct counters *out);

/* Two ends of a connection, both of the same kind as NBD uses it. */
void connection_make(bool tcp, int out[2]);

void server_inherit(const struct server *s, struct inheritance *out);

/* Answers until the other end closes. */
void server_run(const struct server *s, const struct inheritance *in);

/* The word at @off of the image, a multiple of 8. */
static inline uint64_t image_word(uint64_t off)
{
	return (off / 8 + 1) * 0x9e3779b97f4a7c15ULL;
}

/* A memfd of IMAGE_LEN with its words, mapped. */
const uint8_t *image_make(int *fd);

void die(const char *what) __attribute__((noreturn));

#endif
