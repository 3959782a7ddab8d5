/* SPDX-License-Identifier: Apache-2.0 */
/* Data threads and the connections spread over them.
 *
 * Thread 0 also accepts. A connection is made there, posted to the thread with the fewest, and
 * never moves again. All that reaches a thread from outside is a post: connections, sweeps, the
 * end.
 */
#include "nbd/server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "nbd/server_impl.h"

#define SEND_LEN	(1U << 20) /* the kernel grants less, then doubles it */
#define ACCEPTS_A_TURN	16
#define ACCEPT_PAUSE_NS (100 * NSEC_PER_MSEC) /* when descriptors or memory ran out */
#define REFUSING_MAX	32
#define FD_RESERVE	8 /* 1/8 of the descriptors is for origins and the store, but at most.. */
#define FD_RESERVE_MAX	256

struct nbd_directory *nbd_thread_directory(struct nbd_thread *t)
{
	return t->server->cfg.directory;
}

static void tell_of_loss(const struct nbd_thread *t, const struct nbd_connection *c)
{
	const struct nbd_server_config *cfg = &t->server->cfg;
	const struct nbd_export *e = c->export ? c->export : c->directory->export;

	if (!c->said_goodbye && !c->let_go && !t->stopping && cfg->lost &&
	    !atomic_load(&e->closing))
		cfg->lost(cfg->lost_arg, e->name);
}

void nbd_thread_closed_one(struct nbd_thread *t, const struct nbd_connection *c)
{
	atomic_fetch_sub(&t->open, 1);
	atomic_fetch_sub(c->is_link	 ? &t->server->adopted
			 : c->is_refused ? &t->server->refusing
					 : &t->server->open,
			 1);
	if (c->is_link)
		tell_of_loss(t, c);
	if (t->releasing)
		server_look_for_links((struct data_thread *)t);
}

void nbd_thread_ended_one(struct nbd_thread *t)
{
	if (t->stopping && LIST_EMPTY(&t->connections))
		loop_stop(t->loop);
}

/* Turns. */

static void thread_go_on(struct loop_post *p)
{
	((struct data_thread *)((char *)p - offsetof(struct data_thread, go_on)))->go_on_posted =
		false;
}

static void thread_before_sleep(void *arg)
{
	struct data_thread *t = arg;
	const struct nbd_server_config *cfg = &t->nbd.server->cfg;
	struct nbd_connection *c, *last = TAILQ_LAST(&t->nbd.runnable, nbd_runnable);
	bool was_last = !last;

	/* Those that wake themselves again stand behind `last`, and wait for the next turn. */
	while (!was_last && (c = TAILQ_FIRST(&t->nbd.runnable))) {
		was_last = c == last;
		TAILQ_REMOVE(&t->nbd.runnable, c, turn);
		c->is_runnable = false;
		nbd_connection_run(c);
	}
	if (!TAILQ_EMPTY(&t->nbd.runnable) && !t->go_on_posted) {
		t->go_on_posted = true;
		loop_post(t->nbd.loop, &t->go_on);
	}
	if (cfg->before_sleep)
		cfg->before_sleep(cfg->turn_arg, t->nbd.idx);
}

static void thread_after_sleep(void *arg)
{
	struct data_thread *t = arg;
	const struct nbd_server_config *cfg = &t->nbd.server->cfg;

	if (cfg->after_sleep)
		cfg->after_sleep(cfg->turn_arg, t->nbd.idx);
}

/* Sweep and stop. */

static void thread_sweep(struct loop_post *p)
{
	struct data_thread *t =
		(struct data_thread *)((char *)p - offsetof(struct data_thread, sweep));
	struct nbd_connection *c, *next;

	atomic_store(&t->sweep_posted,
		     false); /* before looking: later marks get a sweep of their own */
	for (c = LIST_FIRST(&t->nbd.connections); c; c = next) {
		next = LIST_NEXT(c, all);
		if (c->export && atomic_load(&c->export->closing))
			nbd_connection_close(c);
	}
}

