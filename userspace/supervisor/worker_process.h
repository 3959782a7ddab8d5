/* SPDX-License-Identifier: Apache-2.0 */
/* Starting a worker: cairnd --worker, with what it inherits at fixed descriptors. */
#ifndef SUPERVISOR_WORKER_PROCESS_H
#define SUPERVISOR_WORKER_PROCESS_H

#include <sys/types.h>

#include "base/config.h"
#include "base/err.h"
#include "supervisor/worker_user.h"

struct worker_process {
	pid_t pid;
	int channel; /* our end of the SOCK_SEQPACKET pair */
};

struct worker_inheritance {
	int nbd_listen, control_listen, exports_memfd, crash_memfd;
	struct worker_user user;
	unsigned restarts;   /* told to the worker as $CAIRN_WORKER_RESTARTS */
	const char *program; /* NULL or "" = our own, also when its file was replaced */
};

int worker_spawn(const struct config *cfg, const struct worker_inheritance *in,
		 struct worker_process *out, struct err *err);

/* The other side of the exec; returns the exit status. */
int worker_enter(void);

#endif
