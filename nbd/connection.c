/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "nbd/pace.h"

#define SPARE_BUFFERS 4U

/* Buffers. */

static bool buffers_take(struct nbd_connection *c)
{
	struct nbd_thread *t = c->thread;

	if (c->buffers)
		return true;
	c->buffers = t->spare;
	if (c->buffers) {
		t->spare = c->buffers->next;
		t->spare_count--;
	} else {
		c->buffers = malloc(sizeof(*c->buffers));
	}
	c->in_at = c->in_len = c->out_at = c->out_len = 0;
	return c->buffers;
}

static void buffers_return(struct nbd_connection *c)
{
	struct nbd_thread *t = c->thread;

	if (!c->buffers)
		return;
	if (t->spare_count < SPARE_BUFFERS) {
		c->buffers->next = t->spare;
		t->spare = c->buffers;
		t->spare_count++;
	} else {
		free(c->buffers);
	}
	c->buffers = NULL;
}

/* Life. */

struct nbd_connection *nbd_connection_new(int fd)
{
	struct nbd_connection *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->fd = fd;
	TAILQ_INIT(&c->done);
	TAILQ_INIT(&c->again);
	return c;
}

void nbd_connection_reap(struct nbd_connection *c)
{
	struct nbd_thread *t = c->thread;

	if (!c->closed || c->in_flight || c->waiting)
		return;
	LIST_REMOVE(c, all);
	if (c->export)
		c->export->ops->unref(c->export);
	free(c);
	nbd_thread_ended_one(t);
}

static void count_reader(struct nbd_connection *c, int change)
{
	struct nbd_export *e = c->export;

	atomic_fetch_add(&e->connections, (uint32_t)change);
	if (e->ops->readers)
		e->ops->readers(e, c->is_link, change);
}

void nbd_connection_close(struct nbd_connection *c)
{
	struct nbd_thread *t = c->thread;

	if (c->closed)
		return;
	c->closed = true;
	loop_unwatch(t->loop, c->watch);
	if (c->is_link && !c->let_go) /* others hold it, too */
		shutdown(c->fd, SHUT_RDWR);
	close(c->fd);
	loop_timer_cancel(t->loop, &c->timer);
	if (c->is_runnable)
		TAILQ_REMOVE(&t->runnable, c, turn);
	if (c->handshake) {
		nbd_handshake_free(c->handshake);
		free(c->handshake);
	}
	if (c->export)
		count_reader(c, -1);
	nbd_misses_drop(c);
	if (c->waiting && nbd_budget_cancel(t->budget, &c->wait))
		c->waiting = false;
	nbd_grant_return(c);
	buffers_return(c);
	nbd_thread_closed_one(t, c);
	nbd_link_close(c);
	nbd_connection_reap(c);
}

void nbd_connection_wake(struct nbd_connection *c)
{
	if (c->closed || c->is_runnable)
		return;
	c->is_runnable = true;
	TAILQ_INSERT_TAIL(&c->thread->runnable, c, turn);
}

static void connection_on_event(void *arg, uint32_t events)
{
	struct nbd_connection *c = arg;

	/* HUP on AF_UNIX: both ways are shut, so nobody can receive a reply. A half-closed client
	 * shows as EPOLLIN and end of file, and gets its answers. */
	if (events & (EPOLLHUP | EPOLLERR)) {
		nbd_connection_close(c);
		return;
	}
	if (events & EPOLLIN)
		c->readable = true;
	nbd_connection_wake(c);
}

void nbd_count_protocol_error(struct nbd_thread *t)
{
	atomic_fetch_add_explicit(&t->protocol_errors, 1, memory_order_relaxed);
}

static void stall_look_later(struct nbd_connection *c)
{
	loop_timer_set(c->thread->loop, &c->timer, clock_now_ns() + NBD_STALL_MS * NSEC_PER_MSEC);
}

