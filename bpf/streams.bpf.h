/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Streams: a direct-mapped array of them, by a hash of (device, inode, task). Whoever comes to a
 * place of another's clears it: a forgotten stream costs a few windows until its verdict is there
 * again, where an LRU hash's insert costs 737 to 922 ns an event. Two tasks at one place may mix
 * their counts; nothing else can go wrong.
 */
#ifndef BPF_STREAMS_H
#define BPF_STREAMS_H

#include "bpf/maps.bpf.h"

#include <stream.h>

#define STREAMS 8192U /* a power of two */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STREAMS);
	__type(key, __u32);
	__type(value, struct stream);
} cairn_streams __attribute__((weak)) SEC(".maps");

static __always_inline struct stream *stream_of(__u32 slot, __u64 ino, __u32 pid)
{
	__u32 generation = watched.device[slot & (OBSERVE_DEVICES - 1)].generation;
	__u64 hash = (ino * 31 + ((__u64)slot << 32 | pid)) * 0x9e3779b97f4a7c15ULL;
	__u32 key = (hash >> 32) * STREAMS >> 32;
	struct stream *s = bpf_map_lookup_elem(&cairn_streams, &key);

	if (!s)
		return NULL;
	if (s->ino == ino && s->slot == slot && s->pid == pid && s->generation == generation)
		return s;
	__builtin_memset(s, 0, sizeof(*s));
	s->ino = ino;
	s->slot = slot;
	s->pid = pid;
	s->generation = generation;
	return s;
}

/* A record for the worker. NO_WAKEUP: it drains the ring by the clock, so that a window never pays
 * for waking it. */
static __always_inline int stream_tell(const struct stream *s)
{
	struct observe_window *w = bpf_ringbuf_reserve(&cairn_events, sizeof(*w), 0);

	if (!w)
		return -1;
	w->ino = s->ino;
	w->off = s->off;
	w->ns = bpf_ktime_get_ns();
	w->cgroup = bpf_get_current_cgroup_id();
	w->bytes = s->bytes;
	w->stride = s->verdict == STREAM_STRIDE ? s->stride : 0;
	w->slot = s->slot;
	w->len = s->end - s->off;
	w->tgid = bpf_get_current_pid_tgid() >> 32;
	w->pid = s->pid;
	w->windows = s->windows;
	w->run = stream_run(s);
	w->verdict = s->verdict;
	w->generation = s->generation;
	bpf_get_current_comm(w->comm, sizeof(w->comm));
	bpf_ringbuf_submit(w, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline void stream_count(const struct stream *s, int news, __u64 bytes,
					 struct observe_stats *stats)
{
	__sync_fetch_and_add(&stats->window_bytes, bytes);
	if (watched.hits_on)
		__sync_fetch_and_add(&stats->missed_pages, bytes >> watched.page_shift);
	if (!news)
		return;
	__sync_fetch_and_add(&stats->windows, 1);
	if (s->verdict == STREAM_SEQUENTIAL)
		__sync_fetch_and_add(&stats->sequential, 1);
	else if (s->verdict == STREAM_STRIDE)
		__sync_fetch_and_add(&stats->stride, 1);
	else if (s->verdict == STREAM_RANDOM)
		__sync_fetch_and_add(&stats->random, 1);
}

struct stream_event {
	__u64 ino, off;
	__u32 slot, len;
	__u32 join;  /* pages by themselves: of the last window while that is below so many bytes */
	bool window; /* of readahead: counted as such */
};

/* One event of a stream of the current task. */
static __always_inline void stream_event(const struct stream_event *e, const struct policy *policy,
					 struct observe_stats *stats)
{
	struct stream *s = stream_of(e->slot, e->ino, (__u32)bpf_get_current_pid_tgid());
	__u32 before;
	__u64 bytes;
	int news;

	if (!s)
		return;
	before = s->verdict;
	bytes = s->bytes;
	news = e->join ? stream_note_page(s, e->off, e->len, e->join, policy->min_run)
		       : stream_note(s, e->off, e->len, policy->min_run);
	if (e->window && s->bytes != bytes)
		stream_count(s, news, s->bytes - bytes, stats);
	if (!news || (policy->flags & POLICY_DISABLED))
		return;
	/* a new verdict is told whatever the sampling */
	if (s->verdict == before && policy->ring_sampling > 1 &&
	    s->windows % policy->ring_sampling != 1)
		return;
	if (stream_tell(s))
		__sync_fetch_and_add(&stats->lost, 1);
}

#endif
