/* SPDX-License-Identifier: Apache-2.0 */
/* Which extent goes when the store is full: CLOCK with two bits of heat, pure.
 *
 * A hand sweeps the extents of all objects in order; an extent with heat loses one and stays, a
 * pinned one stays, the first cold one is the victim. It needs a byte an extent and no list, so a
 * sparse 64 TiB object costs nothing it does not use.
 */
#ifndef STORE_EVICT_H
#define STORE_EVICT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define EVICT_HEAT_MAX 3

/* One object's extents as the policy sees them. Arrays are the object's. */
struct evict_set {
	uint64_t extents;
	const _Atomic uint64_t *stored; /* per extent: one bit a block that takes space */
	_Atomic uint8_t *heat;		/* per extent: raised by readers, lowered by the hand */
	const _Atomic uint32_t *pins;	/* per extent: > 0 = stays */
	const _Atomic uint32_t *kept;	/* the whole of it: > 0 = stays */
};

struct evict_hand {
	uint64_t set, extent;
};

/* The next victim: its set (in @sets) and extent; the hand moves past it. False when everything is
 * empty or pinned. */
bool evict_next(struct evict_hand *hand, struct evict_set *const *sets, uint64_t nsets,
		uint64_t *set, uint64_t *extent);

/* A reader touched the extent. Racy by design: a lost count is no loss. */
static inline void evict_touch(_Atomic uint8_t *heat)
{
	uint8_t h = atomic_load_explicit(heat, memory_order_relaxed);

	if (h < EVICT_HEAT_MAX)
		atomic_store_explicit(heat, (uint8_t)(h + 1), memory_order_relaxed);
}

#endif
