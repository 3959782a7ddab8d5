/* SPDX-License-Identifier: Apache-2.0 */
/* A second hold on the connections of devices, for the supervisor that may have to be told of them
 * (worker/rejoin.h). One set a process; any thread. */
#ifndef WORKER_LINKS_KEPT_H
#define WORKER_LINKS_KEPT_H

#include <stddef.h>

#include "nbd/export.h"
#include "worker/privileged.h"

struct link_kept {
	char name[NBD_NAME_MAX + 1]; /* of the export */
	int fd, ledger;
};

/* Duplicates of @l's; kept until their other end is gone. */
void links_keep(const char *name, const struct privileged_links *l);

/* All of them, those of one name together. Nothing is added until they are released. */
const struct link_kept *links_kept_hold(size_t *n);
void links_kept_release(void);

#endif
