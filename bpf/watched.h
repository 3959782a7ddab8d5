/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The devices that are watched, as the supervisor tells the BPF programs. */
#ifndef BPF_WATCHED_H
#define BPF_WATCHED_H

#include <linux/types.h>

#include <observe.h>

#define WATCHED_MINORS 65536U

struct watched_device {
	__u32 generation;
	__u32 heat_shift;
	__u32 cells;
	__u32 reserved;
};

struct watched {
	__u16 slot[2][WATCHED_MINORS]; /* slot + 1 by minor: [0] of loop devices, [1] of nbd */
	struct watched_device device[OBSERVE_DEVICES];
	__u32 hits_on; /* the hooks of hits.bpf.c are attached */
	__u32 page_shift;
};

#endif
