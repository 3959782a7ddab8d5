/* SPDX-License-Identifier: Apache-2.0 */
/* What the supervisor notes and says of workers that died. */
#ifndef SUPERVISOR_DEATH_H
#define SUPERVISOR_DEATH_H

#include "crash/backoff.h"
#include "crash/record.h"

struct deaths {
	struct crash_record *record;
	unsigned in_a_row;
	uint64_t oom_kills; /* in our cgroup, when the worker began */
};

void deaths_worker_starts(struct deaths *d);

/* @e as to time and oom is filled in here. Returns the milliseconds to wait. */
unsigned deaths_note(struct deaths *d, struct crash_end *e);

/* To the service manager, and, when it is a loop, to the log. */
void deaths_tell(const struct deaths *d, unsigned restarts, unsigned wait_ms);

#endif
