/* SPDX-License-Identifier: Apache-2.0 */
/* How a READ is answered.
 *
 *	resident, in the page cache, small	copied behind its header into `out`
 *	resident, in the page cache, large	header, then sendfile; a body that may take turns
 *	else					a miss: ops->read into memory of the budget
 *
 * Once a header left, its data must follow. If the store lost the rest of a body meanwhile, it is
 * fetched again, and if that fails the connection closes; there is no padding.
 */
#include "nbd/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include "base/cached.h"

static void put_read_header(struct nbd_connection *c, const struct nbd_request *r)
{
	uint8_t *out = c->buffers->out + c->out_len;

	nbd_reply_enter(c, r, nbd_put_read_header(out, r, &c->terms), NBD_OK);
}

/* Misses. */

static void grant_arrived(struct loop_post *p)
{
	struct nbd_connection *c =
		(struct nbd_connection *)((char *)p - offsetof(struct nbd_connection, post));

	c->waiting = false;
	c->grant = c->wait.want;
	if (!c->closed) {
		nbd_connection_wake(c);
		return;
	}
	nbd_grant_return(c);
	nbd_connection_reap(c);
}

static void grant_announce(struct nbd_budget_wait *w)
{
	struct nbd_connection *c =
		(struct nbd_connection *)((char *)w - offsetof(struct nbd_connection, wait));

	loop_post(c->thread->loop, &c->post);
}

void nbd_grant_init(struct nbd_connection *c)
{
	c->post.fn = grant_arrived;
	c->wait.granted = grant_announce;
}

void nbd_grant_return(struct nbd_connection *c)
{
	if (c->grant)
		nbd_budget_give(c->thread->budget, &c->export->budget, c->grant);
	c->grant = 0;
}

static uint64_t miss_cost(uint32_t len)
{
	return (uint64_t)len + NBD_MISS_OVERHEAD;
}

static void memory_give(struct nbd_connection *c, uint32_t len)
{
	nbd_budget_give(c->thread->budget, &c->export->budget, miss_cost(len));
}

/* False: stand in line. */
static bool memory_take(struct nbd_connection *c, uint32_t len)
{

	if (c->waiting)
		return false;
	if (c->grant == miss_cost(len)) {
		c->grant = 0;
		return true;
	}
	nbd_grant_return(c); /* it was for another request, which found its bytes in the store */
	if (nbd_budget_take(c->thread->budget, &c->export->budget, miss_cost(len), &c->wait))
		return true;
	c->waiting = true;
	return false;
}

static size_t memory_len(uint32_t len)
{
	return ((size_t)len + NBD_MISS_ALIGN - 1) & ~(NBD_MISS_ALIGN - 1);
}

/* Aligned: the disk may read into it without the page cache. NULL without memory. */
static uint8_t *memory_new(struct nbd_thread *t, uint32_t len)
{
	for (uint32_t i = 0; i < NBD_KEPT; i++) {
		struct nbd_memory *k = &t->kept[i];
		uint8_t *p = k->p;

		if (!p || k->len != memory_len(len))
			continue;
		k->p = NULL;
		return p;
	}
	return aligned_alloc(NBD_MISS_ALIGN, memory_len(len));
}

static struct nbd_memory *kept_place(struct nbd_thread *t)
{
	for (uint32_t i = 0; i < NBD_KEPT; i++)
		if (!t->kept[i].p)
			return &t->kept[i];
	return &t->kept[t->kept_next++ % NBD_KEPT];
}

/* Large memory is kept for the next miss. */
static void memory_free(struct nbd_thread *t, uint8_t *p, uint32_t len)
{
	size_t real = memory_len(len);
	struct nbd_memory *k;

	if (real >= NBD_KEPT_MIN && real <= NBD_KEPT_MAX) {
		k = kept_place(t);
		free(k->p);
		*k = (struct nbd_memory){p, real};
	} else {
		free(p);
	}
}

void nbd_kept_free(struct nbd_thread *t)
{
	for (uint32_t i = 0; i < NBD_KEPT; i++)
		free(t->kept[i].p);
}

