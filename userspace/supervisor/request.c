/* SPDX-License-Identifier: Apache-2.0 */
/* A request of a worker: received, checked (guard.h), answered. Who waits for the answer is known
 * while it is made, so that connections can be given to it before the whole answer is there. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include <supervisor_protocol.h>

#include "base/clock.h"
#include "base/log.h"
#include "supervisor/answer.h"
#include "supervisor/supervisor_impl.h"

/* Its programs take the kernel a second: not before a worker asks, which then serves. */
static int observer_open(struct supervisor *s, struct err *err)
{
	if (s->observer)
		return 0;
	s->observer = loader_open(strcmp(s->cfg.observe, "off") != 0);
	if (!s->observer)
		return err_set(err, -ENOMEM, "out of memory");
	log_info("observe", "observer", "hooks=\"%s\"", loader_hooks(s->observer, NULL));
	return 0;
}

/* True: the answer comes later. */
static bool answer(struct supervisor *s, const struct supervisor_request *q,
		   const struct guard_fds *with, struct supervisor_reply *r, struct answer_fds *fds)
{
	static const struct err stopping = {-ESHUTDOWN, "cairnd is stopping"};
	struct err refused;

	if (s->stopping) {
		answer_error(r, &stopping);
	} else if (guard_check(&s->guard, q, with, s->devices.n, &refused)) {
		answer_error(r, &refused);
	} else if (q->op == SUPERVISOR_READY) {
		s->ready = true;
		s->ever_ready = true;
		upgrade_settled(s);
		r->value[0] = (uint64_t)getpid();
		r->value[1] = s->continuity.takeovers;
	} else if (q->op == SUPERVISOR_BEGIN) {
		upgrade_tell(s, r);
	} else if (q->op == SUPERVISOR_UPGRADE) {
		return upgrade_ask(s, q->id, r);
	} else if (q->op == SUPERVISOR_PROMOTE) {
		if (devices_promote(&s->devices, q->name, with->fd[0], &refused))
			answer_error(r, &refused);
	} else if ((q->op == SUPERVISOR_OBSERVER || q->op == SUPERVISOR_WATCH) &&
		   observer_open(s, &refused)) {
		answer_error(r, &refused);
	} else {
		answer_request(&s->devices, s->observer, q, r, fds);
	}
	return false;
}

/* Who waits for an answer. */
struct asker {
	int channel;
	uint32_t id;
};

static int asker_give(void *arg, struct attachment *a)
{
	const struct asker *k = arg;
	struct supervisor_reply r = {.magic = SUPERVISOR_MAGIC,
				     .version = SUPERVISOR_VERSION,
				     .id = k->id,
				     .flags = SUPERVISOR_REPLY_INTERIM};
	struct answer_fds fds;
	int rc;

	answer_links(a, &r, &fds);
	rc = answer_send(k->channel, &r, &fds);
	if (!rc)
		a->fresh = 0;
	return rc;
}

static bool asker_is_gone(void *arg)
{
	struct pollfd p = {.fd = ((struct asker *)arg)->channel};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

static void asker_set(struct supervisor *s, struct asker *k)
{
	s->devices.env.give = k ? asker_give : NULL;
	s->devices.env.asker_is_gone = k ? asker_is_gone : NULL;
	s->devices.env.asker = k;
}

/* -EPIPE: it reads no replies, and is no use either. */
static int serve(struct supervisor *s, const struct supervisor_request *q,
		 const struct guard_fds *with)
{
	struct supervisor_reply r = {
		.magic = SUPERVISOR_MAGIC, .version = SUPERVISOR_VERSION, .id = q->id};
	struct answer_fds fds;
	bool later;
	int rc;

	asker_set(s, &(struct asker){s->worker.channel, q->id});
	later = answer(s, q, with, &r, &fds);
	asker_set(s, NULL);
	if (later)
		return 0;
	supervisor_save(s); /* before the worker has what is new */
	rc = answer_send(s->worker.channel, &r, &fds);
	if (rc)
		log_warn("supervisor", "the worker takes no reply", "why=\"%s\"", strerror(-rc));
	if (rc == -EAGAIN) /* a hundred and more wait to be read, of one that waits for each */
		return -EPIPE;
	if (q->op == SUPERVISOR_ATTACH && !r.code && !rc)
		devices_sent(&s->devices, q->name);
	if (q->op == SUPERVISOR_READY && s->ready)
		supervisor_tell_serving(s);
	return 0;
}

int request_serve(struct supervisor *s, struct worker_process *w, ssize_t *len)
{
	struct supervisor_request q;
	struct guard_fds with;
	uint64_t began_ns = clock_now_ns();
	ssize_t n = guard_receive(w->channel, &q, &with);
	int rc;

	if (n == -EAGAIN)
		return 0;
	rc = n > 0 ? supervisor_request_check(&q, (size_t)n) : -EPIPE;
	if (!rc && q.nfds != with.n)
		rc = -EBADMSG;
	if (!rc && w == &s->replacement.next && !upgrade_begin(s, &q))
		rc = -EBADMSG;
	if (!rc && w == &s->worker)
		rc = serve(s, &q, &with);
	guard_release(&with);
	if (!rc)
		guard_charge_request(&s->guard, &q, began_ns, clock_now_ns());
	*len = n;
	return rc;
}
