/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger alone. A writer in a process of its own goes through a conversation, one instruction
 * at a time; whatever it had written at any of them must tell a successor exactly what is left to
 * do. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <endian.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nbd/ledger.h"

#define SIZE	  (1ULL << 40)
#define BASE_IN	  77 /* what the socket counted before */
#define BASE_OUT  1001
#define ALL	  LEDGER_SLOTS * 4
#define BEFORE	  580 /* requests that are over when the steps begin: the ring wraps soon after */
#define STEPS_MIN 5000

static const struct nbd_terms simple = {false, false}, structured = {true, false};

/* What a kernel would know beside the ledger, and the truth to compare with. */
struct world {
	struct ledger ledger;
	uint64_t received, sent; /* bytes; moved by one store each */
	bool structured;
	uint32_t nreplies;
	struct {
		uint32_t request, error;
		uint64_t end; /* in the stream */
	} replies[ALL];	      /* in order */
};

static struct world *world_new(const struct nbd_terms *t)
{
	struct world *w =
		mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(w, MAP_FAILED);
	w->structured = t->structured;
	return w;
}

static void world_free(struct world *w)
{
	munmap(w, sizeof(*w));
}

static const struct nbd_terms *terms_of(const struct world *w)
{
	return w->structured ? &structured : &simple;
}

static struct tcp_count counters(const struct world *w)
{
	return (struct tcp_count){BASE_IN + w->received, BASE_OUT + w->sent};
}

/* The n-th request of every conversation. */
static struct nbd_request request(uint64_t n)
{
	return (struct nbd_request){
		.type = n % 7 == 6    ? NBD_CMD_CACHE
			: n % 13 == 1 ? NBD_CMD_TRIM
				      : NBD_CMD_READ,
		.cookie = n * 0x0101010101010101ULL + 1,
		.off = n * 4096,
		.len = n % 11 == 10 ? 0 : (uint32_t)(n % 5 * 1000 + 1),
	};
}

static void put_stream(uint64_t at, uint8_t *out, size_t len)
{
	for (size_t i = 0; i < len; i++, at++) {
		struct nbd_request r = request(at / LEDGER_REQUEST_LEN);
		struct nbd_wire_request w = {.magic = htobe32(NBD_REQUEST_MAGIC),
					     .type = htobe16(r.type),
					     .cookie = r.cookie,
					     .off = htobe64(r.off),
					     .len = htobe32(r.len)};

		out[i] = ((uint8_t *)&w)[at % LEDGER_REQUEST_LEN];
	}
}

static void same_request(const struct nbd_request *a, const struct nbd_request *b)
{
	assert_int_equal(a->type, b->type);
	assert_int_equal(a->flags, b->flags);
	assert_true(a->cookie == b->cookie);
	assert_true(a->off == b->off);
	assert_int_equal(a->len, b->len);
}

/* --- the writer's side ----------------------------------------------------------------------- */

struct server {
	struct world *world;
	struct ledger_writer w;
	struct nbd_request taken[ALL]; /* by number, with their slots */
	uint64_t ntaken;
};

static void receive(struct server *s, size_t len)
{
	while (len) {
		uint8_t *at;
		size_t n = ledger_room(&s->w, &at);

		n = n < len ? n : len;
		assert_true(n > 0);
		put_stream(s->world->received, at, n);
		s->world->received += n;
		ledger_received(&s->w, n);
		len -= n;
	}
}

static void take(struct server *s)
{
	struct nbd_request r;

	while (!ledger_next(&s->w, &r)) {
		s->taken[s->ntaken++] = r;
		ledger_served(&s->w);
	}
}

static void answer(struct server *s, uint32_t request_n, uint32_t error)
{
	struct world *w = s->world;
	uint64_t at = w->nreplies ? w->replies[w->nreplies - 1].end : 0;

	if (s->taken[request_n].type == NBD_CMD_TRIM)
		error = NBD_EPERM;
	w->replies[w->nreplies].request = request_n;
	w->replies[w->nreplies].error = error;
	w->replies[w->nreplies].end = at + nbd_reply_len(&s->taken[request_n], terms_of(w), error);
	w->nreplies++;
	ledger_answer(&s->w, &s->taken[request_n], error);
}