static void connection_on_timer(struct loop_timer *timer)
{
	struct nbd_connection *c =
		(struct nbd_connection *)((char *)timer - offsetof(struct nbd_connection, timer));

	if (c->handshake) {
		log_info("nbd", "client did not finish its handshake", "seconds=%u",
			 NBD_HANDSHAKE_MS / 1000);
		nbd_count_protocol_error(c->thread);
		nbd_connection_close(c);
	} else if (nbd_budget_has_line(c->thread->budget)) {
		nbd_misses_let_go_all(c);
	} else {
		stall_look_later(c);
	}
}

static bool handshake_begin(struct nbd_connection *c)
{
	c->handshake = malloc(sizeof(*c->handshake));
	if (!c->handshake)
		return false;
	nbd_handshake_init(c->handshake, c->directory ? &c->directory->directory
						      : nbd_thread_directory(c->thread));
	c->handshake->no_contexts = c->ledger;
	if (c->is_refused)
		c->handshake->refusal = NBD_REFUSAL;
	loop_timer_set(c->thread->loop, &c->timer,
		       clock_now_ns() + NBD_HANDSHAKE_MS * NSEC_PER_MSEC);
	return true;
}

/* False: marked closing after its name was found; the sweep may have passed this thread already. */
static bool transmission_begin(struct nbd_connection *c)
{
	count_reader(c, 1);
	return !atomic_load(&c->export->closing);
}

void nbd_connection_start(struct nbd_connection *c, struct nbd_thread *t)
{
	bool begun;

	c->thread = t;
	LIST_INSERT_HEAD(&t->connections, c, all);
	nbd_grant_init(c);
	c->timer.fn = connection_on_timer;
	c->watch = loop_watch(t->loop, c->fd, EPOLLIN, connection_on_event, c);
	c->let_go = t->releasing && c->ledger;
	begun = c->export ? transmission_begin(c) : handshake_begin(c);
	if (!begun || !c->watch || t->stopping || c->let_go)
		nbd_connection_close(c);
	else
		nbd_connection_wake(c);
}

/* Socket. */

enum nbd_pause nbd_receive_ended(struct nbd_connection *c, ssize_t n)
{
	if (n < 0 && errno == EINTR)
		return NBD_GO_ON;
	c->readable = false;
	if (n == 0) {
		c->is_ending = true;
		return NBD_GO_ON;
	}
	return errno == EAGAIN ? NBD_PAUSE_INPUT : NBD_PAUSE_END;
}

/* GO_ON when bytes came, or the end of file. */
static enum nbd_pause connection_receive(struct nbd_connection *c)
{
	struct nbd_buffers *b = c->buffers;
	size_t room;
	ssize_t n;

	if (!c->readable)
		return NBD_PAUSE_INPUT;
	if (c->in_at) {
		c->in_len -= c->in_at;
		memmove(b->in, b->in + c->in_at, c->in_len);
		c->in_at = 0;
	}
	room = sizeof(b->in) - c->in_len;
	n = recv(c->fd, b->in + c->in_len, room, MSG_DONTWAIT);
	if (n > 0) {
		c->in_len += (uint32_t)n;
		c->readable = (size_t)n == room; /* less: that was all */
		return NBD_GO_ON;
	}
	return nbd_receive_ended(c, n);
}

enum nbd_pause nbd_connection_send(struct nbd_connection *c, const void *body, size_t len,
				   int flags, size_t *body_sent)
{
	*body_sent = 0;
	while (c->out_at < c->out_len || *body_sent < len) {
		size_t out_left = c->out_len - c->out_at;
		struct iovec iov[2] = {
			{c->buffers->out + c->out_at, out_left},
			{(uint8_t *)body + *body_sent, len - *body_sent},
		};
		struct msghdr m = {.msg_iov = iov, .msg_iovlen = len ? 2 : 1};
		ssize_t n = sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL | flags);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? NBD_PAUSE_OUTPUT : NBD_PAUSE_END;
		c->sent += (uint64_t)n;
		if ((size_t)n < out_left) {
			c->out_at += (uint32_t)n;
			continue;
		}
		c->out_at = c->out_len = 0;
		*body_sent += (size_t)n - out_left;
	}
	return NBD_GO_ON;
}

