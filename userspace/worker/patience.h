/* SPDX-License-Identifier: Apache-2.0 */
/* Reads that pause before they are tried again, on the data thread that asked for them. */
#ifndef WORKER_PATIENCE_H
#define WORKER_PATIENCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/loop.h"

struct patience { /* embedded in what pauses; from patience_wait() until end() */
	TAILQ_ENTRY(patience) link;
	uint64_t due_ns;
	/* Looked at a few times a second: there is nothing to wait for any more. */
	bool (*over)(struct patience *p);
	void (*end)(struct patience *p);
};

/* How long to pause after the @nth failure in a row: 0.25 s doubling to 8 s, less up to a quarter
 * by
 * @random, so that readers do not come back all at once. Pure. */
uint64_t patience_pause_ns(uint32_t nth, uint32_t random);

/* On @l's thread; a thread has one loop. p->end() is called there, in a later turn. The loop may
 * only be freed when nothing pauses. */
void patience_wait(struct patience *p, struct loop *l, uint64_t due_ns);

#endif
