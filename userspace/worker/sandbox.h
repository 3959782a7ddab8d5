/* SPDX-License-Identifier: Apache-2.0 */
/* What the process may not do even when somebody else's code runs in it. */
#ifndef WORKER_SANDBOX_H
#define WORKER_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum sandbox_stage {
	SANDBOX_START, /* before the first byte from outside; threads and rings can still be made */
	SANDBOX_SERVE, /* every ring there will be is there */
};

/* No core file, and no look into the memory by another process of the same user; @core_dumps: both,
 * as far as the limits let it. First thing in a process, and again after an exec(). */
void sandbox_hide(bool core_dumps);

/* For all threads, and for good; a later stage takes away more. Of the system calls that are not on
 * the list those that only an attacker makes kill the process (SIGSYS); the others fail with
 * ENOSYS, as on an old kernel, for which a newer libc has another way. 0 or a negative errno (no
 * seccomp in this kernel): then nothing is in force. */
int sandbox_enter(enum sandbox_stage stage, struct err *err);

/* The filter of a stage for the architecture @arch (SCMP_ARCH_*), as it would be loaded, to @fd. */
int sandbox_export(enum sandbox_stage stage, uint32_t arch, int fd);

/* Both, as [daemon] seccomp and this build allow: a sanitizer makes calls of its own. Never fails:
 * a filter that can't be had is said in the log. */
void sandbox_worker(enum sandbox_stage stage, bool wanted);

#endif
