/* SPDX-License-Identifier: Apache-2.0 */
/* The worker process: NBD, store, fill, control. Started by the supervisor, which keeps what must
 * outlive it: the listening sockets and the roster of exports. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "base/config.h"

/* Inherited and open for the life of the process. */
struct worker_fds {
	int nbd_listen;	    /* AF_UNIX stream, listening */
	int control_listen; /* AF_UNIX stream, listening */
	int supervisor;	    /* SOCK_SEQPACKET; spoken through worker/privileged.h only */
	int exports_memfd;  /* read and written through worker/roster.h only */
	int crash_memfd;    /* the record of crashes (crash_record.h), in use since before */
	int secrets_memfd;  /* of worker/secrets.h, which closes it */
};

/* Serve until SIGTERM; returns the exit status. In this order: prepare what needs neither store nor
 * exports, privileged_begin(), reopen the exports of the roster, start NBD and take the devices'
 * connections, start control, then privileged_ready(). Upon SIGUSR1 let go of all of it for the
 * next worker, and end.
 * An exit with a status before the first ready ends cairnd; later it is a death like any other.
 * $CAIRN_WORKER_RESTARTS tells how many workers came before. */
int worker_main(const struct config *cfg, const struct worker_fds *fds);

#endif