static void send_bytes(struct server *s, uint64_t n)
{
	s->world->sent += n;
	ledger_settle(&s->w, s->world->sent);
}

static void send_all(struct server *s)
{
	send_bytes(s, s->w.end - s->world->sent);
}

static void server_begin(struct server *s, struct world *world)
{
	static const struct tcp_count base = {BASE_IN, BASE_OUT};

	*s = (struct server){.world = world};
	assert_int_equal(ledger_begin(&s->w, &world->ledger, terms_of(world), &base, NULL, 0), 0);
}

/* Up to just before the ring's end. */
static void server_warm_up(struct server *s)
{
	while (s->ntaken < BEFORE) {
		receive(s, 20 * LEDGER_REQUEST_LEN);
		take(s);
		for (uint32_t i = 20; i; i--)
			answer(s, (uint32_t)s->ntaken - i, NBD_OK);
		send_all(s);
	}
}

/* A successor in the same process: what is taken up is taken again. */
static void server_succeed(struct server *s)
{
	struct tcp_count now = counters(s->world);
	struct ledger_cut cut;
	struct nbd_request r;

	assert_int_equal(ledger_take_up(&s->w, &s->world->ledger, &now, SIZE, &cut), 0);
	/* forget the replies that did not leave, as it did */
	while (s->world->nreplies > 1 &&
	       s->world->replies[s->world->nreplies - 2].end >= s->world->sent)
		s->world->nreplies--;
	while (!ledger_next(&s->w, &r)) {
		s->taken[(r.cookie - 1) / 0x0101010101010101ULL] = r;
		ledger_served(&s->w);
	}
	s->ntaken = s->w.requests;
}

static void converse(struct server *s)
{
	const uint32_t n = (uint32_t)s->ntaken;

	receive(s, 4 * LEDGER_REQUEST_LEN + 13);
	take(s);
	answer(s, n + 2, NBD_OK);
	answer(s, n, NBD_EIO);
	send_bytes(s, 1);
	answer(s, n + 3, NBD_OK);
	send_bytes(s, 18);
	receive(s, 15 + 3 * LEDGER_REQUEST_LEN); /* over the ring's end */
	send_all(s);
	take(s);
	answer(s, n + 6, NBD_OK);
	answer(s, n + 5, NBD_OK);
	answer(s, n + 4, NBD_OK);
	send_bytes(s, 20);
	server_succeed(s);
	answer(s, n + 1, NBD_OK);
	answer(s, n + 7, NBD_OK);
	send_all(s);
}

/* --- the successor's side -------------------------------------------------------------------- */

static bool answered[ALL];

/* Marks what the client has at least a byte of; the cut one is left in *cut. */
static void mark_answered(const struct world *w, struct ledger_cut *cut)
{
	uint64_t at = 0;

	memset(answered, 0, sizeof(answered));
	*cut = (struct ledger_cut){0};
	for (uint32_t i = 0; i < w->nreplies && at < w->sent; i++) {
		answered[w->replies[i].request] = true;
		if (w->replies[i].end > w->sent)
			*cut = (struct ledger_cut){true, request(w->replies[i].request),
						   w->replies[i].error, w->sent - at};
		at = w->replies[i].end;
	}
	assert_true(at >= w->sent);
}

static void assert_taken_up(struct world *w, const struct ledger_cut *want)
{
	struct tcp_count now = counters(w);
	struct ledger_writer writer;
	struct ledger_cut cut;
	struct nbd_request r;

	assert_int_equal(ledger_take_up(&writer, &w->ledger, &now, SIZE, &cut), 0);
	assert_true(ledger_sent(&writer, &cut) == w->sent);
	assert_int_equal(cut.is, want->is);
	if (cut.is) {
		same_request(&cut.request, &want->request);
		assert_int_equal(cut.error, want->error);
		assert_true(cut.skip == want->skip);
	}
	for (uint64_t n = 0; n < w->received / LEDGER_REQUEST_LEN; n++) {
		struct nbd_request is = request(n);

		if (answered[n])
			continue;
		assert_int_equal(ledger_next(&writer, &r), 0);
		same_request(&r, &is);
		ledger_served(&writer);
	}
	assert_int_equal(ledger_next(&writer, &r), -EAGAIN);
}

