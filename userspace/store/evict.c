/* SPDX-License-Identifier: Apache-2.0 */
#include "store/evict.h"

/* Move to the next extent; true when the hand passed the end of all sets. */
static bool hand_step(struct evict_hand *hand, struct evict_set *const *sets, uint64_t nsets)
{
	if (++hand->extent < sets[hand->set]->extents)
		return false;
	hand->extent = 0;
	hand->set = (hand->set + 1) % nsets;
	return hand->set == 0;
}

static bool is_victim(const struct evict_set *s, uint64_t i)
{
	uint8_t heat;

	if (atomic_load_explicit(s->kept, memory_order_relaxed) ||
	    !atomic_load_explicit(&s->stored[i], memory_order_relaxed) ||
	    atomic_load_explicit(&s->pins[i], memory_order_relaxed))
		return false;
	heat = atomic_load_explicit(&s->heat[i], memory_order_relaxed);
	if (!heat)
		return true;
	atomic_store_explicit(&s->heat[i], (uint8_t)(heat - 1), memory_order_relaxed);
	return false;
}

bool evict_next(struct evict_hand *hand, struct evict_set *const *sets, uint64_t nsets,
		uint64_t *set, uint64_t *extent)
{
	/* Heat of EVICT_HEAT_MAX is gone after as many rounds; one more finds what it cooled. */
	int rounds = EVICT_HEAT_MAX + 2;

	if (!nsets)
		return false;
	if (hand->set >= nsets || hand->extent >= sets[hand->set]->extents)
		*hand = (struct evict_hand){0};
	while (rounds) {
		uint64_t at_set = hand->set, at = hand->extent;
		bool found = at < sets[at_set]->extents && is_victim(sets[at_set], at);

		if (hand_step(hand, sets, nsets))
			rounds--;
		if (found) {
			*set = at_set;
			*extent = at;
			return true;
		}
	}
	return false;
}
