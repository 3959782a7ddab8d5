/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is asked of the page cache, which no server can see: with the pages that windows.bpf.c saw
 * read for it, the share of hits. A read from the page cache takes half a microsecond, so these are
 * attached a share of the time only (observe/loader.h).
 */
#include "bpf/maps.bpf.h"

char LICENSE[] SEC("license") = "GPL"; /* else the verifier lets no kernel struct be read */

/* A read of more pages than fit a batch comes again for the rest, each time up to the same end. */
struct hits_read {
	__u64 mapping, last;
	__u64 task;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hits_read);
} cairn_reads SEC(".maps");

static __always_inline int hits_goes_on(__u64 mapping, __u64 last)
{
	__u64 task = bpf_get_current_pid_tgid();
	struct hits_read *r;
	__u32 zero = 0;

	r = bpf_map_lookup_elem(&cairn_reads, &zero);
	if (!r)
		return 0;
	if (r->mapping == mapping && r->last == last && r->task == task)
		return 1;
	r->mapping = mapping;
	r->last = last;
	r->task = task;
	return 0;
}

SEC("tp_btf/mm_filemap_get_pages")
int hits_get_pages(__u64 *ctx)
{
	struct address_space *mapping = (struct address_space *)ctx[0];
	__u32 slot = inode_slot(mapping->host);
	struct observe_stats *stats;

	if (!slot || ctx[2] < ctx[1])
		return 0;
	stats = stats_of(slot - 1);
	if (!stats)
		return 0;
	if (ctx[2] > ctx[1] && hits_goes_on(ctx[0], ctx[2]))
		return 0;
	__sync_fetch_and_add(&stats->asked_pages, ctx[2] - ctx[1] + 1);
	return 0;
}

SEC("tp_btf/mm_filemap_map_pages")
int hits_map_pages(__u64 *ctx)
{
	struct address_space *mapping = (struct address_space *)ctx[0];
	__u32 slot = inode_slot(mapping->host);
	struct observe_stats *stats;

	if (!slot || ctx[2] < ctx[1])
		return 0;
	stats = stats_of(slot - 1);
	if (stats)
		__sync_fetch_and_add(&stats->asked_pages, ctx[2] - ctx[1] + 1);
	return 0;
}

SEC("tp_btf/mm_filemap_fault")
int hits_fault(__u64 *ctx)
{
	struct address_space *mapping = (struct address_space *)ctx[0];
	__u32 slot = inode_slot(mapping->host);
	struct observe_stats *stats;

	if (!slot)
		return 0;
	stats = stats_of(slot - 1);
	if (!stats)
		return 0;
	__sync_fetch_and_add(&stats->asked_pages, 1);
	__sync_fetch_and_add(&stats->faults, 1);
	return 0;
}
