/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes: one export's fills on one fill thread, and whose turn it is for the thread's memory and
 * for connections to the origin. Nothing here is locked.
 *
 * Where memory is short, flights wait in the thread's line and exports take turns, a request at a
 * time. An export that holds memory already stops at an even part of it, and at 7/8 when it is
 * alone, so that one whose origin is silent leaves room for others. What it was given memory for
 * then takes its turn at a connection, in the HTTP client's line.
 */
#ifndef FILL_LANE_H
#define FILL_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/drr.h"
#include "fill/share.h"
#include "origin/window.h"

#define LANE_BUCKETS 64

struct fill_thread;
struct flight;

struct lane {
	struct lane *hash_next;
	struct share *share;
	uint32_t flights;
	uint64_t memory;		   /* bytes that its requests hold */
	struct drr_flow wait[DRR_CLASSES]; /* flights, for memory */
	struct drr_flow ask[DRR_CLASSES];  /* requests, for a connection */
	struct window window;		   /* of its requests */
};

/* The export's lane, for one flight more; NULL without memory. */
struct lane *lane_get(struct fill_thread *t, struct share *share);
void lane_put(struct fill_thread *t, struct lane *l);

/* May @f begin a request of @bytes now? Memory is still to be taken. */
bool lane_admits(struct flight *f, uint64_t bytes);

/* Stand in line for a request of @bytes; in line for prefetch, move to demand's if it is that now.
 */
void lane_wait(struct flight *f, uint64_t bytes);
void lane_leave(struct flight *f);

/* Let the next in line begin. False: nobody may, or there is no room. */
bool lane_run_next(struct fill_thread *t);

#endif
