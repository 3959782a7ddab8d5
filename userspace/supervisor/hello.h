/* SPDX-License-Identifier: Apache-2.0 */
/* A worker that outlived its supervisor finds the next one, and gives back what it has. */
#ifndef SUPERVISOR_HELLO_H
#define SUPERVISOR_HELLO_H

#include "base/err.h"
#include "supervisor/inherited.h"

/* Listens on runtime_dir/supervisor.sock until @before's worker has said HELLO and sent its links
 * there. It is known by pid and start; from anyone else, and of descriptors that @before does not
 * name, nothing is taken. *channel is the caller's. -ETIMEDOUT after @ms. */
int hello_wait(const char *runtime_dir, const struct state *before, int ms, struct inherited *in,
	       int *channel, struct err *err);

#endif
