/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What all programs share: the maps, and the first question of each event: is the device ours?
 *
 * Maps and variables are weak, so that each program file defines them and the linker keeps one.
 */
#ifndef BPF_MAPS_H
#define BPF_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include <heat.h>
#include <observe.h>
#include <policy.h>

#include "bpf/watched.h"
#include "bpf/kernel.h"

/* Written by the supervisor through the mapping of .bss; an array in .bss costs no helper call. */
struct watched watched __attribute__((weak));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, POLICY_ENTRIES);
	__type(key, __u32);
	__type(value, struct policy);
} cairn_policy __attribute__((weak)) SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, OBSERVE_DEVICES *OBSERVE_STRIPES);
	__type(key, __u32);
	__type(value, struct observe_stats);
} cairn_stats __attribute__((weak)) SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, OBSERVE_RING_BYTES);
} cairn_events __attribute__((weak)) SEC(".maps");

/* The slot of device @dev plus 1, or 0 for the devices of others. */
static __always_inline __u32 device_slot(__u32 dev)
{
	__u32 major = dev >> DEV_MINOR_BITS, minor = dev & DEV_MINOR_MASK;

	if (major != DEV_LOOP && major != DEV_NBD)
		return 0;
	if (minor >= WATCHED_MINORS)
		return 0;
	return watched.slot[major == DEV_NBD][minor];
}

/* The same for a file: that of its file system's device, or of the device that it is. */
static __always_inline __u32 inode_slot(const struct inode *inode)
{
	__u32 slot = device_slot(inode->i_sb->s_dev);

	return slot ? slot : device_slot(inode->i_rdev);
}

static __always_inline struct observe_stats *stats_of(__u32 slot)
{
	__u32 key = slot * OBSERVE_STRIPES + (bpf_get_smp_processor_id() & (OBSERVE_STRIPES - 1));

	return bpf_map_lookup_elem(&cairn_stats, &key);
}

/* The policy of cgroup @id, or NULL. */
static __always_inline struct policy *policy_of_cgroup(__u64 id)
{
	for (__u32 i = 0; i < POLICY_PROBES; i++) {
		__u32 key = policy_cgroup_entry(id, i);
		struct policy *p = bpf_map_lookup_elem(&cairn_policy, &key);

		if (p && p->cgroup == id)
			return p;
	}
	return NULL;
}

/* What counts for the current task on this device: its cgroup's, the nearest one's that has any,
 * or else the device's. */
static __always_inline struct policy policy_now(__u32 slot)
{
	__u32 head_key = POLICY_HEAD;
	struct policy *p = bpf_map_lookup_elem(&cairn_policy, &slot);
	struct policy *head = bpf_map_lookup_elem(&cairn_policy, &head_key);
	struct policy out = {};
	__u32 half_life_ms;

	if (p)
		out = policy_sane(*p);
	if (!head || !head->cgroup)
		return out;
	half_life_ms = out.half_life_ms;
	for (__u32 level = 0; level < POLICY_LEVELS; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			break;
		p = policy_of_cgroup(id);
		if (p)
			out = policy_sane(*p);
	}
	out.half_life_ms = half_life_ms;
	return out;
}

#endif
