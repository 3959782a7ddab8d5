/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor's side of BPF: load what this kernel can take, hook by hook, and hold it. Nothing
 * is pinned: programs, links and maps go away with the descriptors, so also after SIGKILL. Single
 * thread.
 */
#ifndef OBSERVE_LOADER_H
#define OBSERVE_LOADER_H

#include <stdint.h>

#include "base/err.h"

#define LOADER_FDS 3 /* policy, stats, events: what observe/view.h mmaps */

struct loader;

/* Choose hooks from BTF, load, attach. Without rights, BTF or any hook: a loader that is off, with
 * a reason in loader_hooks(); never an error for the caller. NULL only without memory. */
struct loader *loader_open(void);
void loader_close(struct loader *l); /* may be NULL */

/* One line for the log and for `cairn top`. */
const char *loader_hooks(const struct loader *l, uint32_t *hooks);

/* The maps, borrowed; -ENOTSUP when it is off. */
int loader_fds(const struct loader *l, int fds[LOADER_FDS]);

/* Watch /dev/@device of @len bytes: its slot, with the heat map's descriptor (borrowed) and its
 * granule. Watching it already gives the same again. -ENOTSUP off, -ENOSPC, -ENODEV. */
int loader_add(struct loader *l, const char *device, uint64_t len, int *heat_fd, uint32_t *shift,
	       uint32_t *cells, struct err *err);
void loader_remove(struct loader *l, const char *device);

#endif
