/* SPDX-License-Identifier: Apache-2.0 */
/* What a dead server left, made into what its successor does. Looks at everything before it changes
 * anything; what it then changes, in this order, is right after each store, too. */
#include <errno.h>
#include <stdlib.h>

#include "nbd/ledger_impl.h"

/* Beyond these a sum could wrap; at 100 GB/s they are two years away. */
#define STREAM_MAX (1ULL << 62)

struct found {
	uint64_t key; /* seq, or the reply's start */
	uint64_t end; /* of the reply */
	uint16_t slot;
};

struct finding {
	uint64_t received, sent;
	struct found waiting[LEDGER_SLOTS]; /* not answered, by seq */
	struct found replies[LEDGER_SLOTS]; /* entered and not settled, by start */
	uint32_t nwaiting, nreplies;
	uint16_t rest[LEDGER_SLOTS]; /* slots that nobody needs */
	uint32_t nrest;
};

static int by_key(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return x->key < y->key ? -1 : x->key > y->key;
}

static int find_streams(const struct ledger *l, const struct tcp_count *now, struct finding *f)
{
	if (l->magic != LEDGER_MAGIC || l->version < LEDGER_OLDEST || l->version > LEDGER_VERSION ||
	    l->phase != LEDGER_TRANSMISSION || l->structured > 1 || l->ahead > LEDGER_AHEAD_MAX ||
	    (l->ahead && l->structured))
		return -EBADMSG;
	if (now->received < l->base_received || now->sent < l->base_sent)
		return -EBADMSG;
	f->received = now->received - l->base_received;
	f->sent = now->sent - l->base_sent;
	if (f->received > STREAM_MAX || f->sent > STREAM_MAX || l->settled > f->sent)
		return -EBADMSG;
	if (l->requests > f->received / LEDGER_REQUEST_LEN ||
	    f->received - l->requests * LEDGER_REQUEST_LEN > LEDGER_RING_LEN)
		return -EBADMSG;
	return 0;
}

/* The reply's length; 0 when there can be none such. */
static uint64_t lawful_reply_len(const struct ledger_writer *w, uint16_t i, uint64_t size)
{
	struct nbd_request r = ledger_request(w->l, i);
	uint32_t error = w->l->slots[i].error;
	uint32_t refused = nbd_request_check(&r, &w->terms, size);

	if (r.type == NBD_CMD_DISC || nbd_request_payload(&r))
		return 0; /* these get none */
	/* What the law refuses was refused with that; the rest may also have failed. */
	if (refused && error != refused)
		return 0;
	return nbd_reply_len(&r, &w->terms, error);
}

static int find_slot(const struct ledger_writer *w, uint16_t i, uint64_t size, struct finding *f)
{
	const struct ledger_slot *s = &w->l->slots[i];
	bool waits = s->start == LEDGER_UNANSWERED;
	uint64_t len;

	if (!s->seq) {
		f->rest[f->nrest++] = i;
		return 0;
	}
	if (s->seq > w->l->requests) {
		/* Killed before `requests` was moved on: it still stands in the ring. */
		f->rest[f->nrest++] = i;
		return waits && s->seq == w->l->requests + 1 ? 0 : -EBADMSG;
	}
	if (waits) {
		f->waiting[f->nwaiting++] = (struct found){s->seq, 0, i};
		return 0;
	}
	len = lawful_reply_len(w, i, size);
	if (!len || s->start > STREAM_MAX)
		return -EBADMSG;
	if (s->start >= w->l->settled) {
		f->replies[f->nreplies++] = (struct found){s->start, s->start + len, i};
		return 0;
	}
	/* Killed before it was freed. */
	f->rest[f->nrest++] = i;
	return s->start + len <= w->l->settled ? 0 : -EBADMSG;
}

