/* SPDX-License-Identifier: Apache-2.0 */
/* The devices that stand, by export name. One thread. */
#ifndef SUPERVISOR_DEVICES_H
#define SUPERVISOR_DEVICES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "nbd/attach.h"

struct devices {
	struct attach_env env;
	struct attachment *list;
	size_t n;
};

/* A device on the export: the one that stands, a dead one brought back, or a new one. *out is valid
 * until the next call. */
int devices_attach(struct devices *d, const char *name, const char *way,
		   const struct attachment **out, struct err *err);
int devices_detach(struct devices *d, const char *name, bool force, struct err *err);

/* The worker's connections are gone: reads of every device fail until devices_revive(). */
void devices_worker_died(struct devices *d);

/* Bring the dead ones back; what cannot be brought back stays dead and is logged. */
void devices_revive(struct devices *d);

/* A child that is no worker ended. */
void devices_child_died(struct devices *d, pid_t pid);

/* At stop. What is mounted is taken away under its users, with a warning. */
void devices_detach_all(struct devices *d);

#endif