static void miss_let_go(struct nbd_miss *m)
{
	if (!m->data)
		return;
	memory_free(m->c->thread, m->data, m->read.len);
	m->data = NULL;
	memory_give(m->c, m->read.len);
}

void nbd_miss_free(struct nbd_miss *m)
{
	miss_let_go(m);
	free(m);
}

static void line_drop(struct nbd_miss_line *line)
{
	struct nbd_miss *m;

	while ((m = TAILQ_FIRST(line))) {
		TAILQ_REMOVE(line, m, line);
		nbd_miss_free(m);
	}
}

void nbd_misses_drop(struct nbd_connection *c)
{
	line_drop(&c->done);
	line_drop(&c->again);
	if (c->body.kind == NBD_BODY_MEMORY)
		nbd_miss_free(c->body.miss);
	c->body.kind = NBD_BODY_NONE;
}

static void miss_stalled(struct nbd_read *r)
{
	miss_let_go((struct nbd_miss *)((char *)r - offsetof(struct nbd_miss, read)));
}

static void miss_done(struct nbd_read *r, int rc)
{
	struct nbd_miss *m = (struct nbd_miss *)((char *)r - offsetof(struct nbd_miss, read));
	struct nbd_connection *c = m->c;

	c->in_flight--;
	m->rc = rc;
	if (c->closed) {
		nbd_miss_free(m);
		nbd_connection_reap(c);
	} else if (rc == -EAGAIN && m->is_refetch) {
		nbd_miss_free(m);
		c->body.kind = NBD_BODY_FILE; /* which fetches again what is not resident */
		nbd_connection_wake(c);
	} else if (rc == -EAGAIN) {
		miss_let_go(m);
		TAILQ_INSERT_TAIL(&c->again, m, line);
		nbd_connection_wake(c);
	} else if (!m->is_refetch) {
		TAILQ_INSERT_TAIL(&c->done, m, line);
		nbd_connection_wake(c);
	} else if (rc) { /* the header has left */
		nbd_miss_free(m);
		nbd_connection_close(c);
	} else {
		c->body.kind = NBD_BODY_MEMORY;
		c->body.miss = m;
		nbd_connection_wake(c);
	}
}

/* The memory is the caller's to have taken. NULL without it. */
static struct nbd_miss *miss_new(struct nbd_connection *c, uint64_t off, uint32_t len)
{
	struct nbd_miss *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->data = memory_new(c->thread, len);
	if (!m->data) {
		free(m);
		return NULL;
	}
	m->c = c;
	m->read = (struct nbd_read){
		.off = off, .len = len, .dst = m->data, .stalled = miss_stalled, .done = miss_done};
	return m;
}

static void miss_start(struct nbd_miss *m)
{
	struct nbd_connection *c = m->c;

	c->in_flight++;
	c->export->ops->read(c->export, &m->read, c->thread->loop);
}

static enum nbd_pause read_miss(struct nbd_connection *c, const struct nbd_request *r)
{
	struct nbd_miss *m;

	if (!memory_take(c, r->len))
		return NBD_PAUSE_READS;
	m = miss_new(c, r->off, r->len);
	if (!m) {
		memory_give(c, r->len);
		nbd_reply_plain(c, r, NBD_ENOMEM);
		return NBD_GO_ON;
	}
	m->request = *r;
	miss_start(m);
	return NBD_GO_ON;
}

/* Bodies. */

/* The rest of the body is no longer in the store. Its memory is not waited for: what the budget
 * gave to this connection may stand in line behind this very body. */
static enum nbd_pause body_refetch(struct nbd_connection *c)
{
	uint32_t len = c->body.left < NBD_REFETCH_LEN ? c->body.left : NBD_REFETCH_LEN;
	struct nbd_miss *m = miss_new(c, c->body.off, len);

	if (!m)
		return NBD_PAUSE_END;
	nbd_budget_force(c->thread->budget, &c->export->budget, miss_cost(len));
	m->is_refetch = true;
	m->read.is_begun = true;
	c->body.kind = NBD_BODY_REFETCH;
	miss_start(m);
	return NBD_PAUSE_READS;
}

static void body_advance(struct nbd_connection *c, uint32_t n)
{
	c->body.off += n;
	c->body.left -= n;
	if (!c->body.left)
		c->body.kind = NBD_BODY_NONE;
}

