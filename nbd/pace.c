/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/pace.h"

#include <poll.h>
#include <sys/resource.h>

#include "base/clock.h"

void nbd_pace_before(struct nbd_connection *c)
{
	struct nbd_thread *t = c->thread;

	t->in_a_row = t->latest == c ? t->in_a_row + 1 : 0;
	t->latest = c;
}

/* Each turn loses its CPU before its end: to the client that it woke, or to others. */
void nbd_pace_after(struct nbd_thread *t)
{
	struct rusage u;

	if (++t->turns % NBD_CROWD_TURNS || getrusage(RUSAGE_THREAD, &u))
		return;
	t->is_crowded = u.ru_nivcsw - t->preempted >= NBD_CROWD_TURNS / 2;
	t->preempted = u.ru_nivcsw;
}

bool nbd_pace_sends_ahead(const struct nbd_connection *c)
{
	return c->thread->in_a_row >= NBD_ALONE_TURNS && !c->thread->is_crowded && !c->ledger;
}

static bool may_spin(struct nbd_connection *c)
{
	const struct nbd_thread *t = c->thread;

	if (c->taken != 1 || t->is_crowded || t->releasing || c->in_flight || c->is_ending ||
	    !TAILQ_EMPTY(&t->runnable))
		return false;
	if (!c->spin.credit && ++c->spin.turns % NBD_SPIN_TRY)
		return false;
	return true;
}

bool nbd_pace_spin(struct nbd_connection *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	uint64_t end;

	if (!may_spin(c))
		return false;
	end = clock_now_ns() + NBD_SPIN_NS;
	do {
		if (poll(&p, 1, 0) > 0) {
			if (c->spin.credit < NBD_SPIN_CREDIT)
				c->spin.credit++;
			c->readable = true;
			return true;
		}
	} while (clock_now_ns() < end);
	if (c->spin.credit)
		c->spin.credit--;
	return false;
}
