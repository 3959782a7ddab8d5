/* SPDX-License-Identifier: Apache-2.0 */
/* What bpf/ tells the worker: counters of a device in an mmapped array, and a record a window in a
 * ring. Both ends are built from one tree; the magic catches a worker that an upgrade left behind.
 * Plain C and __uNN only.
 */
#ifndef OBSERVE_H
#define OBSERVE_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#define OBSERVE_DEVICES 256 /* slots */
#define OBSERVE_CGROUPS 64  /* power of two */
#define OBSERVE_STRIPES 16  /* of the counters, by CPU: power of two */

#define OBSERVE_RING_BYTES (512U * 1024) /* of records: a power of two and of pages */

/* Bits of what is on. */
enum observe_hook {
	OBSERVE_REQUESTS = 1,	    /* tp_btf block_bio_queue */
	OBSERVE_WINDOWS_TP = 2,	    /* tp_btf page_cache_ra_{unbounded,order} */
	OBSERVE_WINDOWS_FENTRY = 4, /* fentry of the functions of those names */
	OBSERVE_WINDOWS_ADDED = 8,  /* tp_btf mm_filemap_add_to_page_cache, pages made windows */
	OBSERVE_HITS_READ = 16,	    /* tp_btf mm_filemap_get_pages */
	OBSERVE_HITS_FAULT = 32,    /* tp_btf mm_filemap_{map_pages,fault} */
};

/* One stripe of a device's counters; the sum over stripes is the figure. Since attach; they only
 * grow. 128 bytes. */
struct observe_stats {
	__u64 requests, request_bytes; /* bios that reached the device's queue */
	__u64 windows, window_bytes;   /* readahead windows */
	/* These three during a share of the time only (observe/loader.h), so their ratio tells and
	 * their size does not. */
	__u64 asked_pages;  /* pages asked of the page cache (hits and misses) */
	__u64 missed_pages; /* pages read for them, also ahead: can be more than were asked */
	__u64 faults;	    /* of mmapped files */
	__u64 sequential, stride, random; /* windows by the verdict of their stream */
	__u64 lost;			  /* records that found the ring full */
	__u64 reserved[5];
};

enum stream_verdict { STREAM_NEW, STREAM_SEQUENTIAL, STREAM_STRIDE, STREAM_RANDOM };

/* One window of one stream. Counts are the stream's so far, so that a record that was sampled away
 * or lost takes nothing with it. 96 bytes. */
struct observe_window {
	__u64 ino;    /* of the file; 0 = the device itself, read without a file */
	__u64 off;    /* in the file (or device), bytes */
	__u64 ns;     /* CLOCK_MONOTONIC */
	__u64 cgroup; /* id, 0 = none */
	__u64 bytes;  /* of all the stream's windows */
	__s64 stride; /* from window start to window start, bytes; sequential: 0 */
	__u32 slot;   /* device */
	__u32 len;    /* of this window, bytes */
	__u32 tgid, pid;
	__u32 windows;	  /* in the stream */
	__u32 run;	  /* windows in a row that agreed with the verdict; random: windows from a
			   * jump to the next, on average */
	__u32 verdict;	  /* enum stream_verdict */
	__u32 generation; /* of the slot: grows each time a device gets it */
	char comm[16];
};

#endif
