/* SPDX-License-Identifier: Apache-2.0 */
/* A read of a volume that can't be answered at once: from a cold page of the store's file, on the
 * ring of its data thread, or by fills, which end on threads of theirs. */
#ifndef WORKER_VOLUME_READ_H
#define WORKER_VOLUME_READ_H

#include "worker/volume.h"

enum volume_read_way {
	VOLUME_READ_REFUSED, /* it killed two workers */
	VOLUME_READ_COLD,    /* all of it is in the store */
	VOLUME_READ_FILLED,
};

/* On @l's thread, where nbd->done() is called in a later turn: 0, -EIO or what the fill says;
 * -EAGAIN: ask again (the deadline passed, and the volume waits); -ESHUTDOWN. Holds the volume
 * until then. */
enum volume_read_way volume_read_start(struct volume *v, struct nbd_read *nbd, struct loop *l);

#endif