enum nbd_pause nbd_connection_flush(struct nbd_connection *c)
{
	size_t none;

	return nbd_connection_send(c, "", 0, 0, &none);
}

enum nbd_pause nbd_connection_make_room(struct nbd_connection *c)
{
	if (c->out_len >= NBD_AHEAD_LEN && nbd_pace_sends_ahead(c)) {
		c->sent_ahead = true;
		return nbd_connection_flush(c);
	}
	if (NBD_OUT_LEN - c->out_len >= NBD_OUT_ROOM)
		return NBD_GO_ON;
	return nbd_connection_flush(c);
}

/* Handshake. */

static enum nbd_pause handshake_send(struct nbd_connection *c)
{
	struct nbd_handshake *h = c->handshake;

	while (h->out_sent < h->out_len) {
		ssize_t n = send(c->fd, h->out + h->out_sent, h->out_len - h->out_sent,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? NBD_PAUSE_OUTPUT : NBD_PAUSE_END;
		h->out_sent += (size_t)n;
	}
	h->out_sent = h->out_len = 0;
	return NBD_GO_ON;
}

static enum nbd_pause handshake_finish(struct nbd_connection *c)
{
	struct nbd_handshake *h = c->handshake;

	c->export = h->export;
	h->export = NULL;
	c->terms.structured = h->structured;
	c->terms.context = h->context;
	nbd_handshake_free(h);
	free(h);
	c->handshake = NULL;
	loop_timer_cancel(c->thread->loop, &c->timer);
	return transmission_begin(c) ? NBD_GO_ON : NBD_PAUSE_END;
}

static enum nbd_pause connection_negotiate(struct nbd_connection *c)
{
	struct nbd_handshake *h = c->handshake;
	enum nbd_pause pause;

	for (uint32_t i = 0; i < NBD_TURN_REQUESTS; i++) {
		size_t n;

		pause = handshake_send(c);
		if (pause)
			return pause;
		if (h->state == NBD_HANDSHAKE_READY)
			return handshake_finish(c);
		if (h->state == NBD_HANDSHAKE_BROKEN)
			nbd_count_protocol_error(c->thread);
		if (h->state == NBD_HANDSHAKE_BROKEN || h->state == NBD_HANDSHAKE_GOODBYE)
			return NBD_PAUSE_END;
		n = nbd_handshake_feed(h, c->buffers->in + c->in_at, c->in_len - c->in_at);
		c->in_at += (uint32_t)n;
		/* Before the client can know of it: a kill leaves no gap. */
		if (h->state == NBD_HANDSHAKE_READY && c->ledger && nbd_link_begin(c)) {
			nbd_count_protocol_error(c->thread);
			return NBD_PAUSE_END;
		}
		if (n || h->state > NBD_HANDSHAKE_OPTIONS)
			continue;
		pause = connection_receive(c);
		if (pause)
			return pause;
		if (c->is_ending)
			return NBD_PAUSE_END;
	}
	return NBD_PAUSE_SHARE;
}

/* Requests. */

void nbd_reply_enter(struct nbd_connection *c, const struct nbd_request *r, size_t n,
		     uint32_t error)
{
	if (c->ledger) {
		if (!c->out_len)
			c->out_at = ledger_ahead(&c->ledger->writer);
		ledger_answer(&c->ledger->writer, r, error);
	}
	c->out_len += (uint32_t)n;
}

void nbd_reply_plain(struct nbd_connection *c, const struct nbd_request *r, uint32_t error)
{
	uint8_t *out = c->buffers->out + c->out_len;

	nbd_reply_enter(c, r, nbd_put_plain(out, r, &c->terms, error), error);
}

static void reply_status(struct nbd_connection *c, const struct nbd_request *r)
{
	struct nbd_extent runs[NBD_STATUS_RUNS_MAX];
	int n;

	n = c->export->ops->block_status(c->export, r->off, r->len, runs,
					 r->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : NBD_STATUS_RUNS_MAX);
	n = nbd_status_trim(r, runs, n);
	if (n < 1)
		nbd_reply_plain(c, r, NBD_EIO);
	else
		c->out_len += (uint32_t)nbd_put_status(c->buffers->out + c->out_len, r, runs, n);
}

/* Not GO_ON: @r is still unanswered and comes again. */
static enum nbd_pause request_serve(struct nbd_connection *c, const struct nbd_request *r)
{
	uint32_t error;