/* Replies follow each other without a gap, and what was sent ends in them. */
static int check_replies(const struct ledger *l, const struct finding *f)
{
	uint64_t at = l->settled;

	for (uint32_t i = 0; i < f->nreplies; i++) {
		if (f->replies[i].key != at)
			return -EBADMSG;
		at = f->replies[i].end;
	}
	return f->sent <= (at ? at : l->ahead) ? 0 : -EBADMSG;
}

/* A request stands in one slot. */
static int check_seqs(const struct ledger *l, const struct finding *f)
{
	struct found all[LEDGER_SLOTS];
	uint32_t n = 0;

	for (uint32_t i = 0; i < f->nwaiting; i++)
		all[n++] = f->waiting[i];
	for (uint32_t i = 0; i < f->nreplies; i++)
		all[n++] = (struct found){l->slots[f->replies[i].slot].seq, 0, 0};
	qsort(all, n, sizeof(all[0]), by_key);
	for (uint32_t i = 1; i < n; i++)
		if (all[i].key == all[i - 1].key)
			return -EBADMSG;
	return 0;
}

static int find(const struct ledger_writer *w, uint64_t size, struct finding *f)
{
	int rc = 0;

	for (uint32_t i = 0; !rc && i < LEDGER_SLOTS; i++)
		rc = find_slot(w, (uint16_t)i, size, f);
	if (rc)
		return rc;
	qsort(f->replies, f->nreplies, sizeof(f->replies[0]), by_key);
	rc = check_replies(w->l, f);
	return rc ? rc : check_seqs(w->l, f);
}

/* Replies of which no byte left are not: their requests wait again. The last first, so that there
 * is never a gap. */
static void take_back_replies(struct ledger *l, struct finding *f)
{
	while (f->nreplies && f->replies[f->nreplies - 1].key >= f->sent) {
		uint16_t i = f->replies[--f->nreplies].slot;

		STORE(l->slots[i].start, LEDGER_UNANSWERED);
		f->waiting[f->nwaiting++] = (struct found){l->slots[i].seq, 0, i};
	}
}

static void settle(struct ledger_writer *w, struct finding *f, struct ledger_cut *cut)
{
	w->end = w->l->settled;
	for (uint32_t i = 0; i < f->nreplies; i++) {
		const struct found *r = &f->replies[i];

		if (r->end <= f->sent) {
			STORE(w->l->settled, r->end);
			w->end = r->end;
			f->rest[f->nrest++] = r->slot;
			continue;
		}
		cut->is = true;
		cut->request = ledger_request(w->l, r->slot);
		cut->error = w->l->slots[r->slot].error;
		cut->skip = f->sent - r->key;
		w->end = r->end;
		ledger_line_put(&w->unsent, r->slot);
	}
	for (uint32_t i = 0; i < f->nrest; i++) {
		STORE(w->l->slots[f->rest[i]].seq, 0);
		w->free[w->nfree++] = f->rest[i];
	}
}

int ledger_take_up(struct ledger_writer *w, struct ledger *l, const struct tcp_count *now,
		   uint64_t size, struct ledger_cut *cut)
{
	struct finding f = {0};
	int rc = find_streams(l, now, &f);

	if (rc)
		return rc;
	*w = (struct ledger_writer){
		.l = l,
		.terms = {.structured = l->structured},
		.received = f.received,
		.requests = l->requests,
	};
	*cut = (struct ledger_cut){0};
	rc = find(w, size, &f);
	if (rc)
		return rc;
	take_back_replies(l, &f);
	settle(w, &f, cut);
	qsort(f.waiting, f.nwaiting, sizeof(f.waiting[0]), by_key);
	for (uint32_t i = 0; i < f.nwaiting; i++)
		ledger_line_put(&w->unserved, f.waiting[i].slot);
	return 0;
}

uint64_t ledger_sent(const struct ledger_writer *w, const struct ledger_cut *cut)
{
	if (!cut->is)
		return w->end + ledger_ahead(w);
	return w->l->slots[cut->request.slot].start + cut->skip;
}
