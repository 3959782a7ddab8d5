/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that are no children of this supervisor, because the one before started them: their end
 * is seen by a pidfd. One thread. */
#ifndef SUPERVISOR_WATCH_H
#define SUPERVISOR_WATCH_H

#include "base/process.h"

struct watch {
	int epoll; /* polls readable when one ended */
};

/* 0 or a negative errno. */
int watch_open(struct watch *w);
void watch_close(struct watch *w);

/* -ESRCH: it has ended already. */
int watch_add(struct watch *w, const struct process *p);

/* One that ended, or 0. */
pid_t watch_next(struct watch *w);

#endif
