/* SPDX-License-Identifier: Apache-2.0 */
/* What `cairn tune` sets: one record a device and one a cgroup, in one mmapped BPF array that the
 * BPF programs read on every event and the worker writes.
 *
 * Layout of the array: entry [slot] for the device in that slot, then OBSERVE_CGROUPS entries that
 * form an open-addressed table by cgroup id, then POLICY_HEAD, whose cgroup field counts the
 * entries of that table: while it is 0 nobody looks for a task's cgroup. A cgroup's policy stands
 * in for the device's in all but half_life_ms, since cells are shared by all who read the device.
 *
 * Nobody but us should write there, but anybody with the descriptor can: so readers take
 * policy_sane() of what they read, and nothing they do with it can go wrong for any bit pattern.
 * Plain C and __uNN only: compiled into BPF, worker and unit tests.
 */
#ifndef POLICY_H
#define POLICY_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#include "observe.h"

#define POLICY_HEAD    (OBSERVE_DEVICES + OBSERVE_CGROUPS)
#define POLICY_ENTRIES (POLICY_HEAD + 1)
#define POLICY_PROBES  8U  /* places that a cgroup's entry may be at */
#define POLICY_LEVELS  16U /* of nested cgroups that are looked at, from the root */

#define POLICY_HALF_LIFE_MIN_MS	    1000U
#define POLICY_HALF_LIFE_MAX_MS	    86400000U
#define POLICY_HALF_LIFE_DEFAULT_MS 30000U
#define POLICY_MIN_RUN_MAX	    1024U
#define POLICY_MIN_RUN_DEFAULT	    4U
#define POLICY_SAMPLING_MAX	    65536U
#define POLICY_SAMPLING_DEFAULT	    1U

/* 32 bytes. All zeros means "nothing set": the defaults. */
struct policy {
	__u64 cgroup; /* id (inode number in cgroup2); 0 in a device's entry = free in the table */
	__u32 flags;  /* POLICY_* */
	__u32 half_life_ms;  /* heat halves once per idle half-life */
	__u32 min_run;	     /* windows in a row before a stream has a verdict */
	__u32 ring_sampling; /* one record every N windows; 1 = each */
	__u32 reserved[2];   /* 0 */
};

#define POLICY_SET	1U /* the other fields count; else the defaults do */
#define POLICY_DISABLED 2U /* neither heat nor streams are noted */

/* @p with every field that is unset or out of range at its default. */
static inline struct policy policy_sane(struct policy p)
{
	if (!(p.flags & POLICY_SET))
		p.flags = 0;
	if (!p.flags || p.half_life_ms < POLICY_HALF_LIFE_MIN_MS ||
	    p.half_life_ms > POLICY_HALF_LIFE_MAX_MS)
		p.half_life_ms = POLICY_HALF_LIFE_DEFAULT_MS;
	if (!p.flags || p.min_run < 1 || p.min_run > POLICY_MIN_RUN_MAX)
		p.min_run = POLICY_MIN_RUN_DEFAULT;
	if (!p.flags || p.ring_sampling < 1 || p.ring_sampling > POLICY_SAMPLING_MAX)
		p.ring_sampling = POLICY_SAMPLING_DEFAULT;
	p.flags &= POLICY_SET | POLICY_DISABLED;
	p.reserved[0] = p.reserved[1] = 0;
	return p;
}

/* Entry number @probe (below POLICY_PROBES) at which the policy of cgroup @id may be. */
static inline __u32 policy_cgroup_entry(__u64 id, __u32 probe)
{
	__u64 hash = (id * 0x9e3779b97f4a7c15ULL) >> 32;
	__u32 first = (__u32)(hash * OBSERVE_CGROUPS >> 32); /* the upper bits are the mixed ones */

	return OBSERVE_DEVICES + ((first + probe) & (OBSERVE_CGROUPS - 1));
}

#endif
