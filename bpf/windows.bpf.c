/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is read ahead: each window, told by inode and place in the file, is one event of a stream.
 *
 * The hook is where the window is known, at page_cache_ra_unbounded() and page_cache_ra_order():
 * page_cache_sync_ra() and _async_ra() are entered before it is computed, and faults of mmapped
 * files pass them by. Files without large folios come through both, the second time with a part of
 * the same window, which stream_note() knows.
 */
#include "bpf/maps.bpf.h"
#include "bpf/compat.bpf.h"
#include "bpf/streams.bpf.h"

char LICENSE[] SEC("license") = "GPL"; /* else the verifier lets no kernel struct be read */

#define ADDED_WINDOW (128U * 1024) /* pages that follow each other are one window up to here */

#define WINDOW_MAX (1U << 30) /* more is told as so much: len has 32 bits */

/* [index, index + pages) cut at the end of the file, in bytes; 0 = nothing left. */
static __always_inline __u32 window_len(const struct inode *inode, __u64 index, __u64 pages)
{
	__u32 shift = watched.page_shift;
	__u64 end = ((__u64)inode->i_size + (1U << shift) - 1) >> shift;

	if (index >= end)
		return 0;
	if (pages > end - index)
		pages = end - index;
	if (pages > WINDOW_MAX >> shift)
		pages = WINDOW_MAX >> shift;
	return pages << shift;
}

static __always_inline void window_note(const struct inode *inode, __u32 slot, __u64 index,
					__u64 pages, __u32 join)
{
	struct stream_event e = {.slot = slot, .join = join, .window = true};
	struct observe_stats *stats = stats_of(slot);
	struct policy policy;

	/* the inode of the device itself has a number too, but it is no file's */
	if (device_slot(inode->i_sb->s_dev))
		e.ino = inode->i_ino;
	e.off = index << watched.page_shift;
	e.len = window_len(inode, index, pages);
	if (!e.len || !stats)
		return;
	policy = policy_now(slot);
	stream_event(&e, &policy, stats);
}

SEC("tp_btf/page_cache_ra_unbounded")
int windows_tp_unbounded(__u64 *ctx)
{
	struct inode *inode = (struct inode *)ctx[0];
	__u32 slot = inode_slot(inode);

	if (slot)
		window_note(inode, slot - 1, ctx[1], ctx[2], 0);
	return 0;
}

SEC("tp_btf/page_cache_ra_order")
int windows_tp_order(__u64 *ctx)
{
	struct inode *inode = (struct inode *)ctx[0];
	struct file_ra_state *ra = (struct file_ra_state *)ctx[2];
	__u32 slot = inode_slot(inode);

	if (slot)
		window_note(inode, slot - 1, ctx[1], ra->size, 0);
	return 0;
}

SEC("fentry/page_cache_ra_unbounded")
int windows_fentry_unbounded(__u64 *ctx)
{
	struct readahead_control *rac = (struct readahead_control *)ctx[0];
	struct inode *inode = rac->mapping->host;
	__u32 slot = inode_slot(inode);

	if (slot)
		window_note(inode, slot - 1, rac->_index, ctx[1], 0);
	return 0;
}

SEC("fentry/page_cache_ra_order")
int windows_fentry_order(__u64 *ctx)
{
	struct readahead_control *rac = (struct readahead_control *)ctx[0];
	struct file_ra_state *ra = (struct file_ra_state *)ctx[1];
	struct inode *inode = rac->mapping->host;
	__u32 slot = inode_slot(inode);

	if (slot)
		window_note(inode, slot - 1, rac->_index, ra->size, 0);
	return 0;
}

SEC("tp_btf/mm_filemap_add_to_page_cache")
int windows_added(__u64 *ctx)
{
	struct address_space *mapping = compat_added_mapping(ctx);
	struct inode *inode = mapping->host;
	__u32 slot = inode_slot(inode);

	if (slot)
		window_note(inode, slot - 1, compat_added_index(ctx), compat_added_pages(ctx),
			    ADDED_WINDOW);
	return 0;
}
