/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger of a connection, taken up by a successor.
 *
 * The input is a script for a writer that serves some requests and is killed between two of its
 * calls; then the successor must know exactly which are not answered and how much of a reply left.
 * With its first byte odd, bytes of the memory and the socket's counters are changed before: then
 * it must find a state that is possible, the same one each time, or refuse and leave all as it was.
 */
#include <endian.h>
#include <errno.h>
#include <stdbool.h>

#include "fuzz.h"
#include "nbd/ledger.h"

#define SIZE	 (1ULL << 30)
#define REQUESTS 700 /* more than the ring holds */

static const struct nbd_terms terms = {false, false};

static struct model {
	struct ledger *l; /* LEDGER_LEN bytes */
	struct ledger_writer w;
	struct tcp_count base;
	uint64_t received, sent, end; /* in the streams */
	uint32_t told, taken;
	struct nbd_request open[LEDGER_SLOTS]; /* taken and not answered, in order */
	uint32_t nopen;
	struct {
		uint64_t start, end;
		uint64_t cookie;
		uint32_t error;
	} replies[REQUESTS];
	uint32_t nreplies;
} me;

static struct nbd_wire_request wire_of(uint32_t n)
{
	return (struct nbd_wire_request){.magic = htobe32(NBD_REQUEST_MAGIC),
					 .type = htobe16(n % 5 == 4 ? NBD_CMD_CACHE : NBD_CMD_READ),
					 .cookie = n * 0x0101010101010101ULL + 1,
					 .off = htobe64(n * 4096ULL),
					 .len = htobe32(n % 7 * 1000 + 1)};
}

static void receive(size_t len)
{
	while (len && me.received < REQUESTS * LEDGER_REQUEST_LEN) {
		struct nbd_wire_request r;
		uint8_t *at;
		size_t room = ledger_room(&me.w, &at), n;
		uint64_t from = me.received % LEDGER_REQUEST_LEN;

		if (!room)
			return;
		r = wire_of((uint32_t)(me.received / LEDGER_REQUEST_LEN));
		n = LEDGER_REQUEST_LEN - from;
		n = n < len ? n : len;
		n = n < room ? n : room;
		memcpy(at, (uint8_t *)&r + from, n);
		me.received += n;
		ledger_received(&me.w, n);
		len -= n;
	}
}

static void take(uint32_t n)
{
	struct nbd_request r;

	while (n-- && me.nopen < LEDGER_SLOTS && ledger_next(&me.w, &r) == 0) {
		me.open[me.nopen++] = r;
		me.taken++;
		ledger_served(&me.w);
	}
}

static uint64_t reply_len(const struct nbd_request *r, uint32_t error)
{
	return sizeof(struct nbd_wire_simple_reply) +
	       (r->type == NBD_CMD_READ && !error ? r->len : 0);
}

static void answer(uint32_t pick, uint32_t error)
{
	struct nbd_request r;

	if (!me.nopen || me.nreplies == REQUESTS)
		return;
	pick %= me.nopen;
	r = me.open[pick];
	memmove(&me.open[pick], &me.open[pick + 1], (--me.nopen - pick) * sizeof(r));
	ledger_answer(&me.w, &r, error);
	me.replies[me.nreplies].start = me.end;
	me.replies[me.nreplies].cookie = r.cookie;
	me.replies[me.nreplies].error = error;
	me.end += reply_len(&r, error);
	me.replies[me.nreplies++].end = me.end;
}

static void send_some(uint64_t n, bool settle)
{
	me.sent += n < me.end - me.sent ? n : me.end - me.sent;
	if (settle)
		ledger_settle(&me.w, me.sent);
}

static void run_script(struct input *in)
{
	for (unsigned steps = 0; in->left && steps < 200; steps++) {
		uint8_t op = (uint8_t)take_number(in, 1);
		uint8_t arg = (uint8_t)take_number(in, 1);

		switch (op % 6) {
		case 0:
			receive(arg * 16);
			break;
		case 1:
			take(arg);
			break;
		case 2:
			answer(arg, 0);
			break;
		case 3:
			answer(arg, NBD_EIO);
			break;
		case 4:
			send_some((uint64_t)arg * 64, arg & 1);
			break;
		case 5:
			send_some(UINT64_MAX, true);
			break;
		}
	}
}