	if (r->type == NBD_CMD_DISC) {
		c->said_goodbye = true;
		c->is_ending = true;
		return NBD_GO_ON;
	}
	if (nbd_request_payload(r)) {
		/* A link's client was told that it is read-only, and the ring is for requests. */
		if (c->ledger || nbd_request_payload(r) > NBD_PAYLOAD_MAX) {
			nbd_count_protocol_error(c->thread);
			return NBD_PAUSE_END;
		}
		c->skip = nbd_request_payload(r);
		c->skipped = *r;
		return NBD_GO_ON;
	}
	error = nbd_request_check(r, &c->terms, c->export->size);
	if (error) {
		nbd_count_protocol_error(c->thread);
		nbd_reply_plain(c, r, error);
		return NBD_GO_ON;
	}
	if (r->type == NBD_CMD_READ)
		return nbd_read_serve(c, r, true);
	if (r->type == NBD_CMD_BLOCK_STATUS) {
		reply_status(c, r);
		return NBD_GO_ON;
	}
	c->export->ops->cache(c->export, r->off, r->len);
	nbd_reply_plain(c, r, NBD_OK);
	return NBD_GO_ON;
}

static enum nbd_pause request_skip(struct nbd_connection *c)
{
	uint32_t held = c->in_len - c->in_at;
	uint32_t n = held < c->skip ? held : c->skip;

	if (!n)
		return connection_receive(c);
	c->in_at += n;
	c->skip -= n;
	if (!c->skip) {
		nbd_count_protocol_error(c->thread);
		nbd_reply_plain(c, &c->skipped, nbd_request_check(&c->skipped, &c->terms, 0));
	}
	return NBD_GO_ON;
}

/* What a connection did of its turn. */
struct share {
	uint32_t requests;
	uint64_t bytes;
};

static bool share_is_used(const struct share *s)
{
	return s->requests >= NBD_TURN_REQUESTS || s->bytes >= NBD_TURN_BYTES;
}

/* GO_ON without *got: look again. */
static enum nbd_pause request_get(struct nbd_connection *c, struct nbd_request *r, bool *got)
{
	if (c->in_len - c->in_at < sizeof(struct nbd_wire_request))
		return connection_receive(c);
	if (c->waiting || c->in_flight >= NBD_IN_FLIGHT_MAX)
		return NBD_PAUSE_READS;
	if (nbd_request_parse(c->buffers->in + c->in_at, r)) {
		nbd_count_protocol_error(c->thread);
		return NBD_PAUSE_END;
	}
	*got = true;
	return NBD_GO_ON;
}

static enum nbd_pause request_next(struct nbd_connection *c, struct share *done)
{
	struct nbd_request r;
	enum nbd_pause pause;
	bool got = false;

	pause = nbd_connection_make_room(c);
	if (pause)
		return pause;
	if (c->skip)
		return request_skip(c);
	pause = c->ledger ? nbd_link_next(c, &r, &got) : request_get(c, &r, &got);
	if (pause || !got)
		return pause;
	pause = request_serve(c, &r);
	if (pause)
		return pause;
	nbd_grant_return(c);
	if (c->ledger)
		nbd_link_served(c);
	else
		c->in_at += sizeof(struct nbd_wire_request);
	done->requests++;
	done->bytes += r.type == NBD_CMD_READ || r.type == NBD_CMD_WRITE ? r.len : 0;
	return NBD_GO_ON;
}

/* Nothing more is taken in: the client has ended, or a successor takes over. */
static enum nbd_pause connection_end(struct nbd_connection *c)
{
	enum nbd_pause pause = nbd_connection_flush(c);