static enum nbd_pause body_send_memory(struct nbd_connection *c)
{
	struct nbd_miss *m = c->body.miss;
	uint64_t at = c->body.off - m->read.off;
	enum nbd_pause pause;
	size_t sent;

	pause = nbd_connection_send(c, m->data + at, m->read.len - at, 0, &sent);
	if (at + sent == m->read.len) {
		nbd_miss_free(m);
		c->body.miss = NULL;
		c->body.kind = NBD_BODY_FILE; /* for what a refetch left over, if it did */
	}
	body_advance(c, (uint32_t)sent);
	return pause;
}

static bool socket_is_gone(int error)
{
	return error == EPIPE || error == ECONNRESET || error == ENOTCONN;
}

static enum nbd_pause body_send_file(struct nbd_connection *c)
{
	uint64_t fd_off;
	uint32_t n;
	ssize_t sent;
	size_t none;
	int fd;

	n = c->export->ops->resident(c->export, c->body.off, c->body.left, &fd, &fd_off);
	if (crash_is_poison(&c->export->subject, CRASH_READ, c->body.asked_off, c->body.asked_len))
		n = 0; /* begun by a worker that died of it: go on another way */
	/* The client took its time: reclaim may have taken pages that were there. */
	if (!c->body.looked && n > NBD_LOOK_LEN)
		n = NBD_LOOK_LEN;
	if (n && !c->body.looked && !file_is_cached(fd, fd_off, n))
		n = 0;
	c->body.looked = false;
	if (c->out_at < c->out_len) {
		enum nbd_pause pause = nbd_connection_send(c, "", 0, n ? MSG_MORE : 0, &none);

		if (pause)
			return pause;
	}
	if (!n)
		return body_refetch(c);
	do {
		off_t at = (off_t)fd_off;

		sent = sendfile(c->fd, fd, &at, n);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0 && errno == EAGAIN)
		return NBD_PAUSE_OUTPUT;
	if (sent < 0 && socket_is_gone(errno))
		return NBD_PAUSE_END;
	if (sent <= 0) /* the file failed: elsewhere there may be a good copy */
		return body_refetch(c);
	c->sent += (uint64_t)sent;
	body_advance(c, (uint32_t)sent);
	return (uint32_t)sent < n ? NBD_PAUSE_OUTPUT : NBD_GO_ON;
}

static enum nbd_pause body_send(struct nbd_connection *c)
{
	switch (c->body.kind) {
	case NBD_BODY_FILE:
		return body_send_file(c);
	case NBD_BODY_MEMORY:
		return body_send_memory(c);
	case NBD_BODY_REFETCH:
		return NBD_PAUSE_READS;
	default:
		return NBD_GO_ON;
	}
}

enum nbd_pause nbd_body_send(struct nbd_connection *c)
{
	const struct crash_subject *s = &c->export->subject;
	const struct nbd_body *b = &c->body;
	enum nbd_pause pause;
	bool entered;

	if (crash_is_hopeless(s, CRASH_READ, b->asked_off, b->asked_len))
		return NBD_PAUSE_END; /* asked again, it gets an error */
	entered = crash_enter(CRASH_READ, s, b->asked_off, b->asked_len);
	pause = body_send(c);
	crash_leave(entered);
	return pause;
}

/* Reads. */

static void body_begin(struct nbd_connection *c, const struct nbd_request *r, struct nbd_miss *m)
{
	c->body = (struct nbd_body){.kind = m ? NBD_BODY_MEMORY : NBD_BODY_FILE,
				    .off = r->off,
				    .left = r->len,
				    .miss = m,
				    .looked = !m,
				    .asked_off = r->off,
				    .asked_len = r->len};
}

static enum nbd_pause read_serve(struct nbd_connection *c, const struct nbd_request *r, bool first)
{
	struct nbd_export *e = c->export;
	uint64_t fd_off;
	int fd;

