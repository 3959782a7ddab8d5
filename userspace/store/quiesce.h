/* SPDX-License-Identifier: Apache-2.0 */
/* Quiescent states of the data threads: how space is freed under readers that take no lock.
 *
 * A data thread is `active` from waking until it sleeps again; within that turn what
 * object_resident() told it stands. Who frees space first makes it invisible, then calls
 * quiesce_wait(), and only then punches. Epoch-based reclamation, with one cache line a thread.
 */
#ifndef STORE_QUIESCE_H
#define STORE_QUIESCE_H

#include <stdatomic.h>
#include <stdint.h>

#define QUIESCE_THREADS 64

struct quiesce {
	_Atomic uint64_t epoch; /* starts at 1 */
	struct {
		_Atomic uint64_t seen; /* epoch at waking; 0 = asleep */
		char pad[56];
	} thread[QUIESCE_THREADS];
};

void quiesce_init(struct quiesce *q);

/* By data thread @t (< QUIESCE_THREADS) around its sleep. */
static inline void quiesce_enter(struct quiesce *q, uint32_t t)
{
	atomic_store(&q->thread[t].seen, atomic_load(&q->epoch));
}

static inline void quiesce_leave(struct quiesce *q, uint32_t t)
{
	atomic_store_explicit(&q->thread[t].seen, 0, memory_order_release);
}

/* Until every data thread has slept or woken since the call. Never by a data thread. */
void quiesce_wait(struct quiesce *q);

#endif
