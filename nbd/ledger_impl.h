/* SPDX-License-Identifier: Apache-2.0 */
/* What the ledger's two halves share: nbd/ledger.c writes, nbd/ledger_take_up.c reads. */
#ifndef NBD_LEDGER_IMPL_H
#define NBD_LEDGER_IMPL_H

#include "nbd/ledger.h"

/* After a kill every store is there that came before it in the program: only the compiler's order
 * matters, and a barrier for another processor comes with the death. */
#define STORE(to, value) __atomic_store_n(&(to), value, __ATOMIC_RELEASE)

static inline struct nbd_request ledger_request(const struct ledger *l, uint16_t i)
{
	const struct ledger_slot *s = &l->slots[i];

	return (struct nbd_request){
		.flags = s->flags,
		.type = s->type,
		.slot = i,
		.cookie = s->cookie,
		.off = s->off,
		.len = s->len,
	};
}

static inline void ledger_line_put(struct ledger_line *q, uint16_t slot)
{
	q->slot[(q->at + q->n++) % LEDGER_SLOTS] = slot;
}

#endif
