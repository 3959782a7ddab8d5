/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/ledger_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)

_Static_assert(LEDGER_REQUEST_LEN == sizeof(struct nbd_wire_request), "proto.md: request message");

int ledger_new(struct err *err)
{
	int fd = memfd_create("cairn-ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING), rc;

	if (fd >= 0 && !ftruncate(fd, LEDGER_LEN) && !fcntl(fd, F_ADD_SEALS, SEALS))
		return fd;
	rc = -errno;
	if (fd >= 0)
		close(fd);
	return err_set(err, rc, "no memory for a connection's ledger: %s", strerror(-rc));
}

int ledger_set_ahead(int fd, uint32_t n)
{
	ssize_t put = pwrite(fd, &n, sizeof(n), offsetof(struct ledger, ahead));

	return put == sizeof(n) ? 0 : put < 0 ? -errno : -EIO;
}

struct ledger *ledger_map(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *p;

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) || st.st_size != LEDGER_LEN)
		return NULL;
	p = mmap(NULL, LEDGER_LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

void ledger_unmap(struct ledger *l)
{
	if (l)
		munmap(l, LEDGER_LEN);
}

/* Lines. */

static uint16_t line_first(const struct ledger_line *q)
{
	return q->slot[q->at];
}

static void line_drop(struct ledger_line *q)
{
	q->at = (q->at + 1) % LEDGER_SLOTS;
	q->n--;
}

/* Slots. */

static uint64_t reply_end(const struct ledger_writer *w, uint16_t i)
{
	struct nbd_request r = ledger_request(w->l, i);

	return w->l->slots[i].start + nbd_reply_len(&r, &w->terms, w->l->slots[i].error);
}

static void slot_free(struct ledger_writer *w, uint16_t i)
{
	STORE(w->l->slots[i].seq, 0);
	w->free[w->nfree++] = i;
}

/* Begin. */

void ledger_begin_handshake(struct ledger *l)
{
	l->version = LEDGER_VERSION;
	l->magic = LEDGER_MAGIC;
	STORE(l->phase, LEDGER_HANDSHAKE);
}

int ledger_begin(struct ledger_writer *w, struct ledger *l, const struct nbd_terms *terms,
		 const struct tcp_count *base, const uint8_t *in, size_t n)
{
	uint32_t ahead = l->ahead;

	if (n > sizeof(l->ring) || ahead > LEDGER_AHEAD_MAX || ahead > base->sent)
		return -EBADMSG;
	if (ahead && terms->structured) /* their magic is another */
		return -EBADMSG;
	*w = (struct ledger_writer){.l = l, .terms = *terms, .received = n};
	for (uint32_t i = LEDGER_SLOTS; i-- > 0;)
		w->free[w->nfree++] = (uint16_t)i;
	if (n)
		memcpy(l->ring, in, n);
	l->structured = terms->structured;
	l->base_received = base->received;
	l->base_sent = base->sent - ahead;
	l->version = LEDGER_VERSION;
	l->magic = LEDGER_MAGIC;
	STORE(l->phase, LEDGER_TRANSMISSION);
	return 0;
}

/* Requests in. */

size_t ledger_room(struct ledger_writer *w, uint8_t **at)
{
	uint64_t held = w->received - w->requests * LEDGER_REQUEST_LEN;
	size_t begin = w->received % LEDGER_RING_LEN, room = LEDGER_RING_LEN - held;

	*at = w->l->ring + begin;
	return room < LEDGER_RING_LEN - begin ? room : LEDGER_RING_LEN - begin;
}

void ledger_received(struct ledger_writer *w, size_t n)
{
	w->received += n;
}

static int request_take(struct ledger_writer *w)
{
	const uint8_t *in = w->l->ring + w->requests % LEDGER_RING_REQUESTS * LEDGER_REQUEST_LEN;
	struct nbd_request r;
	struct ledger_slot *s;
	uint16_t i;

	if (w->received - w->requests * LEDGER_REQUEST_LEN < LEDGER_REQUEST_LEN)
		return -EAGAIN;
	if (!w->nfree)
		return -ENOBUFS;
	if (nbd_request_parse(in, &r))
		return -EPROTO;
	i = w->free[--w->nfree];
	s = &w->l->slots[i];
	__atomic_signal_fence(__ATOMIC_SEQ_CST); /* not before it became free */
	s->cookie = r.cookie;
	s->off = r.off;
	s->len = r.len;
	s->type = r.type;
	s->flags = r.flags;
	s->start = LEDGER_UNANSWERED;
	STORE(s->seq, ++w->requests);
	STORE(w->l->requests, w->requests); /* its place in the ring may be received into */
	ledger_line_put(&w->unserved, i);
	return 0;
}

int ledger_next(struct ledger_writer *w, struct nbd_request *r)
{
	int rc = w->unserved.n ? 0 : request_take(w);

	if (!rc)
		*r = ledger_request(w->l, line_first(&w->unserved));
	return rc;
}

void ledger_served(struct ledger_writer *w)
{
	line_drop(&w->unserved);
}

/* Replies out. */

void ledger_answer(struct ledger_writer *w, const struct nbd_request *r, uint32_t error)
{
	struct ledger_slot *s = &w->l->slots[r->slot];

	s->error = error;
	STORE(s->start, w->end);
	w->end += nbd_reply_len(r, &w->terms, error);
	ledger_line_put(&w->unsent, r->slot);
}

uint32_t ledger_ahead(const struct ledger_writer *w)
{
	return w->end ? 0 : w->l->ahead;
}

void ledger_settle(struct ledger_writer *w, uint64_t sent)
{
	while (w->unsent.n) {
		uint16_t i = line_first(&w->unsent);
		uint64_t end = reply_end(w, i);

		if (end > sent)
			return;
		STORE(w->l->settled, end); /* first: replies go on from there without a gap */
		line_drop(&w->unsent);
		slot_free(w, i);
	}
}
