/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the supervisor's life. One thread. */
#ifndef SUPERVISOR_SUPERVISOR_IMPL_H
#define SUPERVISOR_SUPERVISOR_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include <supervisor_protocol.h>

#include "observe/loader.h"
#include "supervisor/continuity.h"
#include "supervisor/death.h"
#include "supervisor/devices.h"
#include "supervisor/guard.h"
#include "supervisor/replacement.h"
#include "supervisor/supervisor.h"
#include "supervisor/watch.h"
#include "supervisor/worker_process.h"

struct supervisor {
	struct config cfg;
	struct devices devices;
	struct loader *observer;
	struct guard guard;
	struct worker_inheritance in;
	struct worker_process worker; /* pid 0 = none */
	bool worker_is_stranger;      /* no child of ours */
	struct continuity continuity;
	struct watch strangers; /* processes that the supervisor before started */
	struct replacement replacement;
	const char *settings_file;	   /* NULL = defaults */
	const struct config *settings;	   /* as they were on disk at start */
	char own_program[CONFIG_PATH_MAX]; /* its path at start: another file stands there later */
	char program[CONFIG_PATH_MAX];	   /* of workers; "" = the one that we are */
	uint64_t left_ns;		   /* when the worker before was told to let go, or ended */
	pid_t left_pid;			   /* it */
	bool left_planned;
	int signals, lock;
	uint64_t started_ns;  /* of this worker */
	uint64_t restart_ns;  /* when to start the next; 0 = not waiting */
	uint64_t deadline_ns; /* stopping: SIGKILL then */
	uint64_t watchdog_ns; /* interval; 0 = none */
	struct deaths deaths;
	bool ready, ever_ready, stopping;
	int status; /* exit status */
};

/* ---- supervisor.c ---- */

/* Returns only when it failed (continuity.h). */
int supervisor_execve(struct supervisor *s, const char *program, uint32_t pending, struct err *err);

/* The record of continuity.h, as things are now; before somebody acts on what is new. */
void supervisor_save(struct supervisor *s);

/* To the log and the service manager. */
void supervisor_tell_serving(struct supervisor *s);

/* ---- request.c ---- */

/* Answers the next request of @w, the worker or the next one, if there is one. -EPIPE: it hung up,
 * or reads no replies; else what it sent is no request. Then *@len is what was received: bytes or a
 * negative errno. */
int request_serve(struct supervisor *s, struct worker_process *w, ssize_t *len);

/* ---- upgrade.c ---- */

void upgrade_init(struct supervisor *s, const char *file);

/* Have another worker, of @program (NULL = our own) with settings @cfg, take the place of the one
 * that serves, whose request @asked (0 = none) is answered when that is certain or has failed.
 * Returns at once; what it costs and when settings count: supervisor/replacement.h. -EBUSY: one is
 * under way; -EAGAIN: no worker serves. */
int worker_replace(struct supervisor *s, const struct config *cfg, const char *program,
		   uint32_t asked, struct err *err);

/* The worker asks for an upgrade: settings and program as they are on disk. True: begun, and
 * answered later; false: @r says why not. */
bool upgrade_ask(struct supervisor *s, uint32_t id, struct supervisor_reply *r);

/* This supervisor follows another, whose worker serves and asked for that (@asked) or not (0): have
 * one of our own in its place, with counters of our own observer. */
void upgrade_after(struct supervisor *s, uint32_t asked);

/* The next worker asks for something; only to begin is right. */
bool upgrade_begin(struct supervisor *s, const struct supervisor_request *q);

/* The answer to a worker that begins: what was before it. */
void upgrade_tell(const struct supervisor *s, struct supervisor_reply *r);

/* The worker has ended, which s->left_* tell. True: as it was told to, and the next one is the
 * worker. */
bool upgrade_follows(struct supervisor *s, int status);

/* It has died: a next one that is being started is the worker, or what was begun is given up. */
bool upgrade_steps_in(struct supervisor *s);

/* The next one died before it was needed. */
void upgrade_next_died(struct supervisor *s, int status);

/* The worker is ready: if it took another's place, its settings are the supervisor's. */
void upgrade_settled(struct supervisor *s);

#endif
