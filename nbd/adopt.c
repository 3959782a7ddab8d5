/* SPDX-License-Identifier: Apache-2.0 */
/* Links come to a server that runs, and are let go of for the next one. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "nbd/server_impl.h"

static int adopt(struct nbd_server *s, const struct nbd_link *link, struct nbd_export *e)
{
	struct nbd_connection *c = nbd_connection_new(link->fd);
	int flags = fcntl(link->fd, F_GETFL), rc;

	if (!c || flags < 0 || fcntl(link->fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		free(c);
		if (link->ledger >= 0)
			close(link->ledger);
		return -ENOMEM;
	}
	rc = nbd_link_open(c, link, e);
	if (rc) {
		nbd_link_close(c);
		free(c);
		return rc;
	}
	atomic_fetch_add(&s->adopted, 1);
	server_place(s, c);
	return 0;
}

int nbd_server_adopt(struct nbd_server *s, const struct nbd_link *link, struct nbd_export *e)
{
	int rc;

	pthread_mutex_lock(&s->adopting);
	if (s->releasing && link->ledger >= 0) {
		close(link->fd);
		close(link->ledger);
		rc = -ESHUTDOWN;
	} else {
		rc = adopt(s, link, e);
		if (rc) {
			shutdown(link->fd, SHUT_RDWR);
			close(link->fd);
		}
	}
	pthread_mutex_unlock(&s->adopting);
	return rc;
}

/* Letting go. */

void server_look_for_links(struct data_thread *t)
{
	const struct nbd_connection *c;

	LIST_FOREACH(c, &t->nbd.connections, all)
	if (c->ledger && !c->closed)
		return;
	if (!t->released)
		sem_post(&t->nbd.server->ready);
	t->released = true;
	loop_timer_cancel(t->nbd.loop, &t->release_end);
}

static void thread_release_ends(struct loop_timer *timer)
{
	struct data_thread *t =
		(struct data_thread *)((char *)timer - offsetof(struct data_thread, release_end));
	struct nbd_connection *c, *next;

	for (c = LIST_FIRST(&t->nbd.connections); c; c = next) {
		next = LIST_NEXT(c, all);
		if (!c->ledger || c->closed)
			continue;
		c->let_go = true;
		nbd_connection_close(c);
	}
}

static void thread_release(struct loop_post *p)
{
	struct data_thread *t =
		(struct data_thread *)((char *)p - offsetof(struct data_thread, release));
	struct nbd_connection *c;

	t->nbd.releasing = true;
	LIST_FOREACH(c, &t->nbd.connections, all)
	if (c->ledger)
		nbd_connection_wake(c);
	loop_timer_set(t->nbd.loop, &t->release_end, t->nbd.server->release_end_ns);
	server_look_for_links(t);
}

void server_thread_release_init(struct data_thread *t)
{
	t->release.fn = thread_release;
	t->release_end.fn = thread_release_ends;
}

void nbd_server_release(struct nbd_server *s, uint32_t ms)
{
	server_stop_accepting(s);
	pthread_mutex_lock(&s->adopting);
	s->releasing = true;
	s->release_end_ns = clock_now_ns() + ms * NSEC_PER_MSEC;
	for (uint32_t i = 0; i < s->cfg.threads; i++)
		loop_post(s->threads[i]->nbd.loop, &s->threads[i]->release);
	pthread_mutex_unlock(&s->adopting);
	for (uint32_t i = 0; i < s->cfg.threads; i++)
		server_wait_ready(s);
}