void nbd_server_sweep(struct nbd_server *s)
{
	for (uint32_t i = 0; i < s->cfg.threads; i++) {
		struct data_thread *t = s->threads[i];

		if (!atomic_exchange(&t->sweep_posted, true))
			loop_post(t->nbd.loop, &t->sweep);
	}
}

static void thread_stop(struct loop_post *p)
{
	struct data_thread *t =
		(struct data_thread *)((char *)p - offsetof(struct data_thread, stop));
	struct nbd_connection *c, *next;

	t->nbd.stopping = true;
	loop_timer_cancel(t->nbd.loop, &t->release_end);
	for (c = LIST_FIRST(&t->nbd.connections); c; c = next) {
		next = LIST_NEXT(c, all);
		nbd_connection_close(c);
	}
	nbd_thread_ended_one(&t->nbd);
}

/* Accepting. */

static struct data_thread *least_loaded(struct nbd_server *s)
{
	struct data_thread *best = s->threads[0];

	for (uint32_t i = 1; i < s->cfg.threads; i++)
		if (atomic_load(&s->threads[i]->nbd.open) < atomic_load(&best->nbd.open))
			best = s->threads[i];
	return best;
}

static void connection_arrives(struct loop_post *p)
{
	struct nbd_connection *c =
		(struct nbd_connection *)((char *)p - offsetof(struct nbd_connection, post));

	nbd_connection_start(c, c->thread);
}

/* Give it to the thread with the fewest. */
void server_place(struct nbd_server *s, struct nbd_connection *c)
{
	c->thread = &least_loaded(s)->nbd;
	c->post.fn = connection_arrives;
	atomic_fetch_add(&c->thread->open, 1);
	loop_post(c->thread->loop, &c->post);
}

static void admit(struct nbd_server *s, int fd)
{
	struct nbd_connection *c;
	bool over = atomic_load(&s->open) >= s->cfg.max_connections;

	if (over && atomic_fetch_add(&s->refused, 1) == 0)
		log_warn("nbd", "too many connections; more are refused", "limit=%u",
			 s->cfg.max_connections);
	c = over && atomic_load(&s->refusing) >= REFUSING_MAX ? NULL : nbd_connection_new(fd);
	if (!c) {
		close(fd);
		return;
	}
	c->is_refused = over;
	atomic_fetch_add(over ? &s->refusing : &s->open, 1);
	server_place(s, c);
}

uint32_t nbd_server_threads(const struct nbd_server *s)
{
	return s->cfg.threads;
}

static void accept_goes_on(struct loop_timer *timer)
{
	struct nbd_server *s =
		(struct nbd_server *)((char *)timer - offsetof(struct nbd_server, accept_pause));

	loop_rewatch(s->threads[0]->nbd.loop, s->listener, EPOLLIN);
}

static void accept_pauses(struct nbd_server *s, int error)
{
	struct loop *l = s->threads[0]->nbd.loop;

	if (s->accepts)
		log_warn("nbd", "new connections wait", "error=\"%s\"", strerror(error));
	s->accepts = false;
	loop_rewatch(l, s->listener, 0);
	loop_timer_set(l, &s->accept_pause, clock_now_ns() + ACCEPT_PAUSE_NS);
}

/* Those of a connection that would not fit are better not there: it would fail what is served. New
 * descriptors are the lowest free ones, so that the number of one tells how many there are. */
static bool descriptors_are_short(int any_fd)
{
	struct rlimit r;
	rlim_t reserve;
	int fd;

	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur == RLIM_INFINITY)
		return false;
	reserve =
		r.rlim_cur / FD_RESERVE < FD_RESERVE_MAX ? r.rlim_cur / FD_RESERVE : FD_RESERVE_MAX;
	fd = fcntl(any_fd, F_DUPFD_CLOEXEC, 0);
	if (fd >= 0)
		close(fd);
	return fd < 0 || (rlim_t)fd + ACCEPTS_A_TURN > r.rlim_cur - reserve;
}