/* The copy @w of a world tells exactly what is left to do, also to the next successor after one
 * that took all requests and did no more. */
static void assert_exact(struct world *w)
{
	struct ledger_cut want;

	mark_answered(w, &want);
	assert_taken_up(w, &want);
	assert_taken_up(w, &want);
}

/* Instructions that @child, stopped, executed until its end; each state it left is exact. */
static uint32_t step_to_end(pid_t child, const struct world *w)
{
	struct world *last = malloc(sizeof(*last)), *copy = malloc(sizeof(*copy));
	uint32_t states = 0, steps = 0;
	int status;

	assert_true(last && copy);
	memset(last, 0, sizeof(*last));
	for (;; steps++) {
		assert_int_equal(ptrace(PTRACE_SINGLESTEP, child, 0, 0), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
		if (WIFEXITED(status))
			break;
		assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
		if (memcmp(last, w, sizeof(*last)) == 0)
			continue;
		memcpy(last, w, sizeof(*last));
		memcpy(copy, w, sizeof(*copy));
		assert_exact(copy);
		states++;
	}
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_true(steps > STEPS_MIN); /* it was stepped, indeed */
	assert_true(states > 100);
	print_message("%u instructions, %u states\n", steps, states);
	free(last);
	free(copy);
	return states;
}

static void steps_are_exact(const struct nbd_terms *t)
{
	struct world *w = world_new(t);
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0) {
		struct server *s = calloc(1, sizeof(*s));

		alarm(100);
		server_begin(s, w);
		server_warm_up(s);
		if (ptrace(PTRACE_TRACEME, 0, 0, 0) || raise(SIGSTOP))
			_exit(2);
		converse(s);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSTOPPED(status));
	step_to_end(child, w);
	assert_int_equal(w->received, (BEFORE + 8) * LEDGER_REQUEST_LEN);
	world_free(w);
}

static void a_kill_at_each_instruction_leaves_an_exact_ledger(void **state)
{
	(void)state;
	steps_are_exact(&simple);
}

static void a_kill_at_each_instruction_leaves_an_exact_ledger_of_structured_replies(void **state)
{
	(void)state;
	steps_are_exact(&structured);
}

/* --- states made by hand --------------------------------------------------------------------- */

/* 9 requests, 7 of them answered in disorder, none settled. */
static struct server *unsent_replies(const struct nbd_terms *t)
{
	static const uint32_t order[] = {3, 0, 8, 6, 1, 7, 2};
	struct server *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	server_begin(s, world_new(t));
	receive(s, 9 * LEDGER_REQUEST_LEN + 5);
	take(s);
	for (uint32_t i = 0; i < 7; i++)
		answer(s, order[i], order[i] == 1 ? NBD_EIO : NBD_OK);
	return s;
}

static void server_free(struct server *s)
{
	world_free(s->world);
	free(s);
}

static void each_byte_of_the_replies_can_be_the_last_that_left(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct server *s = unsent_replies(i ? &structured : &simple);
		struct world *copy = malloc(sizeof(*copy));

		for (s->world->sent = 0; s->world->sent <= s->w.end; s->world->sent++) {
			memcpy(copy, s->world, sizeof(*copy));
			assert_exact(copy);
		}
		free(copy);
		server_free(s);
	}
}

static void each_byte_of_the_requests_can_be_the_last_that_came(void **state)
{
	struct server *s = calloc(1, sizeof(*s));
	struct world *copy = malloc(sizeof(*copy));

	(void)state;
	server_begin(s, world_new(&simple));
	for (int i = 0; i < 700 * (int)LEDGER_REQUEST_LEN; i++) {
		receive(s, 1);
		if (i % 100 != 0) /* requests stay in the ring meanwhile */
			continue;
		memcpy(copy, s->world, sizeof(*copy));
		assert_exact(copy);
		if (i % 3 != 0)
			continue;
		take(s);
		while (s->world->nreplies + 1 < s->ntaken)
			answer(s, s->world->nreplies, NBD_OK);
		if (i / 100 % 2)
			send_all(s);
	}
	free(copy);
	server_free(s);
}

