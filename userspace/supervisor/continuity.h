/* SPDX-License-Identifier: Apache-2.0 */
/* How one supervisor follows another: what the first knew is in runtime_dir/supervisor.state
 * (state.h), what it held comes by one of these, tried in this order:
 *
 *   execve    an upgrade: our own descriptors
 *   stored    it was killed under systemd, which kept them
 *   hello     it was killed, and its worker lives: that gives them back (hello.h)
 *   nothing   the worker is dead, too, or does not answer and is killed: devices stand without
 *             connections, and are brought back with new ones
 *
 * In each, devices that are still what the record says are kept, and the exports of
 * runtime_dir/exports are served again. Without a record of this boot everything is new. One
 * thread.
 */
#ifndef SUPERVISOR_CONTINUITY_H
#define SUPERVISOR_CONTINUITY_H

#include "supervisor/devices.h"
#include "supervisor/fdstore.h"
#include "supervisor/inherited.h"
#include "supervisor/state.h"
#include "supervisor/worker_process.h"

enum continuity_way {
	CONTINUITY_NEW, /* nobody was before us */
	CONTINUITY_EXECVE,
	CONTINUITY_STORED,
	CONTINUITY_HELLO,
	CONTINUITY_NOTHING,
};

struct continuity {
	int fd; /* the record */
	enum continuity_way way;
	struct state before;   /* while starting */
	struct inherited pool; /* while starting */
	int channel;	       /* to the worker of the supervisor before, until taken; -1 = none */
	uint32_t takeovers;    /* how many supervisors before this one, since a clean start */
	struct fdstore store;
	uint64_t saved; /* signature of what the record says */
};

/* What is written down. */
struct continuity_now {
	const struct config *cfg;
	const struct devices *devices;
	const struct worker_process *worker;
	const struct worker_inheritance *in;
	bool ready;
	uint32_t pending; /* state.h */
};

/* Finds out who was before us. May wait some seconds for its worker. runtime_dir is claimed. */
int continuity_open(struct continuity *c, const struct config *cfg, struct err *err);

/* This program can follow the supervisor of @cfg's runtime_dir: 0, or a negative errno and why not.
 */
int continuity_check(const struct config *cfg, struct err *err);

/* A listener of the one before, if it listened on the same path; else -1. */
int continuity_control_listen(struct continuity *c, const struct config *cfg);
int continuity_nbd_listen(struct continuity *c, const struct config *cfg);

/* The roster of exports (worker/roster.h), empty for a new beginning. A descriptor, or a negative
 * errno. */
int continuity_roster(struct continuity *c, const struct config *cfg, struct err *err);

/* Its record of crashes; -1: there is none. */
int continuity_crash(struct continuity *c);

/* The devices of the one before become @d's; those that are gone are said. */
void continuity_devices(struct continuity *c, struct devices *d);

/* The worker that the one before started and that goes on; false: there is none. */
bool continuity_worker(struct continuity *c, struct worker_process *out);

/* The start is over: what nobody took is closed. */
void continuity_begun(struct continuity *c);

/* After an execve: *cfg is what the settings were before it, for those on disk count only once a
 * worker serves with them. Else nothing. */
void continuity_settings(struct config *cfg);

/* Become @program with the settings of @file (NULL = defaults), which follows this supervisor in
 * the same process with all that it holds, @lock too. Returns only when that failed, with nothing
 * changed. */
int continuity_execve(struct continuity *c, const struct continuity_now *now, int lock,
		      const char *program, const char *file, struct err *err);

/* The lock that came through an execve, close-on-exec again; -1: none did. */
int continuity_lock(void);

/* Write down what changed; nothing when nothing did. What fails is logged. */
void continuity_save(struct continuity *c, const struct continuity_now *now);

/* @clean: a stop that was asked for; there is nothing to follow. */
void continuity_close(struct continuity *c, const struct config *cfg, bool clean);

const char *continuity_way_name(enum continuity_way way);

#endif
