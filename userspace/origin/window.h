/* SPDX-License-Identifier: Apache-2.0 */
/* How many requests one export has in flight at a client at most: halved when its origin says that
 * it is busy (429, 503), one more after each so many good answers. Exports have their own, so that
 * one's busy origin holds up no other. Pure; one thread.
 *
 * Requests that were under way at the cut tell nothing new, so those begun before it cut no more.
 */
#ifndef ORIGIN_WINDOW_H
#define ORIGIN_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

struct window {
	uint32_t most;	 /* connections */
	uint32_t limit;	 /* 1..most */
	uint32_t active; /* under way now; the client counts */
	uint32_t good;	 /* answers since the limit last changed */
	uint64_t cut_ns; /* when it was last halved */
};

void window_init(struct window *w, uint32_t most);
void window_good(struct window *w);
/* For a request that began at @began_ns. True: the limit is lower now. */
bool window_busy(struct window *w, uint64_t began_ns, uint64_t now_ns);

#endif
