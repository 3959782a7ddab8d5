/* SPDX-License-Identifier: Apache-2.0 */
/* The worker: start each part in the order in which they need each other, wait, stop in reverse. */
#include "worker/worker.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/api_observe.h"
#include "control/control.h"
#include "observe/tuner.h"
#include "observe/view.h"
#include "store/pages.h"
#include "worker/adopt.h"
#include "worker/exports_impl.h"
#include "worker/privileged.h"
#include "worker/promote.h"
#include "worker/rejoin.h"
#include "worker/reopen.h"
#include "worker/sandbox.h"

#define RELEASE_MS 50 /* for replies that are under way; the rest the next worker gives */

struct worker {
	const struct config *cfg;
	const struct worker_fds *fds;
	enum loop_kind loop_kind;
	struct store *store;
	struct fill *fill;
	struct exports exports;
	bool have_exports;
	struct adopter *adopter;
	struct view *view;
	struct tuner *tuner;
	struct nbd_server *server;
	struct control *control;
	struct rejoin *rejoin;
	struct promoter *promoter;
};

/* Objects, clients and origins each hold descriptors; take what the system allows. */
static void raise_file_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

/* An arena a thread keeps freed buffers from each other: two are enough for a few threads. Reads of
 * 1 MiB are mapped: kept on the heap, aligned as they are, they left holes of 40 MiB. */
static void bound_heap(void)
{
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	mallopt(M_TRIM_THRESHOLD, 4 << 20);
}

static enum loop_kind loop_kind_of(const struct config *cfg)
{
	if (strcmp(cfg->event_loop, "io_uring") == 0)
		return LOOP_URING;
	if (strcmp(cfg->event_loop, "epoll") == 0)
		return LOOP_EPOLL;
	return LOOP_AUTO;
}

static int probe_loop(struct worker *w, struct err *err)
{
	struct loop *l = loop_new(w->loop_kind, err);

	if (!l)
		return err->code ? err->code : -EIO;
	snprintf(w->exports.event_loop, sizeof(w->exports.event_loop), "%s", loop_kind_name(l));
	loop_free(l);
	return 0;
}

static void data_thread_sleeps(void *arg, uint32_t thread)
{
	struct worker *w = arg;

	quiesce_leave(store_quiesce(w->store), thread);
}

static void data_thread_wakes(void *arg, uint32_t thread)
{
	struct worker *w = arg;

	quiesce_enter(store_quiesce(w->store), thread);
}

static uint32_t data_threads(const struct config *cfg)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (cfg->nbd_threads)
		return (uint32_t)(cfg->nbd_threads < QUIESCE_THREADS ? cfg->nbd_threads
								     : QUIESCE_THREADS);
	return cpus < 1 ? 1 : cpus > 8 ? 8 : (uint32_t)cpus;
}

static int start_fill(struct worker *w, struct err *err)
{
	const struct config *cfg = w->cfg;
	struct fill_config f = {.threads = (uint32_t)cfg->fill_threads,
				.memory = cfg->fill_memory,
				.deadline_ms = cfg->fill_deadline_ms,
				.loop_kind = w->loop_kind};

	f.origin.api_version = cfg->api_version;
	f.origin.ca_file = cfg->ca_file;
	f.origin.connections = (uint32_t)((cfg->origin_connections + f.threads - 1) / f.threads);
	origin_config_from_env(&f.origin);
	return fill_start(&f, &w->fill, err);
}

static int start_server(struct worker *w, struct err *err)
{
	struct nbd_server_config n = {.listen_fd = w->fds->nbd_listen,
				      .threads = data_threads(w->cfg),
				      .loop_kind = w->loop_kind,
				      .max_connections = (uint32_t)w->cfg->nbd_max_connections,
				      .miss_memory = w->cfg->nbd_miss_memory,
				      .directory = &w->exports.directory,
				      .resident_latency = &w->exports.latency.local,
				      .before_sleep = data_thread_sleeps,
				      .after_sleep = data_thread_wakes,
				      .turn_arg = w,
				      .lost = adopter_lost,
				      .lost_arg = w->adopter};
	int rc = nbd_server_start(&n, &w->server, err);

	if (!rc)
		w->exports.server = w->server;
	return rc;
}

/* Devices that outlived the last worker. */
static void tune_devices(struct worker *w)
{
	struct export_info *e = NULL;
	size_t n = 0;

	if (exports_list(&w->exports, &e, &n))
		return;
	for (size_t i = 0; i < n; i++) {
		struct tuner_device d = api_tuner_device(&e[i]);

		if (e[i].device[0])
			tuner_attached(w->tuner, &d);
	}
	free(e);
}

