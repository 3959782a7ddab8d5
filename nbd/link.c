/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nbd/connection.h"

/* The directory of a handshake: one export. */

static struct nbd_export *find_one(struct nbd_directory *d, const char *name)
{
	struct nbd_export *e = ((struct nbd_link_directory *)d)->export;

	return !*name || strcmp(name, e->name) == 0 ? e->ops->ref(e) : NULL;
}

static void list_one(struct nbd_directory *d,
		     bool (*fn)(void *arg, const char *name, const char *description), void *arg)
{
	const struct nbd_export *e = ((struct nbd_link_directory *)d)->export;

	fn(arg, e->name, e->description);
}

/* Open and close. */

static int begin_transmission(struct nbd_connection *c, const uint8_t *in, size_t n, size_t to_send)
{
	struct tcp_count base;
	int rc;

	if (tcp_count(c->fd, &base))
		return -EBADMSG;
	base.received -= n;
	base.sent += to_send;
	rc = ledger_begin(&c->ledger->writer, c->ledger->l, &c->terms, &base, in, n);
	if (!rc)
		c->sent = ledger_ahead(&c->ledger->writer);
	return rc;
}

static int take_up(struct nbd_connection *c, const struct nbd_export *e)
{
	struct nbd_link_ledger *l = c->ledger;
	struct tcp_count now;
	int rc = tcp_count(c->fd, &now) ? -EBADMSG : 0;

	if (!rc)
		rc = ledger_take_up(&l->writer, l->l, &now, e->size, &l->cut);
	if (rc)
		return rc;
	c->terms = l->writer.terms;
	c->sent = ledger_sent(&l->writer, &l->cut);
	return 0;
}

/* Sets *begun when transmission has. */
static int ledger_open(struct nbd_connection *c, const struct nbd_link *link,
		       const struct nbd_export *e, bool *begun)
{
	struct nbd_link_ledger *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	c->ledger = l;
	l->l = ledger_map(link->ledger);
	if (!l->l)
		return -ENOMEM;
	*begun = l->l->phase != LEDGER_NEW || !link->handshake;
	if (l->l->phase != LEDGER_NEW)
		return take_up(c, e);
	if (!link->handshake)
		return begin_transmission(c, NULL, 0, 0);
	ledger_begin_handshake(l->l);
	return 0;
}

int nbd_link_open(struct nbd_connection *c, const struct nbd_link *link, struct nbd_export *e)
{
	bool begun = !link->handshake;
	int rc = 0;

	c->is_link = true;
	if (link->ledger >= 0) {
		rc = ledger_open(c, link, e, &begun);
		close(link->ledger);
	}
	if (!rc && !begun) {
		c->directory = calloc(1, sizeof(*c->directory));
		if (!c->directory)
			rc = -ENOMEM;
	}
	if (rc)
		return rc;
	if (begun)
		c->export = e->ops->ref(e);
	else
		*c->directory = (struct nbd_link_directory){{find_one, list_one}, e->ops->ref(e)};
	return 0;
}

void nbd_link_close(struct nbd_connection *c)
{
	if (c->directory)
		c->directory->export->ops->unref(c->directory->export);
	free(c->directory);
	c->directory = NULL;
	if (c->ledger)
		ledger_unmap(c->ledger->l);
	free(c->ledger);
	c->ledger = NULL;
}

int nbd_link_begin(struct nbd_connection *c)
{
	const struct nbd_handshake *h = c->handshake;
	int rc;

	c->terms.structured = h->structured;
	rc = begin_transmission(c, c->buffers->in + c->in_at, c->in_len - c->in_at,
				h->out_len - h->out_sent);
	c->in_at = c->in_len = 0;
	return rc;
}

/* Requests. */

static enum nbd_pause link_receive(struct nbd_connection *c)
{
	struct ledger_writer *w = &c->ledger->writer;
	uint8_t *at;
	size_t room = ledger_room(w, &at);
	ssize_t n;

	if (!c->readable)
		return NBD_PAUSE_INPUT;
	n = recv(c->fd, at, room, MSG_DONTWAIT);
	if (n > 0) {
		ledger_received(w, (size_t)n);
		c->readable = (size_t)n == room; /* less: that was all */
		return NBD_GO_ON;
	}
	return nbd_receive_ended(c, n);
}

enum nbd_pause nbd_link_next(struct nbd_connection *c, struct nbd_request *r, bool *got)
{
	int rc;

	if (c->waiting)
		return NBD_PAUSE_READS;
	rc = ledger_next(&c->ledger->writer, r);
	if (rc == -EAGAIN)
		return link_receive(c);
	if (rc == -ENOBUFS) {
		enum nbd_pause pause = nbd_connection_flush(c);

		nbd_link_settle(c);
		return pause || c->ledger->writer.nfree ? pause : NBD_PAUSE_READS;
	}
	if (rc) {
		nbd_count_protocol_error(c->thread);
		return NBD_PAUSE_END;
	}
	*got = true;
	return NBD_GO_ON;
}

void nbd_link_served(struct nbd_connection *c)
{
	ledger_served(&c->ledger->writer);
}

void nbd_link_settle(struct nbd_connection *c)
{
	ledger_settle(&c->ledger->writer, c->sent);
}

void nbd_link_continue(struct nbd_connection *c)
{
	const struct ledger_cut *cut = &c->ledger->cut;
	const struct nbd_request *r = &cut->request;
	bool has_data = r->type == NBD_CMD_READ && cut->error == NBD_OK && r->len;
	uint32_t head, done;

	head = (uint32_t)(has_data ? nbd_put_read_header(c->buffers->out, r, &c->terms)
				   : nbd_put_plain(c->buffers->out, r, &c->terms, cut->error));
	c->out_len = head;
	c->out_at = cut->skip < head ? (uint32_t)cut->skip : head;
	if (c->out_at == head)
		c->out_at = c->out_len = 0;
	done = cut->skip > head ? (uint32_t)(cut->skip - head) : 0;
	if (has_data)
		c->body = (struct nbd_body){.kind = NBD_BODY_FILE,
					    .off = r->off + done,
					    .left = r->len - done,
					    .asked_off = r->off,
					    .asked_len = r->len};
	c->ledger->cut.is = false;
}
