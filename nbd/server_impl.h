/* SPDX-License-Identifier: Apache-2.0 */
/* What nbd/server.c (threads, accepting) and nbd/adopt.c (links) share. */
#ifndef NBD_SERVER_IMPL_H
#define NBD_SERVER_IMPL_H

#include <semaphore.h>

#include "nbd/connection.h"

struct data_thread {
	struct nbd_thread nbd; /* first: what connections know of it */
	pthread_t pthread;
	bool started;
	struct loop_post go_on; /* a turn without sleep, for connections that used their share */
	bool go_on_posted;
	struct loop_post sweep;
	atomic_bool sweep_posted;
	struct loop_post stop;
	struct loop_post release;
	struct loop_timer release_end;
	bool released;
	struct err err; /* of the start */
};

struct nbd_server {
	struct nbd_server_config cfg;
	struct nbd_budget budget;
	struct data_thread **threads;
	sem_t ready; /* a thread started, failed to or let go of its links; the acceptor ended */
	struct loop_watch *listener;
	struct loop_timer accept_pause;
	struct loop_post accept_stop;
	pthread_mutex_t adopting; /* the next, and so the order of links and a release's begin */
	bool releasing;
	uint64_t release_end_ns;
	_Atomic uint32_t open; /* accepted */
	_Atomic uint32_t adopted;
	_Atomic uint32_t refusing; /* being told that there are too many */
	bool accepts;		   /* false while descriptors are short */
	_Atomic uint64_t refused;
};

/* server.c */

/* Give @c to the thread with the fewest. Any thread. */
void server_place(struct nbd_server *s, struct nbd_connection *c);
void server_wait_ready(struct nbd_server *s);
void server_stop_accepting(struct nbd_server *s); /* for good */

/* adopt.c */

void server_thread_release_init(struct data_thread *t);

/* On @t while it lets go of links: tell who waits once none is left. */
void server_look_for_links(struct data_thread *t);

#endif
