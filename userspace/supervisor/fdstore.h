/* SPDX-License-Identifier: Apache-2.0 */
/* systemd's store of descriptors: what lies there outlives every process of the unit
 * (FileDescriptorStoreMax=). One thread. */
#ifndef SUPERVISOR_FDSTORE_H
#define SUPERVISOR_FDSTORE_H

#include <stddef.h>

#include "supervisor/inherited.h"

struct fdstore {
	bool on;	      /* systemd started us */
	struct file_id *list; /* what lies there, sorted */
	size_t n;
};

/* What systemd gave us of it goes to @in. */
void fdstore_open(struct fdstore *s, struct inherited *in);

/* Store what of @fds (negative ones are passed over) does not lie there, and remove what else does.
 * Does not wait for systemd. */
void fdstore_sync(struct fdstore *s, const int *fds, size_t n);

/* Remove all (a stop that is meant), and free. */
void fdstore_empty(struct fdstore *s);

#endif
