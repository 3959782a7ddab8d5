/* SPDX-License-Identifier: Apache-2.0 */
#include "observe/streams.h"

#include <stdbool.h>
#include <stdlib.h>

static bool same(const struct observe_window *a, const struct observe_window *b)
{
	return a->ino == b->ino && a->pid == b->pid && a->slot == b->slot &&
	       a->generation == b->generation;
}

void streams_put(struct streams *t, const struct observe_window *w)
{
	uint64_t hash = (w->ino * 31 + ((uint64_t)w->slot << 32 | w->pid)) * 0x9e3779b97f4a7c15ULL;
	struct observe_window *set = t->last[(hash >> 32) * STREAMS_SETS >> 32], *at = set;

	for (uint32_t i = 0; i < STREAMS_WAYS; i++) {
		if (same(&set[i], w)) {
			at = &set[i];
			break;
		}
		if (set[i].ns < at->ns)
			at = &set[i];
	}
	*at = *w;
	at->comm[sizeof(at->comm) - 1] = 0;
}

/* Into @out, sorted, if it is among the @max most recent. */
static size_t insert(struct observe_window *out, size_t n, size_t max,
		     const struct observe_window *w)
{
	size_t i = n < max ? n : max - 1;

	if (n == max && out[max - 1].ns >= w->ns)
		return n;
	for (; i > 0 && out[i - 1].ns < w->ns; i--)
		out[i] = out[i - 1];
	out[i] = *w;
	return n < max ? n + 1 : max;
}

size_t streams_of(const struct streams *t, uint32_t slot, uint32_t generation, uint64_t now_ns,
		  struct observe_window *out, size_t max)
{
	const struct observe_window *all = &t->last[0][0];
	size_t n = 0;

	for (size_t i = 0; max && i < (size_t)STREAMS_SETS * STREAMS_WAYS; i++) {
		if (!all[i].ns || all[i].slot != slot || all[i].generation != generation ||
		    all[i].ns + STREAMS_AGE_NS < now_ns)
			continue;
		n = insert(out, n, max, &all[i]);
	}
	return n;
}
