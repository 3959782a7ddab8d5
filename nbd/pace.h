/* SPDX-License-Identifier: Apache-2.0 */
/* When a data thread sends, looks and sleeps, so that it and its client work at the same time.
 * Internal to nbd/, on the data thread; what it remembers stands in connection.h.
 *
 * A quick client with one request at a time is waited for awake. Of a long batch the first replies
 * leave before the last are made: the client works on them meanwhile, and asks for more. Both are
 * for clients that have another CPU. Where thread and client share one, which shows as the thread
 * being preempted turn by turn, the client could not run meanwhile, and where several connections
 * keep a thread busy, more calls and smaller batches would be all that it gave.
 */
#ifndef NBD_PACE_H
#define NBD_PACE_H

#include "nbd/connection.h"

/* @c has a turn. */
void nbd_pace_before(struct nbd_connection *c);
/* It answered what was there. */
void nbd_pace_after(struct nbd_thread *t);

/* Replies of a batch leave before all are made. */
bool nbd_pace_sends_ahead(const struct nbd_connection *c);

/* Wait awake for the next request. True: it is there. */
bool nbd_pace_spin(struct nbd_connection *c);

#endif
