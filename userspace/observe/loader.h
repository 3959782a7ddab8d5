/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor's side of BPF: load what this kernel can take, hook by hook, and hold it. Nothing
 * is pinned: programs, links and maps go away with the descriptors, so also after SIGKILL. Single
 * thread.
 *
 * Page-cache hits are the one question that costs a reader who misses nothing, so their hooks are
 * attached LOADER_HITS_ON_MS of each LOADER_HITS_PERIOD_MS only, and only while a device is
 * watched.
 */
#ifndef OBSERVE_LOADER_H
#define OBSERVE_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define LOADER_FDS 3 /* policy, stats, events: what observe/view.h mmaps */

#define LOADER_HITS_ON_MS     50
#define LOADER_HITS_PERIOD_MS 1000

struct loader;

/* Choose hooks from BTF, load, attach. Not @enabled, or without rights, BTF or any hook: a loader
 * that is off, with a reason in loader_hooks(); never an error for the caller. NULL only without
 * memory. */
struct loader *loader_open(bool enabled);
void loader_close(struct loader *l); /* may be NULL */

/* One line for the log and for `cairn top`. @hooks (may be NULL): enum observe_hook bits. */
const char *loader_hooks(const struct loader *l, uint32_t *hooks);

/* The maps, borrowed; -ENOTSUP when it is off. */
int loader_fds(const struct loader *l, int fds[LOADER_FDS]);

struct loader_watch {
	int heat_fd; /* borrowed */
	uint32_t slot, heat_shift, cells;
	uint32_t generation; /* of the slot: no two watches have the same */
};

/* Watch /dev/@device of @len bytes. Watching it already gives the same again. -ENOTSUP: off;
 * -ENOSPC, -ENODEV. */
int loader_add(struct loader *l, const char *device, uint64_t len, struct loader_watch *out,
	       struct err *err);
/* @generation: only if it is still that watch; 0 = whichever. */
void loader_remove(struct loader *l, const char *device, uint32_t generation);

/* Attach and detach what is due by the clock. Milliseconds until it wants to be called again; -1:
 * not before the next loader_add(). */
int loader_tick(struct loader *l);

#endif
