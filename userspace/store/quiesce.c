/* SPDX-License-Identifier: Apache-2.0 */
#include "store/quiesce.h"

#include <string.h>
#include <time.h>

void quiesce_init(struct quiesce *q)
{
	memset(q, 0, sizeof(*q));
	atomic_store(&q->epoch, 1);
}

void quiesce_wait(struct quiesce *q)
{
	const struct timespec nap = {.tv_nsec = 20000}; /* a turn takes 10-100 us */
	uint64_t now = atomic_fetch_add(&q->epoch, 1) + 1;

	for (int t = 0; t < QUIESCE_THREADS; t++) {
		for (;;) {
			uint64_t seen = atomic_load(&q->thread[t].seen);

			if (seen == 0 || seen >= now)
				break;
			nanosleep(&nap, NULL);
		}
	}
}