static void a_full_table_takes_no_request_until_a_reply_left(void **state)
{
	struct server *s = calloc(1, sizeof(*s));
	struct nbd_request r;
	struct world *copy = malloc(sizeof(*copy));

	(void)state;
	server_begin(s, world_new(&simple));
	receive(s, (LEDGER_SLOTS + 2) * LEDGER_REQUEST_LEN);
	take(s);
	assert_int_equal(s->ntaken, LEDGER_SLOTS);
	assert_int_equal(ledger_next(&s->w, &r), -ENOBUFS);
	answer(s, 100, NBD_OK);
	assert_int_equal(ledger_next(&s->w, &r), -ENOBUFS);
	send_all(s);
	take(s);
	assert_int_equal(s->ntaken, LEDGER_SLOTS + 1);
	memcpy(copy, s->world, sizeof(*copy));
	copy->received -= LEDGER_REQUEST_LEN; /* the one for which there is no slot */
	assert_exact(copy);
	free(copy);
	server_free(s);
}

static void what_a_handshake_received_too_much_is_the_first_request(void **state)
{
	struct world *w = world_new(&structured);
	struct server *s = calloc(1, sizeof(*s));
	uint8_t in[LEDGER_RING_LEN + 1];

	(void)state;
	put_stream(0, in, sizeof(in));
	s->world = w;
	ledger_begin_handshake(&w->ledger);
	assert_int_equal(ledger_begin(&s->w, &w->ledger, &structured,
				      &(struct tcp_count){BASE_IN, BASE_OUT}, in, sizeof(in)),
			 -EBADMSG);
	assert_int_equal(ledger_begin(&s->w, &w->ledger, &structured,
				      &(struct tcp_count){BASE_IN, BASE_OUT}, in, 30),
			 0);
	w->received = 30;
	take(s);
	assert_int_equal(s->ntaken, 1);
	receive(s, 100);
	take(s);
	assert_int_equal(s->ntaken, 130 / LEDGER_REQUEST_LEN);
	assert_exact(w);
	server_free(s);
}

/* The client has @n bytes of its first reply before it asked. */
static struct server *sent_ahead(uint32_t n)
{
	struct server *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->world = world_new(&simple);
	s->world->ledger.ahead = n;
	s->world->sent = n;
	assert_int_equal(ledger_begin(&s->w, &s->world->ledger, &simple,
				      &(struct tcp_count){BASE_IN, BASE_OUT + n}, NULL, 0),
			 0);
	return s;
}

static void assert_nothing_replied(struct world *w, uint32_t ahead)
{
	struct tcp_count now = counters(w);
	struct ledger_writer writer;
	struct ledger_cut cut;

	assert_int_equal(ledger_take_up(&writer, &w->ledger, &now, SIZE, &cut), 0);
	assert_false(cut.is);
	assert_int_equal(ledger_sent(&writer, &cut), ahead);
	assert_int_equal(ledger_ahead(&writer), ahead);
	assert_int_equal(writer.end, 0);
}

static void what_was_sent_ahead_is_the_begin_of_the_first_reply(void **state)
{
	struct server *s = sent_ahead(4);
	struct world *copy = malloc(sizeof(*copy));

	(void)state;
	assert_int_equal(s->world->ledger.base_sent, BASE_OUT);
	assert_nothing_replied(s->world, 4);
	receive(s, 3 * LEDGER_REQUEST_LEN);
	take(s);
	memcpy(copy, s->world, sizeof(*copy));
	assert_nothing_replied(copy, 4);
	assert_int_equal(ledger_ahead(&s->w), 4);
	answer(s, 2, NBD_OK);
	assert_int_equal(ledger_ahead(&s->w), 0);
	answer(s, 0, NBD_EIO);
	for (; s->world->sent <= s->w.end; s->world->sent++) {
		memcpy(copy, s->world, sizeof(*copy));
		assert_exact(copy);
	}
	free(copy);
	server_free(s);
}

