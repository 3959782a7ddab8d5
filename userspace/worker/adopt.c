/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/adopt.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "worker/exports_impl.h"
#include "worker/privileged.h"
#include "worker/links_kept.h"
#include "worker/promote.h"

#define RETRIES	  60 /* of a second each, while the supervisor is busy or the kernel is slow */
#define GATHER_MS 20 /* connections of one device end together */

struct lost {
	TAILQ_ENTRY(lost) line;
	unsigned tries;
	char name[NBD_NAME_MAX + 1];
};

struct adopter {
	struct exports *exports;
	int supervisor_fd;
	pthread_t thread;
	pthread_mutex_t lock; /* the rest */
	pthread_cond_t wake;
	TAILQ_HEAD(lost_line, lost) line;
	bool stopping;
};

int exports_adopt(struct exports *x, const char *name, const struct privileged_links *l)
{
	struct nbd_export *e = x->server ? x->directory.find(&x->directory, name) : NULL;
	int rc = e ? 0 : -ENOENT, one;

	if (e)
		links_keep(name, l);
	for (uint32_t i = 0; i < l->n; i++) {
		struct nbd_link link = {
			.fd = l->fd[i], .ledger = l->ledger[i], .handshake = l->handshake};

		if (e) {
			one = nbd_server_adopt(x->server, &link, e);
			rc = one ? one : rc;
		} else {
			shutdown(l->fd[i], SHUT_RDWR);
			close(l->fd[i]);
			close(l->ledger[i]);
		}
	}
	if (e)
		e->ops->unref(e);
	return rc;
}

/* One that can't be served was shut, which the supervisor sees. */
void exports_adopt_early(void *exports, const char *name, const struct privileged_links *l)
{
	int rc = exports_adopt(exports, name, l);

	if (rc)
		log_warn("worker", "connections of a new device are not served",
			 "export=%s why=\"%s\"", name, strerror(-rc));
}

/* Under the lock. */
static bool is_in_line(struct adopter *a, const char *name)
{
	struct lost *l;

	TAILQ_FOREACH(l, &a->line, line)
	if (strcmp(l->name, name) == 0)
		return true;
	return false;
}

void adopter_lost(void *adopter, const char *export_name)
{
	struct adopter *a = adopter;
	struct lost *l;

	pthread_mutex_lock(&a->lock);
	l = is_in_line(a, export_name) ? NULL : calloc(1, sizeof(*l));
	if (l) {
		strncpy(l->name, export_name, sizeof(l->name) - 1);
		TAILQ_INSERT_TAIL(&a->line, l, line);
		pthread_cond_signal(&a->wake);
	}
	pthread_mutex_unlock(&a->lock);
}

/* *missing: connections that are dead. */
static int revive(struct adopter *a, const char *name, uint32_t *missing, struct err *err)
{
	struct privileged_device d = {.name = name,
				      .way = "",
				      .index = -1,
				      .revive = true,
				      .serve = exports_adopt_early,
				      .arg = a->exports};
	struct export_info e;
	int rc = exports_find(a->exports, name, &e, err);

	if (rc)
		return rc;
	d.identity = e.digest;
	d.len = export_device_len(&e);
	pthread_mutex_lock(&a->exports->promoting);
	rc = privileged_attach(a->supervisor_fd, &d, err);
	if (!rc)
		exports_note_promoted(a->exports, name, d.promoted);
	pthread_mutex_unlock(&a->exports->promoting);
	if (rc)
		return rc;
	*missing = d.missing;
	rc = exports_adopt(a->exports, name, &d.links);
	return rc ? err_set(err, rc, "adopting its connections: %s", strerror(-rc)) : 0;
}

static bool may_pass(int rc)
{
	/* EPIPE, ECONNRESET: the supervisor died, and another may come */
	return rc == -ETIMEDOUT || rc == -ENOMEM || rc == -EAGAIN || rc == -EBADMSG ||
	       rc == -EPIPE || rc == -ECONNRESET;
}

/* True: try again later. */
static bool revive_lost(struct adopter *a, struct lost *l)
{
	struct err err = {0};
	uint32_t missing = 0;
	int rc = revive(a, l->name, &missing, &err);

	if (!rc && missing)
		rc = -EAGAIN;
	if (!rc || rc == -ENOENT || rc == -ESHUTDOWN) /* detached, or all of us end */
		return false;
	if (may_pass(rc) && ++l->tries < RETRIES)
		return true;
	log_error("worker", "a device stays without its connections", "export=%s why=\"%s\"",
		  l->name, err.text);
	return false;
}

/* Under the lock; true when told to stop. */
static bool sleep_ms(struct adopter *a, long ms)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at); /* the wall clock may jump */
	at.tv_sec += (at.tv_nsec + ms * 1000000) / 1000000000;
	at.tv_nsec = (at.tv_nsec + ms * 1000000) % 1000000000;
	while (!a->stopping && pthread_cond_timedwait(&a->wake, &a->lock, &at) != ETIMEDOUT)
		;
	return a->stopping;
}

static void *adopter_run(void *arg)
{
	struct adopter *a = arg;
	struct lost *l;
	bool again;

	pthread_mutex_lock(&a->lock);
	while (!a->stopping) {
		l = TAILQ_FIRST(&a->line);
		if (!l) {
			pthread_cond_wait(&a->wake, &a->lock);
			continue;
		}
		if (sleep_ms(a, l->tries ? 1000 : GATHER_MS))
			break;
		TAILQ_REMOVE(&a->line, l, line); /* what is lost from here on is another loss */
		pthread_mutex_unlock(&a->lock);
		again = revive_lost(a, l);
		pthread_mutex_lock(&a->lock);
		if (again)
			TAILQ_INSERT_TAIL(&a->line, l, line);
		else
			free(l);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

int adopter_start(struct exports *x, int supervisor_fd, struct adopter **out, struct err *err)
{
	struct adopter *a = calloc(1, sizeof(*a));
	pthread_condattr_t attr;
	int rc;

	if (!a)
		return err_set(err, -ENOMEM, "out of memory");
	a->exports = x;
	a->supervisor_fd = supervisor_fd;
	TAILQ_INIT(&a->line);
	pthread_mutex_init(&a->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&a->wake, &attr);
	pthread_condattr_destroy(&attr);
	rc = pthread_create(&a->thread, NULL, adopter_run, a);
	if (rc) {
		free(a);
		return err_set(err, -rc, "can't start a thread: %s", strerror(rc));
	}
	*out = a;
	return 0;
}

void adopter_stop(struct adopter *a)
{
	struct lost *l;

	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->stopping = true;
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->thread, NULL);
	while ((l = TAILQ_FIRST(&a->line))) {
		TAILQ_REMOVE(&a->line, l, line);
		free(l);
	}
	free(a);
}

void adopter_take_over(struct adopter *a)
{
	struct export_info *e = NULL;
	size_t n = 0;

	if (exports_list(a->exports, &e, &n))
		return;
	for (size_t i = 0; i < n; i++) {
		struct err err = {0};
		uint32_t missing = 0;
		int rc = e[i].device[0] ? revive(a, e[i].name, &missing, &err) : -ENOENT;

		if (rc && rc != -ENOENT)
			log_error("worker", "connections of a device were not taken over",
				  "export=%s device=%s why=\"%s\"", e[i].name, e[i].device,
				  err.text);
		if (missing || (rc && may_pass(rc)))
			adopter_lost(a, e[i].name);
	}
	free(e);
}