/* All that can be made while another worker still serves; a setting that is wrong shows here. */
static int worker_prepare(struct worker *w, struct err *err)
{
	int rc = start_fill(w, err);

	if (!rc)
		rc = exports_init(&w->exports, w->cfg, w->fill, w->fds->exports_memfd,
				  w->fds->secrets_memfd, err);
	if (rc)
		return rc;
	w->have_exports = true;
	return probe_loop(w, err);
}

/* From the store to the connections of the devices, on which readers wait. */
static int worker_take_over(struct worker *w, const struct privileged_before *b, struct err *err)
{
	int rc = store_open(w->cfg->store_path, w->cfg->store_size, &w->store, err);

	if (rc)
		return rc;
	if (strcmp(w->cfg->page_cache, "auto") == 0)
		rc = store_pages_start(w->store, err);
	if (rc)
		return rc;
	exports_set_store(&w->exports, w->store);
	exports_reopen(&w->exports);
	rc = adopter_start(&w->exports, w->fds->supervisor, &w->adopter, err);
	if (!rc)
		rc = start_server(w, err);
	if (rc)
		return rc;
	adopter_take_over(w->adopter);
	w->exports.before_pid = b->pid;
	w->exports.before_planned = b->planned;
	if (b->pid)
		w->exports.gap_ms = (clock_now_ns() - b->left_ns) / NSEC_PER_MSEC;
	return 0;
}

static int worker_start(struct worker *w, struct err *err)
{
	struct privileged_before before;
	int rc = worker_prepare(w, err);

	if (!rc)
		rc = privileged_begin(w->fds->supervisor, &before, err);
	if (!rc)
		rc = worker_take_over(w, &before, err);
	if (rc)
		return rc;
	w->view = view_start(w->fds->supervisor);
	if (!w->view)
		return err_set(err, -ENOMEM, "out of memory");
	w->exports.view = w->view;
	w->tuner = tuner_new(w->view, w->fds->supervisor, store_path(w->store));
	if (!w->tuner)
		return err_set(err, -ENOMEM, "out of memory");
	rc = promoter_start(&w->exports, w->fds->supervisor, &w->promoter, err);
	if (rc)
		return rc;
	rc = control_start(w->fds->control_listen, w->cfg->metrics_listen, &w->exports, w->tuner,
			   w->fds->supervisor, w->cfg->nbd_socket, &w->control, err);
	if (!rc)
		log_info("worker", "serving", "loop=%s threads=%u gap_ms=%llu",
			 w->exports.event_loop, data_threads(w->cfg),
			 (unsigned long long)w->exports.gap_ms);
	return rc;
}

/* Let go of everything for the next worker, which waits for our end: no thread is joined, and
 * nothing is freed. */
static void worker_release(struct worker *w)
{
	log_info("worker", "letting go for another worker", "%s", "");
	nbd_server_release(w->server, RELEASE_MS);
	store_leave(w->store);
	_exit(0);
}

static void worker_stop(struct worker *w)
{
	rejoin_stop(w->rejoin);
	if (w->fill)
		fill_cancel(w->fill); /* an origin that is silent must not hold up the stop */
	if (w->control)
		control_stop(w->control);
	promoter_stop(w->promoter);
	tuner_free(w->tuner);
	view_stop(w->view);
	if (w->server)
		nbd_server_stop(w->server);
	if (w->have_exports)
		reopening_stop(&w->exports);
	adopter_stop(w->adopter);
	if (w->fill)
		fill_stop(w->fill);
	if (w->have_exports)
		exports_fini(&w->exports);
	if (w->store)
		store_close(w->store);
}

static int wait_for_signal(void)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	while (sigwait(&set, &sig) != 0)
		;
	return sig;
}

int worker_main(const struct config *cfg, const struct worker_fds *fds)
{
	struct worker w = {.cfg = cfg, .fds = fds, .loop_kind = loop_kind_of(cfg)};
	struct err err = {0};
	sigset_t set;
	int rc, sig;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL); /* threads inherit it: only this one takes them */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGIO, SIG_IGN); /* somebody opened a file of the store while a lease was tried */
	log_set_name("worker");
	raise_file_limit();
	bound_heap();
	sandbox_worker(SANDBOX_START, strcmp(cfg->seccomp, "on") == 0);
	rc = worker_start(&w, &err);
	sandbox_worker(SANDBOX_SERVE, strcmp(cfg->seccomp, "on") == 0);
	if (!rc)
		rc = privileged_ready(fds->supervisor, &err);
	if (!rc)
		rc = rejoin_start(cfg, fds, &w.rejoin, &err);
	if (rc)
		log_error("worker", "can't start", "%s", err.text);
	if (!rc) {
		reopening_start(&w.exports, w.adopter);
		tune_devices(&w);
		sig = wait_for_signal();
		if (sig == SIGUSR1)
			worker_release(&w);
		log_info("worker", "stopping", "signal=%d", sig);
	}
	worker_stop(&w);
	return rc ? 1 : 0;
}