static void more_ahead_than_there_can_be_is_refused(void **state)
{
	struct server *s = sent_ahead(4);
	struct world *w = s->world;
	struct tcp_count few = {BASE_IN, 3}, now;
	struct ledger_writer writer;
	struct ledger_cut cut;

	(void)state;
	w->sent = 5;
	now = counters(w);
	assert_int_equal(ledger_take_up(&writer, &w->ledger, &now, SIZE, &cut), -EBADMSG);
	w->sent = 4;
	now = counters(w);
	w->ledger.ahead = 5;
	assert_int_equal(ledger_take_up(&writer, &w->ledger, &now, SIZE, &cut), -EBADMSG);
	assert_int_equal(ledger_begin(&writer, &w->ledger, &simple, &now, NULL, 0), -EBADMSG);
	w->ledger.ahead = 4;
	assert_int_equal(ledger_begin(&writer, &w->ledger, &simple, &few, NULL, 0), -EBADMSG);
	assert_int_equal(ledger_begin(&writer, &w->ledger, &structured, &now, NULL, 0), -EBADMSG);
	w->ledger.structured = 1;
	assert_int_equal(ledger_take_up(&writer, &w->ledger, &now, SIZE, &cut), -EBADMSG);
	server_free(s);
}

/* --- ledgers that are not true --------------------------------------------------------------- */

static int take_up(const struct world *w, struct world *copy)
{
	struct tcp_count now = counters(w);
	struct ledger_writer writer;
	struct ledger_cut cut;
	int rc;

	memcpy(copy, w, sizeof(*copy));
	rc = ledger_take_up(&writer, &copy->ledger, &now, SIZE, &cut);
	if (rc)
		assert_memory_equal(&copy->ledger, &w->ledger, sizeof(w->ledger));
	return rc;
}

static void a_ledger_that_the_socket_contradicts_is_refused_and_left_alone(void **state)
{
	struct server *s = unsent_replies(&simple);
	struct world *w = s->world, *copy = malloc(sizeof(*copy)), *good = malloc(sizeof(*good));

	(void)state;
	memcpy(good, w, sizeof(*good));
#define refused(change)                                                                            \
	do {                                                                                       \
		memcpy(w, good, sizeof(*w));                                                       \
		change;                                                                            \
		assert_int_equal(take_up(w, copy), -EBADMSG);                                      \
	} while (0)
	assert_int_equal(take_up(w, copy), 0);
	refused(w->sent = s->w.end + 1);
	refused(w->received = 9 * LEDGER_REQUEST_LEN - 1);
	refused(w->received = 9 * LEDGER_REQUEST_LEN + LEDGER_RING_LEN + 1);
	refused(w->ledger.base_sent += 1);
	refused(w->ledger.base_received += 1000);
	refused(w->ledger.magic++);
	refused(w->ledger.version++);
	refused(w->ledger.phase = LEDGER_HANDSHAKE);
	refused(w->ledger.phase = LEDGER_NEW);
	refused(w->ledger.phase = 7);
	refused(w->ledger.structured = 2);
	refused(w->ledger.structured = 1); /* then replies would be longer than those there */
	refused(w->ledger.settled = 1);
	refused(w->ledger.requests = UINT64_MAX);
	refused(w->ledger.requests--);
	refused(w->ledger.slots[s->taken[4].slot].seq = 6); /* twice */
	refused(w->ledger.slots[s->taken[4].slot].seq = 4); /* answered */
	refused(w->ledger.slots[s->taken[3].slot].start = 1);
	refused(w->ledger.slots[s->taken[3].slot].start = UINT64_MAX - 1);
	refused(w->ledger.slots[s->taken[3].slot].len++);
	refused(w->ledger.slots[s->taken[3].slot].off = SIZE); /* was answered with data */
	refused(w->ledger.slots[s->taken[3].slot].type = NBD_CMD_DISC);
	refused(w->ledger.slots[s->taken[3].slot].type = NBD_CMD_WRITE);
	refused(w->ledger.slots[s->taken[8].slot].seq = 0); /* a gap in the replies */
#undef refused
	free(copy);
	free(good);
	server_free(s);
}

static uint64_t random_state = 88172645463325252ULL;

static uint64_t rnd(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	return random_state ^= random_state << 17;
}