/* Large replies leave in fewer turns: where net.core.wmem_max allows 1 MiB, reads of 128 KiB and 1
 * MiB take 0.7 of the server's time. At the kernel's own limit of 208 KiB nothing is gained or
 * lost. */
static void socket_widen(int fd)
{
	int size = SEND_LEN;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static void accept_some(void *arg, uint32_t events)
{
	struct nbd_server *s = arg;

	(void)events;
	if (descriptors_are_short(s->cfg.listen_fd)) {
		accept_pauses(s, EMFILE);
		return;
	}
	if (!s->accepts)
		log_info("nbd", "connections are accepted again", "%s", "");
	s->accepts = true;
	for (int i = 0; i < ACCEPTS_A_TURN; i++) {
		int fd = accept4(s->cfg.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			socket_widen(fd);
			admit(s, fd);
			continue;
		}
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			accept_pauses(s, errno);
		return;
	}
}

static void accept_stop(struct loop_post *p)
{
	struct nbd_server *s =
		(struct nbd_server *)((char *)p - offsetof(struct nbd_server, accept_stop));
	struct loop *l = s->threads[0]->nbd.loop;

	loop_unwatch(l, s->listener);
	loop_timer_cancel(l, &s->accept_pause);
	sem_post(&s->ready);
}

static int accept_start(struct nbd_server *s, struct err *err)
{
	int flags = fcntl(s->cfg.listen_fd, F_GETFL);

	if (flags < 0 || fcntl(s->cfg.listen_fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return err_set(err, -errno, "the NBD socket cannot be used: %s", strerror(errno));
	s->accepts = true;
	s->accept_pause.fn = accept_goes_on;
	s->accept_stop.fn = accept_stop;
	return 0;
}

/* Start and end. */

static int thread_open(struct data_thread *t)
{
	struct nbd_server *s = t->nbd.server;

	t->nbd.loop = loop_new(s->cfg.loop_kind, &t->err);
	if (!t->nbd.loop)
		return t->err.code;
	loop_on_turn(t->nbd.loop, thread_before_sleep, thread_after_sleep, t);
	return 0;
}

static void thread_close(struct data_thread *t)
{
	struct nbd_buffers *b;

	nbd_kept_free(&t->nbd);
	while ((b = t->nbd.spare)) {
		t->nbd.spare = b->next;
		free(b);
	}
}

/* The loop is made and run by one thread, as a ring of one issuer demands, but freed when all are
 * joined: until then another thread may begin a loop_post() to it. */
static void *thread_main(void *arg)
{
	struct data_thread *t = arg;
	int rc;

	pthread_setname_np(pthread_self(), "nbd");
	rc = thread_open(t);

	sem_post(&t->nbd.server->ready);
	if (rc)
		return NULL;
	loop_run(t->nbd.loop);
	thread_close(t);
	return NULL;
}

static struct data_thread *thread_new(struct nbd_server *s, uint32_t idx)
{
	struct data_thread *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->nbd.server = s;
	t->nbd.budget = &s->budget;
	t->nbd.resident_latency = s->cfg.resident_latency;
	t->nbd.idx = idx;
	LIST_INIT(&t->nbd.connections);
	TAILQ_INIT(&t->nbd.runnable);
	t->go_on.fn = thread_go_on;
	t->sweep.fn = thread_sweep;
	t->stop.fn = thread_stop;
	server_thread_release_init(t);
	return t;
}

static void thread_begin_accepting(struct loop_post *p)
{
	struct nbd_server *s =
		(struct nbd_server *)((char *)p - offsetof(struct nbd_server, accept_stop));

	p->fn = accept_stop;
	s->listener =
		loop_watch(s->threads[0]->nbd.loop, s->cfg.listen_fd, EPOLLIN, accept_some, s);
	if (!s->listener)
		log_error("nbd", "the NBD socket cannot be watched", "error=\"%s\"",
			  strerror(errno));
	sem_post(&s->ready);
}

void server_wait_ready(struct nbd_server *s)
{
	while (sem_wait(&s->ready) < 0 && errno == EINTR)
		;
}

/* Signals go to other threads. SIGPIPE must not end the process either: sendfile has no
 * MSG_NOSIGNAL, and a blocked signal of the thread's own is left pending for good. */
static int thread_create(struct data_thread *t)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&t->pthread, NULL, thread_main, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

static int thread_start(struct nbd_server *s, uint32_t idx, struct err *err)
{
	struct data_thread *t = thread_new(s, idx);
	int rc;

	if (!t)
		return err_set(err, -ENOMEM, "no memory for an NBD thread");
	s->threads[idx] = t;
	rc = thread_create(t);
	if (rc)
		return err_set(err, -rc, "cannot start an NBD thread: %s", strerror(rc));
	t->started = true;
	server_wait_ready(s);
	if (!t->nbd.loop) {
		if (err)
			*err = t->err;
		return t->err.code;
	}
	return 0;
}

static void server_free(struct nbd_server *s)
{
	for (uint32_t i = 0; i < s->cfg.threads && s->threads[i]; i++) {
		struct data_thread *t = s->threads[i];

		if (t->nbd.loop)
			loop_post(t->nbd.loop, &t->stop);
	}
	for (uint32_t i = 0; i < s->cfg.threads && s->threads[i]; i++)
		if (s->threads[i]->started)
			pthread_join(s->threads[i]->pthread, NULL);
	for (uint32_t i = 0; i < s->cfg.threads && s->threads[i]; i++) {
		loop_free(s->threads[i]->nbd.loop);
		free(s->threads[i]);
	}
	nbd_budget_free(&s->budget);
	sem_destroy(&s->ready);
	pthread_mutex_destroy(&s->adopting);
	free(s->threads);
	free(s);
}

int nbd_server_start(const struct nbd_server_config *cfg, struct nbd_server **out, struct err *err)
{
	struct nbd_server *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "no memory for the NBD server");
	s->cfg = *cfg;
	s->threads = calloc(cfg->threads, sizeof(struct data_thread *));
	if (!s->threads) {
		free(s);
		return err_set(err, -ENOMEM, "no memory for the NBD server");
	}
	nbd_budget_init(&s->budget, cfg->miss_memory);
	sem_init(&s->ready, 0, 0);
	pthread_mutex_init(&s->adopting, NULL);
	rc = accept_start(s, err);
	for (uint32_t i = 0; rc == 0 && i < cfg->threads; i++)
		rc = thread_start(s, i, err);
	if (rc) {
		server_free(s);
		return rc;
	}
	s->accept_stop.fn = thread_begin_accepting;
	loop_post(s->threads[0]->nbd.loop, &s->accept_stop);
	server_wait_ready(s);
	if (!s->listener) {
		server_free(s);
		return err_set(err, -EIO, "the NBD socket cannot be watched");
	}
	*out = s;
	return 0;
}

void server_stop_accepting(struct nbd_server *s)
{
	if (!s->listener)
		return;
	loop_post(s->threads[0]->nbd.loop, &s->accept_stop);
	server_wait_ready(s);
	s->listener = NULL;
}

void nbd_server_stop(struct nbd_server *s)
{
	/* First the acceptor, so that no connection arrives behind the end. */
	server_stop_accepting(s);
	server_free(s);
}

void nbd_server_count(struct nbd_server *s, struct nbd_server_counters *out)
{
	struct nbd_server_counters n = {
		.connections = atomic_load(&s->open) + atomic_load(&s->adopted),
		.refused = atomic_load(&s->refused),
	};

	for (uint32_t i = 0; i < s->cfg.threads; i++) {
		n.requests += atomic_load(&s->threads[i]->nbd.requests);
		n.protocol_errors += atomic_load(&s->threads[i]->nbd.protocol_errors);
	}
	*out = n;
}
