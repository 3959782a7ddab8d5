/* SPDX-License-Identifier: Apache-2.0 */
/* A worker that is started beside the one that serves, to take its place as planned.
 *
 *	starting	it prepares all but store and exports; the old one serves
 *	releasing	it asked to begin; the old one was told (SIGUSR1) to let go, and ends
 *	settling	the old one has ended, and it may begin; settings count once it is ready
 *
 * One that ends while starting costs nothing: the old one serves on. One that ends while settling
 * is followed by a worker with the settings and the program from before. An old one that does not
 * let go within REPLACEMENT_RELEASE_MS is killed, which its connections survive. One thread.
 */
#ifndef SUPERVISOR_REPLACEMENT_H
#define SUPERVISOR_REPLACEMENT_H

#include <stdbool.h>

#include "supervisor/worker_process.h"

#define REPLACEMENT_START_MS   20000 /* until it asks to begin */
#define REPLACEMENT_RELEASE_MS 2000

enum replacement_state {
	REPLACEMENT_NONE,
	REPLACEMENT_STARTING,
	REPLACEMENT_RELEASING,
	REPLACEMENT_SETTLING,
};

struct replacement {
	enum replacement_state state;
	struct worker_process next; /* starting, releasing */
	struct config cfg;
	char program[CONFIG_PATH_MAX]; /* "" = our own */
	uint32_t asked;	      /* request of the old one that waits for an answer; 0 = none */
	uint32_t begin;	      /* request of the next one that does; 0 = none */
	uint64_t deadline_ns; /* starting, releasing */
	uint64_t released_ns; /* when the old one was told */
};

/* A supervisor that runs @program (a path; NULL = our own) could serve on with the settings of
 * @file (NULL = defaults) instead of @now's: they and the record of continuity.h
 * are right by its own --check-upgrade, and none
 * differs that only a restart of cairnd can change. 0 and the settings, or a negative errno with a
 * text that names what is wrong. Waits for the check, a few seconds at most. */
int replacement_check(const struct config *now, const char *program, const char *file,
		      struct config *out, struct err *err);

/* -EBUSY: one is under way. */
int replacement_start(struct replacement *r, const struct config *cfg, const char *program,
		      const struct worker_inheritance *in, struct err *err);

/* The next one asked to begin, by request @id: have the worker @old let go. */
void replacement_release(struct replacement *r, pid_t old, uint32_t id);

/* The old one has ended: *out is the worker from now on. */
void replacement_follow(struct replacement *r, struct worker_process *out);

/* Past its deadline: the next one, or the old one (pid @old), is killed. */
void replacement_on_time(struct replacement *r, uint64_t now, pid_t old);

#endif
