/* SPDX-License-Identifier: Apache-2.0 */
/* The view from within. */
#ifndef OBSERVE_VIEW_IMPL_H
#define OBSERVE_VIEW_IMPL_H

#include <pthread.h>

#include <supervisor_protocol.h>

#include "observe/ring.h"
#include "observe/streams.h"
#include "observe/view.h"

struct view_slot {
	char name[SUPERVISOR_NAME_LEN]; /* of the export; "" = not watched */
	uint32_t generation, heat_shift, cells;
	uint32_t *heat; /* mapped; cells change under us */
	size_t heat_bytes;
	uint32_t half_life_ms; /* that the cells are in */
	uint64_t swept_ns;
};

struct view {
	int supervisor_fd;
	bool on;
	uint32_t hooks;
	char line[SUPERVISOR_TEXT_LEN];
	struct policy *policy;		   /* mapped, POLICY_ENTRIES of them */
	const struct observe_stats *stats; /* mapped */
	struct observe_ring ring;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t wake;
	pthread_t thread;
	bool stopping;
	uint64_t records;   /* drained */
	uint64_t lost_gone; /* lost by devices that are gone */
	struct streams streams;
	struct view_slot slots[OBSERVE_DEVICES];
};

/* Its slot if it is watched, else NULL. Under the lock. */
struct view_slot *view_slot_of(struct view *v, int slot);

/* The policy in force for the device, corrected. Under the lock. */
struct policy view_policy_of(const struct view *v, uint32_t slot);

/* Turn the cells to the half-life in force, if it changed. Under the lock. */
void view_heat_convert(struct view *v, struct view_slot *s);

/* Clear the cells that nobody read for HEAT_STALE_EPOCHS, when it is time. Under the lock. */
void view_heat_sweep(struct view_slot *s, uint64_t now_ns);

#endif