/* Requests that a successor has to serve, in order of arrival. */
static void expect_unserved(struct ledger_writer *w, const struct ledger_cut *cut)
{
	struct nbd_request r;

	/* a reply that was entered and of which no byte left is begun anew */
	for (uint32_t n = 0; n < me.taken; n++) {
		uint64_t cookie = wire_of(n).cookie;
		bool answered = false;

		for (uint32_t i = 0; i < me.nreplies; i++)
			if (me.replies[i].cookie == cookie && me.replies[i].start < me.sent)
				answered = true;
		if (answered)
			continue;
		must(ledger_next(w, &r) == 0 && r.cookie == cookie);
		must(r.off == n * 4096ULL && r.len == n % 7 * 1000 + 1);
		ledger_served(w);
	}
	must(ledger_sent(w, cut) == me.sent);
}

static void expect_cut(const struct ledger_cut *cut)
{
	for (uint32_t i = 0; i < me.nreplies; i++) {
		if (me.replies[i].start >= me.sent || me.replies[i].end <= me.sent)
			continue;
		must(cut->is && cut->request.cookie == me.replies[i].cookie);
		must(cut->error == me.replies[i].error);
		must(cut->skip == me.sent - me.replies[i].start);
		return;
	}
	must(!cut->is);
}

static void honest(void)
{
	struct tcp_count now = {me.base.received + me.received, me.base.sent + me.sent};
	static struct ledger_writer w;
	struct ledger_cut cut;

	must(ledger_take_up(&w, me.l, &now, SIZE, &cut) == 0);
	expect_cut(&cut);
	expect_unserved(&w, &cut);
}

static void possible(const struct ledger_writer *w, const struct ledger_cut *cut)
{
	bool seen[LEDGER_SLOTS] = {false};

	must(w->unserved.n <= LEDGER_SLOTS && w->unsent.n <= LEDGER_SLOTS);
	must(w->nfree <= LEDGER_SLOTS);
	for (uint32_t i = 0; i < w->nfree; i++) {
		must(w->free[i] < LEDGER_SLOTS && !seen[w->free[i]]);
		seen[w->free[i]] = true;
	}
	for (uint32_t i = 0; i < w->unserved.n; i++) {
		uint16_t slot = w->unserved.slot[(w->unserved.at + i) % LEDGER_SLOTS];

		must(slot < LEDGER_SLOTS && !seen[slot]);
		seen[slot] = true;
	}
	must(!cut->is || cut->skip < reply_len(&cut->request, cut->error) + 64);
}

static void changed(struct input *in)
{
	static struct ledger_writer w, again;
	static uint8_t before[LEDGER_LEN];
	struct tcp_count now = {me.base.received + me.received, me.base.sent + me.sent};
	struct ledger_cut cut, cut_again;
	struct nbd_request r;
	int rc;

	while (in->left) {
		size_t at = take_number(in, 2);

		if (at == 0xffff)
			now.received += (uint64_t)(int8_t)take_number(in, 1);
		else if (at == 0xfffe)
			now.sent += (uint64_t)(int8_t)take_number(in, 1) * 16;
		else
			((uint8_t *)me.l)[at % LEDGER_LEN] = (uint8_t)take_number(in, 1);
	}
	memcpy(before, me.l, sizeof(before));
	rc = ledger_take_up(&w, me.l, &now, SIZE, &cut);
	must(rc == 0 || rc == -EBADMSG);
	if (rc) {
		must(memcmp(before, me.l, sizeof(before)) == 0);
		return;
	}
	possible(&w, &cut);
	must(ledger_take_up(&again, me.l, &now, SIZE, &cut_again) == 0);
	must(cut.is == cut_again.is && (!cut.is || cut.skip == cut_again.skip));
	must(w.unserved.n == again.unserved.n && w.received == again.received);
	for (unsigned i = 0; i < REQUESTS && ledger_next(&w, &r) == 0; i++) {
		must(r.slot < LEDGER_SLOTS);
		ledger_served(&w);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len}, script;
	bool change = take_number(&in, 1) & 1;
	size_t n = change ? take_number(&in, 1) * 2 : in.left;

	memset(&me, 0, sizeof(me));
	me.l = calloc(1, LEDGER_LEN);
	must(me.l);
	me.base = (struct tcp_count){77, 1001};
	must(ledger_begin(&me.w, me.l, &terms, &me.base, NULL, 0) == 0);
	n = n < in.left ? n : in.left;
	script = (struct input){in.at, n};
	in.at += n;
	in.left -= n;
	run_script(&script);
	if (change)
		changed(&in);
	else
		honest();
	free(me.l);
	return 0;
}
