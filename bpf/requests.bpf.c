/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is asked of a device: requests, bytes, heat by granule; and streams of reads that no
 * readahead issued (direct reads, a file system's own blocks), as those of inode 0.
 *
 * block_bio_queue runs in the task that asks, once a bio, before it is split or merged.
 */
#include "bpf/maps.bpf.h"
#include "bpf/compat.bpf.h"
#include "bpf/streams.bpf.h"

char LICENSE[] SEC("license") = "GPL"; /* else the verifier lets no kernel struct be read */

#define HEAT_GRANULES 8 /* a bio touches at most: 32 MiB */

struct heat_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP | BPF_F_MMAPABLE); /* lengths differ */
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64); /* two cells: an array's values are padded to 8 bytes */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, OBSERVE_DEVICES);
	__type(key, __u32);
	__array(values, struct heat_map);
} cairn_heat SEC(".maps");

/* One read more. Tried twice: a cell that two others changed meanwhile is hot enough. */
static __always_inline void heat_touch(void *map, __u32 idx, __u32 epoch)
{
	__u32 key = idx / 2, old, found;
	__u32 *pair = bpf_map_lookup_elem(map, &key), *cell;

	if (!pair)
		return;
	cell = &pair[idx & 1];
	old = *(volatile __u32 *)cell;
	found = __sync_val_compare_and_swap(cell, old, heat_add(old, epoch, 1));
	if (found != old)
		__sync_val_compare_and_swap(cell, found, heat_add(found, epoch, 1));
}

static __always_inline void heat_note(__u32 slot, __u64 off, __u32 len, __u32 half_life_ms)
{
	__u32 shift = watched.device[slot & (OBSERVE_DEVICES - 1)].heat_shift & 63;
	__u64 first = off >> shift, last = (off + len - 1) >> shift;
	__u32 epoch = heat_epoch(bpf_ktime_get_ns(), half_life_ms);
	void *map = bpf_map_lookup_elem(&cairn_heat, &slot);

	if (!map)
		return;
	for (__u32 i = 0; i < HEAT_GRANULES && first + i <= last; i++)
		heat_touch(map, first + i, epoch);
}

SEC("tp_btf/block_bio_queue")
int requests_bio_queue(__u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[0];
	__u32 slot = device_slot(bio->bi_bdev->bd_dev), len;
	struct observe_stats *stats;
	struct policy policy;
	__u64 off;

	if (!slot)
		return 0;
	slot--;
	len = bio->bi_iter.bi_size;
	if ((bio->bi_opf & REQ_OP_MASK) != REQ_OP_READ || !len)
		return 0;
	stats = stats_of(slot);
	if (!stats)
		return 0;
	__sync_fetch_and_add(&stats->requests, 1);
	__sync_fetch_and_add(&stats->request_bytes, len);
	policy = policy_now(slot);
	off = bio->bi_iter.bi_sector << 9;
	if (!(policy.flags & POLICY_DISABLED))
		heat_note(slot, off, len, policy.half_life_ms);
	if (!compat_is_ahead(bio)) {
		struct stream_event e = {.slot = slot, .off = off, .len = len};

		stream_event(&e, &policy, stats);
	}
	return 0;
}
