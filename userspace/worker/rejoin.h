/* SPDX-License-Identifier: Apache-2.0 */
/* A supervisor that died: the worker goes on serving, and gives the next one what it has of the one
 * before, on runtime_dir/supervisor.sock. It tries for as long as it lives. */
#ifndef WORKER_REJOIN_H
#define WORKER_REJOIN_H

#include "base/config.h"
#include "base/err.h"
#include "worker/worker.h"

struct rejoin;

/* A thread that sees the end of fds->supervisor, and puts another connection under that number.
 * Both arguments outlive it. */
int rejoin_start(const struct config *cfg, const struct worker_fds *fds, struct rejoin **out,
		 struct err *err);
void rejoin_stop(struct rejoin *r); /* NULL is nothing */

#endif
