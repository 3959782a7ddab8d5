/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that may not be our children: a pid alone may be anyone's by now, so each is known by
 * its pid and when it began. */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BOOT_ID_LEN 40

struct process {
	pid_t pid;	  /* 0 = none */
	uint64_t started; /* clock ticks since boot */
};

/* Names this boot of the kernel. 0 or a negative errno. */
int boot_id(char out[BOOT_ID_LEN]);

/* -ENOENT: there is none. */
int process_started(pid_t pid, uint64_t *started);

/* @pid as it is now; {0} when there is none. */
struct process process_of(pid_t pid);

/* It runs. A zombie, which may wait for its parent for ever, does not. */
bool process_is(const struct process *p);

/* A descriptor that polls readable when the process has ended, all threads; close-on-exec, the
 * caller's. -ESRCH: there is none, or its pid is another's. */
int process_open(const struct process *p);

/* It is ours to wait for. */
bool process_is_child(pid_t pid);

/* True once it has ended; waits at most @ms. A child is reaped. */
bool process_ends(const struct process *p, int ms);

#endif