	if (r->len == 0) {
		put_read_header(c, r);
		return NBD_GO_ON;
	}
	if (e->ops->resident(e, r->off, r->len, &fd, &fd_off) < r->len)
		return read_miss(c, r);
	if (r->len < NBD_SMALL_LEN) {
		uint8_t *out = c->buffers->out + c->out_len;
		size_t head = nbd_put_read_header(out, r, &c->terms);

		if (atomic_load_explicit(&e->looks_first, memory_order_relaxed) &&
		    !file_has_pages(fd, fd_off, r->len))
			return read_miss(c, r);
		if (!file_read_cached(fd, fd_off, r->len, out + head))
			return read_miss(c, r);
		nbd_reply_enter(c, r, head + r->len, NBD_OK);
	} else {
		if (!file_is_cached(fd, fd_off, r->len)) /* sendfile would sleep */
			return read_miss(c, r);
		put_read_header(c, r);
		body_begin(c, r, NULL);
	}
	c->served++;
	if (first)
		e->ops->served(e, r->off, r->len);
	return NBD_GO_ON;
}

enum nbd_pause nbd_read_serve(struct nbd_connection *c, const struct nbd_request *r, bool first)
{
	bool entered = crash_enter(CRASH_READ, &c->export->subject, r->off, r->len);
	enum nbd_pause pause = read_serve(c, r, first);

	crash_leave(entered);
	return pause;
}

static void answer_from_memory(struct nbd_connection *c, struct nbd_miss *m)
{
	const struct nbd_request *r = &m->request;

	if (m->rc) {
		nbd_reply_plain(c, r, nbd_error_of(m->rc));
		nbd_miss_free(m);
		return;
	}
	put_read_header(c, r);
	if (r->len < NBD_SMALL_LEN) {
		memcpy(c->buffers->out + c->out_len, m->data, r->len);
		c->out_len += r->len;
		nbd_miss_free(m);
		return;
	}
	body_begin(c, r, m);
}

enum nbd_pause nbd_miss_answer(struct nbd_connection *c)
{
	enum nbd_pause pause = nbd_connection_make_room(c);
	struct nbd_miss *m;

	if (pause)
		return pause;
	/* Those that hold memory first: those that let theirs go may have to wait for it. */
	m = TAILQ_FIRST(&c->done);
	if (m) {
		bool entered = crash_enter(CRASH_READ, &c->export->subject, m->request.off,
					   m->request.len);

		TAILQ_REMOVE(&c->done, m, line);
		answer_from_memory(c, m);
		crash_leave(entered);
		return NBD_GO_ON;
	}
	m = TAILQ_FIRST(&c->again);
	pause = nbd_read_serve(c, &m->request, false);
	if (pause)
		return pause;
	nbd_grant_return(c);
	TAILQ_REMOVE(&c->again, m, line);
	nbd_miss_free(m);
	return NBD_GO_ON;
}

static void done_becomes_again(struct nbd_connection *c, struct nbd_miss *m)
{
	miss_let_go(m);
	TAILQ_REMOVE(&c->done, m, line);
	TAILQ_INSERT_TAIL(&c->again, m, line);
}

bool nbd_misses_let_go(struct nbd_connection *c)
{
	struct nbd_export *e = c->export;
	struct nbd_miss *m, *next;
	uint64_t fd_off;
	int fd;

	for (m = TAILQ_FIRST(&c->done); m; m = next) {
		next = TAILQ_NEXT(m, line);
		if (m->asked || m->rc)
			continue;
		m->asked = true;
		if (e->ops->resident(e, m->read.off, m->read.len, &fd, &fd_off) == m->read.len)
			done_becomes_again(c, m);
	}
	return !TAILQ_EMPTY(&c->done) || c->body.kind == NBD_BODY_MEMORY;
}

void nbd_misses_let_go_all(struct nbd_connection *c)
{
	struct nbd_miss *m, *next;

	for (m = TAILQ_FIRST(&c->done); m; m = next) {
		next = TAILQ_NEXT(m, line);
		if (!m->rc)
			done_becomes_again(c, m);
	}
	if (c->body.kind == NBD_BODY_MEMORY) {
		nbd_miss_free(c->body.miss);
		c->body.miss = NULL;
		c->body.kind = NBD_BODY_FILE; /* which fetches again what is not resident */
	}
}