	if (pause)
		return pause;
	if (c->in_flight)
		return NBD_PAUSE_READS;
	c->let_go = !c->is_ending;
	return NBD_PAUSE_END;
}

/* Two looks at the clock a turn, however many reads it answered. */
static void note_latency(struct nbd_connection *c, uint64_t began_ns)
{
	if (c->served && c->thread->resident_latency)
		histogram_add(c->thread->resident_latency, clock_now_ns() - began_ns, c->served);
}

static enum nbd_pause connection_transmit(struct nbd_connection *c)
{
	enum nbd_pause pause = NBD_GO_ON, flushed;
	uint64_t began_ns = clock_now_ns();
	struct share done = {0};

	c->served = 0;

	while (!pause) {
		if (c->body.kind != NBD_BODY_NONE)
			pause = nbd_body_send(c);
		else if (!TAILQ_EMPTY(&c->done) || !TAILQ_EMPTY(&c->again))
			pause = nbd_miss_answer(c);
		else if (c->is_ending || (c->thread->releasing && c->ledger))
			pause = connection_end(c);
		else if (share_is_used(&done))
			pause = NBD_PAUSE_SHARE;
		else
			pause = request_next(c, &done);
		if (pause == NBD_PAUSE_INPUT && c->sent_ahead) {
			c->sent_ahead = false;
			c->readable = true;
			pause = nbd_connection_flush(c);
		}
	}
	c->taken = done.requests;
	if (done.requests)
		atomic_fetch_add_explicit(&c->thread->requests, done.requests,
					  memory_order_relaxed);
	flushed = pause == NBD_PAUSE_END || pause == NBD_PAUSE_OUTPUT ? NBD_GO_ON
								      : nbd_connection_flush(c);
	if (c->ledger)
		nbd_link_settle(c);
	note_latency(c, began_ns);
	nbd_pace_after(c->thread);
	return flushed ? flushed : pause;
}

/* The turn. */

/* A client that neither reads nor lets its misses' memory go, while others may wait for it. */
static void stall_watch(struct nbd_connection *c, bool holds_memory, bool moved)
{
	if (c->handshake)
		return;
	if (!holds_memory)
		loop_timer_cancel(c->thread->loop, &c->timer);
	else if (moved || !c->timer.slot)
		stall_look_later(c);
}

static void connection_pause(struct nbd_connection *c, enum nbd_pause pause, bool moved)
{
	static const uint32_t events[] = {
		[NBD_PAUSE_INPUT] = EPOLLIN,
		[NBD_PAUSE_OUTPUT] = EPOLLOUT,
		[NBD_PAUSE_READS] = 0,
	};

	if (pause == NBD_PAUSE_OUTPUT)
		nbd_grant_return(c); /* the client may take for ever; it asks again */
	stall_watch(c, pause == NBD_PAUSE_OUTPUT && nbd_misses_let_go(c), moved);
	if (c->in_at == c->in_len && c->out_at == c->out_len)
		buffers_return(c);
	if (pause == NBD_PAUSE_SHARE)
		nbd_connection_wake(c);
	else
		loop_rewatch(c->thread->loop, c->watch, events[pause]);
}

void nbd_connection_run(struct nbd_connection *c)
{
	uint32_t turns = 0;
	enum nbd_pause pause = NBD_GO_ON;
	uint64_t sent = c->sent;

	nbd_pace_before(c);
	if (!buffers_take(c)) {
		nbd_connection_close(c);
		return;
	}
	if (c->handshake)
		pause = connection_negotiate(c);
	else if (c->ledger && c->ledger->cut.is)
		nbd_link_continue(c);
	if (!pause) {
		do
			pause = connection_transmit(c);
		while (pause == NBD_PAUSE_INPUT && nbd_pace_spin(c) && ++turns < NBD_SPIN_TURNS);
		if (pause == NBD_PAUSE_INPUT && c->readable)
			pause = NBD_PAUSE_SHARE; /* others first, but no sleep */
	}
	if (pause == NBD_PAUSE_END)
		nbd_connection_close(c);
	else
		connection_pause(c, pause, c->sent != sent);
}