static void scribble(struct world *w)
{
	static const uint64_t odd[] = {0, 1, UINT64_MAX, UINT64_MAX - 1, 1ULL << 63, LEDGER_SLOTS};
	uint8_t *bytes = (uint8_t *)&w->ledger;
	size_t at = rnd() % 3 ? rnd() % (offsetof(struct ledger, slots) + 20 * 48)
			      : rnd() % offsetof(struct ledger, ring);
	size_t len = (size_t)1 << rnd() % 4;

	at &= ~(len - 1);
	memcpy(bytes + at, rnd() % 2 ? &odd[rnd() % 6] : &random_state, len);
	if (rnd() % 8 == 0)
		w->received = rnd() % 2 ? rnd() : rnd() % 1000;
	if (rnd() % 8 == 0)
		w->sent = rnd() % 2 ? rnd() : rnd() % 10000;
}

/* What is refused is refused; what is taken up leads to requests and replies in bounds. */
static void a_scribbled_ledger_is_refused_or_harmless(void **state)
{
	struct server *s = unsent_replies(&simple);
	struct world *w = malloc(sizeof(*w));
	uint32_t taken_up = 0;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct ledger_writer writer;
		struct ledger_cut cut;
		struct nbd_request r;
		struct tcp_count now;
		uint8_t *at;
		uint32_t n = 0;

		memcpy(w, s->world, sizeof(*w));
		w->sent = rnd() % (s->w.end + 1);
		for (uint64_t many = rnd() % 4; many--;)
			scribble(w);
		now = counters(w);
		if (ledger_take_up(&writer, &w->ledger, &now, SIZE, &cut))
			continue;
		taken_up++;
		if (cut.is)
			assert_true(cut.skip && cut.skip < nbd_reply_len(&cut.request,
									 &writer.terms, cut.error));
		while (!ledger_next(&writer, &r)) {
			assert_true(r.slot < LEDGER_SLOTS && ++n <= LEDGER_SLOTS);
			ledger_served(&writer);
			if (r.type == NBD_CMD_READ)
				ledger_answer(&writer, &r, NBD_EIO);
		}
		ledger_settle(&writer, writer.end);
		assert_true(ledger_room(&writer, &at) <= LEDGER_RING_LEN);
		assert_true(at >= w->ledger.ring && at < w->ledger.ring + LEDGER_RING_LEN);
	}
	assert_true(taken_up > 1000);
	free(w);
	server_free(s);
}

static void only_a_sealed_memfd_of_the_right_length_is_a_ledger(void **state)
{
	int good = ledger_new(NULL), bad = memfd_create("bad", MFD_CLOEXEC), pipes[2];
	struct ledger *l = ledger_map(good);

	(void)state;
	assert_non_null(l);
	assert_int_equal(l->phase, LEDGER_NEW);
	ledger_unmap(l);
	assert_int_equal(ftruncate(good, 1), -1);
	assert_int_equal(ftruncate(bad, LEDGER_LEN), 0);
	assert_null(ledger_map(bad)); /* someone could cut it under us */
	assert_int_equal(pipe(pipes), 0);
	assert_null(ledger_map(pipes[0]));
	close(pipes[0]);
	close(pipes[1]);
	close(good);
	close(bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_kill_at_each_instruction_leaves_an_exact_ledger),
		cmocka_unit_test(
			a_kill_at_each_instruction_leaves_an_exact_ledger_of_structured_replies),
		cmocka_unit_test(each_byte_of_the_replies_can_be_the_last_that_left),
		cmocka_unit_test(each_byte_of_the_requests_can_be_the_last_that_came),
		cmocka_unit_test(a_full_table_takes_no_request_until_a_reply_left),
		cmocka_unit_test(what_a_handshake_received_too_much_is_the_first_request),
		cmocka_unit_test(what_was_sent_ahead_is_the_begin_of_the_first_reply),
		cmocka_unit_test(more_ahead_than_there_can_be_is_refused),
		cmocka_unit_test(a_ledger_that_the_socket_contradicts_is_refused_and_left_alone),
		cmocka_unit_test(a_scribbled_ledger_is_refused_or_harmless),
		cmocka_unit_test(only_a_sealed_memfd_of_the_right_length_is_a_ledger),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
