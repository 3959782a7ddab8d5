/* SPDX-License-Identifier: Apache-2.0 */
/* Images that somebody wants whole on this node: what the store lacks is fetched in order, behind
 * all that is read. */
#ifndef WORKER_WHOLE_H
#define WORKER_WHOLE_H

#include <stdbool.h>

#include "base/err.h"
#include "worker/exports.h"

struct volume;

/* Bring all of the image into the store, behind everything that is read, or no longer. -ENOSPC: the
 * store is smaller. */
int exports_fetch(struct exports *x, const char *key, bool on, struct export_info *out,
		  struct err *err);

/* By the promoter's thread, again and again; @tick: a second has passed, so that another round may
 * begin. True: there is more to do. */
bool whole_step(struct exports *x, struct volume *v, bool tick);

#endif
