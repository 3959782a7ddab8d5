/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/patience.h"

#include "base/clock.h"

#define LOOK_NS	 (200 * NSEC_PER_MSEC)
#define FIRST_NS (250 * NSEC_PER_MSEC)
#define DOUBLES	 5 /* to 8 s */

TAILQ_HEAD(patient, patience);

static _Thread_local struct patient waiting;
static _Thread_local struct loop *thread_loop;
static _Thread_local struct loop_timer look;

uint64_t patience_pause_ns(uint32_t nth, uint32_t random)
{
	uint64_t ns = FIRST_NS << (nth < DOUBLES ? nth : DOUBLES);

	return ns - ns / 4 * (random % 1024) / 1024;
}

static void on_look(struct loop_timer *t)
{
	uint64_t now = clock_now_ns();
	struct patience *p, *next, *last = TAILQ_LAST(&waiting, patient);

	for (p = TAILQ_FIRST(&waiting); p; p = next) {
		next = p == last ? NULL : TAILQ_NEXT(p, link);
		if (now < p->due_ns && !p->over(p))
			continue;
		TAILQ_REMOVE(&waiting, p, link);
		p->end(p);
	}
	if (!TAILQ_EMPTY(&waiting))
		loop_timer_set(thread_loop, t, now + LOOK_NS);
}

void patience_wait(struct patience *p, struct loop *l, uint64_t due_ns)
{
	if (!thread_loop)
		TAILQ_INIT(&waiting);
	if (!thread_loop || TAILQ_EMPTY(&waiting)) {
		thread_loop = l;
		look = (struct loop_timer){.fn = on_look};
		loop_timer_set(l, &look, clock_now_ns() + LOOK_NS);
	}
	p->due_ns = due_ns;
	TAILQ_INSERT_TAIL(&waiting, p, link);
}
