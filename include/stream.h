/* SPDX-License-Identifier: Apache-2.0 */
/* The verdict on a stream: what pattern the windows of one (inode or device, task) make.
 *
 *	sequential  windows that go on where one of the last STREAM_HEADS ended, so that a
 *		    task which reads two places of a file in turn is sequential too
 *	stride	    runs of such windows whose starts lie equally far apart, forwards or backwards;
 *		    a backward reader is a stride of minus one window
 *	random	    neither, with the usual length of a run: a reader of shuffled samples jumps
 *		    at random and reads each sample through
 *
 * A verdict takes min_run windows that agree and stands until as many agree on another; a window
 * that jumps now and then changes nothing. Plain C and __uNN only: compiled into BPF (no loop
 * without a bound, no division by what is not constant) and into the unit tests.
 */
#ifndef STREAM_H
#define STREAM_H

#include "observe.h"

#define STREAM_HEADS	  4 /* a power of two */
#define STREAM_MEAN_SHIFT 4 /* of mean_run: fixed point */

struct stream {
	/* whose it is; the caller compares and clears */
	__u64 ino;
	__u32 slot, generation, pid;
	__u32 verdict; /* enum stream_verdict */
	/* the last window */
	__u64 off, end;
	__u64 bytes; /* of all windows */
	__u32 windows;
	__u32 run;     /* windows since the last jump */
	__u64 run_off; /* where that jump went to */
	__s64 stride;  /* from the jump before it */
	__u32 strides; /* jumps in a row by it */
	__u32 jumps;   /* since windows last agreed on anything else than random */
	__u32 mean_run;
	__u32 next_head;
	__u64 heads[STREAM_HEADS]; /* ends of windows that may go on */
};

/* The head that [off, end) goes on from, or STREAM_HEADS. The kernel's windows follow each other
 * exactly; an eighth of a window is let pass as skipped, and part of it as read again. */
static inline __u32 stream_find_head(const struct stream *s, __u64 off, __u64 end)
{
	__u64 len = end - off, gap = len / 8;
	__u32 found = STREAM_HEADS;

#pragma GCC unroll 4
	for (__u32 i = 0; i < STREAM_HEADS; i++)
		if (s->heads[i] && off <= s->heads[i] + gap && off + len > s->heads[i] &&
		    off + len <= s->heads[i] + len + gap)
			found = i;
	return found;
}

static inline void stream_jump(struct stream *s, __u64 off, __u32 min_run)
{
	__s64 delta = (__s64)(off - s->run_off);
	__u32 run = s->run << STREAM_MEAN_SHIFT;

	s->mean_run = s->mean_run ? (3 * s->mean_run + run) / 4 : run;
	s->strides = delta == s->stride ? s->strides + 1 : 1;
	s->stride = delta;
	s->run_off = off;
	s->run = 1;
	s->jumps++;
	if (s->strides >= 2 && s->strides >= min_run) {
		s->verdict = STREAM_STRIDE;
		s->jumps = 0;
	} else if (s->jumps >= min_run && s->strides < 2) {
		s->verdict = STREAM_RANDOM;
	}
}

/* One more window of @len bytes at @off. 0: a part of the last one, which is no news; else 1. */
static inline int stream_note(struct stream *s, __u64 off, __u32 len, __u32 min_run)
{
	__u64 end = off + len;
	__u32 head;

	if (s->windows && off >= s->off && end <= s->end)
		return 0;
	head = stream_find_head(s, off, end);
	if (!s->windows) {
		s->run = 1;
		s->run_off = off;
	} else if (head < STREAM_HEADS) {
		s->run++;
		/* samples a little longer than min_run are still random as a whole */
		if (s->run >= (s->verdict == STREAM_RANDOM ? 2 * min_run : min_run)) {
			s->verdict = STREAM_SEQUENTIAL;
			s->jumps = 0;
		}
	} else {
		stream_jump(s, off, min_run);
	}
	if (head >= STREAM_HEADS)
		head = s->next_head++;
	s->heads[head & (STREAM_HEADS - 1)] = end;
	s->off = off;
	s->end = end;
	s->bytes += len;
	s->windows++;
	return 1;
}

/* A page or folio that was read (where the kernel does not tell windows): goes on with the last
 * window while that is below @max bytes, which makes no news (0), or begins the next (1). */
static inline int stream_note_page(struct stream *s, __u64 off, __u32 len, __u32 max, __u32 min_run)
{
	if (s->windows && off == s->end && s->end - s->off < max) {
		__u32 head = stream_find_head(s, off, off + len);

		s->heads[head & (STREAM_HEADS - 1)] = off + len;
		s->end += len;
		s->bytes += len;
		return 0;
	}
	return stream_note(s, off, len, min_run);
}

/* Its run as people are told: windows that agree with the verdict. */
static inline __u32 stream_run(const struct stream *s)
{
	__u32 mean;

	if (s->verdict == STREAM_STRIDE)
		return s->strides;
	if (s->verdict != STREAM_RANDOM)
		return s->run;
	mean = (s->mean_run + (1U << (STREAM_MEAN_SHIFT - 1))) >> STREAM_MEAN_SHIFT;
	return mean ? mean : 1;
}

#endif
