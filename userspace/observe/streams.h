/* SPDX-License-Identifier: Apache-2.0 */
/* The last record of each stream that was heard of: a table of fixed size, in which the stream that
 * has been silent longest makes room. Pure; the caller locks. */
#ifndef OBSERVE_STREAMS_H
#define OBSERVE_STREAMS_H

#include <stddef.h>
#include <stdint.h>

#include <observe.h>

#define STREAMS_SETS   256U /* a power of two */
#define STREAMS_WAYS   8U
#define STREAMS_AGE_NS 60000000000ULL /* later it is not told of any longer */

struct streams {
	struct observe_window last[STREAMS_SETS][STREAMS_WAYS]; /* ns 0 = free */
};

void streams_put(struct streams *t, const struct observe_window *w);

/* Those of one watch of a slot, the most recent first; how many, at most @max. */
size_t streams_of(const struct streams *t, uint32_t slot, uint32_t generation, uint64_t now_ns,
		  struct observe_window *out, size_t max);

#endif
