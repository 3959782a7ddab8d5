/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's view of what the supervisor's BPF programs count: maps that came as descriptors and
 * are mmapped, and a thread that drains the ring. It makes no bpf(2) call, which an unprivileged
 * process may not make on older kernels: hence a ring reader of our own (the layout is uapi,
 * linux/bpf.h) instead of libbpf's.
 *
 * A view without BPF is a view in which every call says -ENOTSUP and view_hooks() says why; nothing
 * else of the worker notices. Thread-safe.
 */
#ifndef OBSERVE_VIEW_H
#define OBSERVE_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <heat.h>
#include <observe.h>
#include <policy.h>

#include "base/err.h"

struct view;

/* Ask the supervisor (worker/privileged.h) for the maps and begin. Never fails for want of BPF;
 * NULL only without memory. */
struct view *view_start(int supervisor_fd);
void view_stop(struct view *v); /* may be NULL */

/* "requests, windows (tp_btf), page-cache hits" or "off: this kernel has no BTF (..)". Lives as
 * long as @v. @hooks (may be NULL): enum observe_hook bits. */
const char *view_hooks(const struct view *v, uint32_t *hooks);

/* Begin to watch the device under the export; its slot, or -ENOTSUP, -ENOSPC (all slots taken),
 * -ENOENT. Asks the supervisor: not on a data thread. */
int view_add(struct view *v, const char *export_name, uint64_t device_len);
void view_remove(struct view *v, int slot);

struct view_device {
	struct observe_stats stats; /* summed over stripes */
	uint32_t heat_shift;	    /* log2 of the granule, bytes */
	uint32_t cells;
};
int view_device(struct view *v, int slot, struct view_device *out);

/* Heat now of granules [first, first + n) into @out. -ERANGE beyond the device. */
int view_heat(struct view *v, int slot, uint32_t first, uint32_t n, uint32_t *out);

/* The streams of a device that were heard of lately, the most recent first; returns how many (at
 * most
 * @max). The verdict, counts and place are those of the last record. */
size_t view_streams(struct view *v, int slot, struct observe_window *out, size_t max);

struct view_ring {
	uint64_t records; /* drained since the worker's start */
	uint64_t lost;	  /* found the ring full, all devices */
};
void view_ring(struct view *v, struct view_ring *out);

/* The policy in force for a device's slot, or for a cgroup; *set tells whether one was set or the
 * defaults stand. Setting takes effect on the next event; a changed half-life converts the cells.
 * Values out of range: -ERANGE (the caller has better words). -ENOSPC: the cgroup table is full. */
int view_policy(struct view *v, int slot, struct policy *out, bool *set);
int view_policy_set(struct view *v, int slot, const struct policy *p);
int view_cgroup_policy(struct view *v, uint64_t cgroup, struct policy *out, bool *set);
int view_cgroup_policy_set(struct view *v, uint64_t cgroup, const struct policy *p);
int view_cgroup_policy_unset(struct view *v, uint64_t cgroup);

#endif
