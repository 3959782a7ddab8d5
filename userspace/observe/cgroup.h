/* SPDX-License-Identifier: Apache-2.0 */
/* A cgroup by its path. The path is looked up in the mount table first, so that none but a cgroup2
 * mount is ever touched: a path on a device that we serve could wait for ourselves. */
#ifndef OBSERVE_CGROUP_H
#define OBSERVE_CGROUP_H

#include <stdint.h>

#include "base/err.h"

/* @path: absolute, in any cgroup2 mount of @mountinfo ("/proc/self/mountinfo"); *id is what BPF
 * calls the cgroup. -ENOENT: not there; -EINVAL: cgroup v1, or no cgroup at all, or not absolute.
 * The text says where cgroup2 is mounted. */
int cgroup_find(const char *mountinfo, const char *path, uint64_t *id, struct err *err);

#endif
