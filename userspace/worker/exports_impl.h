/* SPDX-License-Identifier: Apache-2.0 */
/* The table of exports, as the worker starts and ends it. */
#ifndef WORKER_EXPORTS_IMPL_H
#define WORKER_EXPORTS_IMPL_H

#include <pthread.h>

#include "nbd/server.h"
#include "worker/exports.h"
#include "worker/opening.h"
#include "worker/roster.h"
#include "worker/volume.h"

struct exports {
	pthread_mutex_t lock; /* the table and the volumes' device and way */
	struct volume **volumes;
	size_t n, cap;
	const struct config *cfg;
	struct store *store;
	struct fill *fill;
	struct opener opener;
	struct latency latency;
	struct nbd_directory directory;
	struct nbd_server *server; /* set once it runs */
	struct view *view;	   /* the worker's; may be NULL */
	int roster_fd;
	uint64_t started_ns;
	char event_loop[16];
};

/* @roster_fd: where the table is kept for a successor, or -1. */
int exports_init(struct exports *x, const struct config *cfg, struct store *store,
		 struct fill *fill, int roster_fd, struct err *err);
void exports_reopen(struct exports *x); /* what the roster says */
void exports_fini(struct exports *x);	/* no reader is left */

#endif
