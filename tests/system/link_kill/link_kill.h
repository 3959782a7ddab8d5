/* SPDX-License-Identifier: Apache-2.0 */
/* A server of one link that is killed again and again, and a client that compares what it reads.
 * The parent holds the link as a supervisor does; server and client are processes of their own. */
#ifndef LINK_KILL_H
#define LINK_KILL_H

#include <stdbool.h>
#include <stdint.h>

#include "nbd/server.h"

#define IMAGE_LEN     (16U << 20)
#define WINDOW	      8u	   /* requests in flight */
#define READ_MAX      (256U << 10) /* bytes */
#define SOCKET_BUFFER (200 << 10)  /* small, so that replies leave in parts */

struct tally { /* shared by all */
	_Atomic uint64_t reads, wrong, failed;
	_Atomic uint64_t longest_ns; /* that a read took */
	_Atomic bool ready;	     /* the client's handshake, if it has one, is over */
	_Atomic bool stop;
};

extern struct tally *tally;
extern const uint8_t *image;
extern int image_fd;

struct rnd {
	uint64_t s;
};

static inline uint64_t rnd_next(struct rnd *r)
{
	r->s ^= r->s << 13;
	r->s ^= r->s >> 7;
	return r->s ^= r->s << 17;
}

static inline uint32_t rnd_below(struct rnd *r, uint32_t n)
{
	return (uint32_t)((rnd_next(r) >> 16) % n);
}

/* A length of every size class of the server's, and where. */
static inline uint32_t rnd_range(struct rnd *r, uint64_t *off)
{
	static const uint32_t max[] = {600, 4096, 4096, 20000, 64 << 10, READ_MAX};
	uint32_t len = 1 + rnd_below(r, max[rnd_below(r, 6)]);

	*off = rnd_below(r, IMAGE_LEN - len);
	return len;
}

void die(const char *what) __attribute__((noreturn));

/* In a child: serve @link until killed. Exits with 3 when the link is refused. */
void server_run(const struct nbd_link *link) __attribute__((noreturn));

/* In a child: read until tally->stop, then say goodbye. Exit status 0 unless a read failed, was
 * wrong or the connection ended. */
void client_run_simple(int fd) __attribute__((noreturn));
void client_run_libnbd(int fd) __attribute__((noreturn));
/* The kernel's, of the device @path that nobody uses; four readers. */
void client_run_device(int fd, const char *path) __attribute__((noreturn));

#endif
