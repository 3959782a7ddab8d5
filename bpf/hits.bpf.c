/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is asked of the page cache, which no server can see: with the pages that windows.bpf.c saw
 * read for it, the share of hits. A read from the page cache takes half a microsecond, so these are
 * attached a share of the time only (observe/loader.h).
 */
#include "bpf/maps.bpf.h"

char LICENSE[] SEC("license") = "GPL"; /* else the verifier lets no kernel struct be read */

/* A read whose pages are not all at hand comes again for the rest, each time up to the same end; by
 * task, since it may have waited and gone on elsewhere. */
struct hits_read {
	__u64 mapping, last, task;
};

#define HITS_READS 1024 /* a power of two */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HITS_READS);
	__type(key, __u32);
	__type(value, struct hits_read);
} cairn_reads SEC(".maps");

static __always_inline bool hits_goes_on(__u64 mapping, __u64 last)
{
	__u64 task = bpf_get_current_pid_tgid();
	__u32 key = task & (HITS_READS - 1);
	struct hits_read *r = bpf_map_lookup_elem(&cairn_reads, &key);

	if (!r)
		return false;
	if (r->mapping == mapping && r->last == last && r->task == task)
		return true;
	r->mapping = mapping;
	r->last = last;
	r->task = task;
	return false;
}

/* The counters of the file's device if it is ours. Not while misses are not counted: the hooks are
 * attached one by one. */
static __always_inline struct observe_stats *hits_stats(const struct address_space *mapping)
{
	__u32 slot = inode_slot(mapping->host);

	return slot && watched.hits_on ? stats_of(slot - 1) : NULL;
}

SEC("tp_btf/mm_filemap_get_pages")
int hits_get_pages(__u64 *ctx)
{
	struct observe_stats *stats = hits_stats((struct address_space *)ctx[0]);

	if (!stats || ctx[2] < ctx[1])
		return 0;
	if (ctx[2] > ctx[1] && hits_goes_on(ctx[0], ctx[2])) /* one page is never a rest */
		return 0;
	__sync_fetch_and_add(&stats->asked_pages, ctx[2] - ctx[1] + 1);
	return 0;
}

SEC("tp_btf/mm_filemap_map_pages")
int hits_map_pages(__u64 *ctx)
{
	struct observe_stats *stats = hits_stats((struct address_space *)ctx[0]);

	if (stats && ctx[2] >= ctx[1])
		__sync_fetch_and_add(&stats->asked_pages, ctx[2] - ctx[1] + 1);
	return 0;
}

SEC("tp_btf/mm_filemap_fault")
int hits_fault(__u64 *ctx)
{
	struct observe_stats *stats = hits_stats((struct address_space *)ctx[0]);

	if (!stats)
		return 0;
	__sync_fetch_and_add(&stats->asked_pages, 1);
	__sync_fetch_and_add(&stats->faults, 1);
	return 0;
}
