/* SPDX-License-Identifier: Apache-2.0 */
/* The record of deaths, as the supervisor writes it and whoever shows it reads it. */
#ifndef CRASH_RECORD_KEEP_H
#define CRASH_RECORD_KEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <crash_record.h>

#include "base/err.h"

/* A fresh record: its descriptor (close-on-exec), or a negative errno. */
int crash_record_new(struct crash_record **out, struct err *err);

/* Map what another process made. -EPROTO: of another version, or no record. */
int crash_record_map(int fd, struct crash_record **out);
void crash_record_unmap(struct crash_record *r);

struct crash_end {
	pid_t pid;
	int status;	      /* of waitpid() */
	bool status_is_guess; /* not our child: what the worker told of itself goes before */
	uint64_t ran_ms, time_ms;
	bool oom; /* the cgroup counted a process killed for memory meanwhile */
};

/* By the supervisor, when the worker has ended: note the death, free its area, and decide whether a
 * request is to be blamed. @out (may be NULL) is a copy of what was noted. True: a poison was made
 * of out->doing. */
bool crash_record_end(struct crash_record *r, const struct crash_end *e, struct crash_death *out);

/* Checked copies, newest first, at most CRASH_DEATHS; how many. Any thread. */
struct crash_death_view {
	struct crash_death death;
	struct crash_log log;
};
size_t crash_record_deaths(const struct crash_record *r, struct crash_death_view *out);

/* Of a checked log: line @i of the whole ones (0 = the oldest), or NULL. Bytes after its end are
 * 0. */
const char *crash_log_line(const struct crash_log *log, unsigned i);
unsigned crash_log_lines(const struct crash_log *log);

/* Checked copies of the poisons; how many. */
size_t crash_record_poisons(const struct crash_record *r, struct crash_poison out[CRASH_POISONS]);

/* Forget poisons, and let no death before now make one. */
void crash_record_clear(struct crash_record *r);

const char *crash_cause_name(uint32_t cause); /* "segv", .. */
const char *crash_what_name(uint32_t what);   /* "read", ..; "" when idle */

/* "read of 4096 bytes at 8192 of export x (image-..)"; "nothing that is noted". */
void crash_doing_text(const struct crash_doing *d, char *buf, size_t len);

#endif
