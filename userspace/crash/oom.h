/* SPDX-License-Identifier: Apache-2.0 */
/* How many processes of our cgroup the kernel has killed for want of memory. */
#ifndef CRASH_OOM_H
#define CRASH_OOM_H

#include <stdint.h>

/* Of the cgroup of this process, v2 or v1; 0 where that can't be known. A SIGKILL beside which this
 * figure grew is taken for such a one. */
uint64_t crash_oom_kills(void);

/* The same with other places for /proc/self/cgroup and /sys/fs/cgroup. */
uint64_t crash_oom_kills_of(const char *cgroup_file, const char *root);

#endif
