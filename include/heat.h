/* SPDX-License-Identifier: Apache-2.0 */
/* Heat: a decayed count of reads, in one u32 a granule of an image. What bpf/ counts and the worker
 * reads; plain C and __uNN only.
 *
 * A cell holds when it was last touched, in half-lives modulo 2^12, and the count as of then:
 *
 *	31           20 19                    0
 *	[ epoch mod 4096 |        count        ]        0 = never touched
 *
 * The count halves once per whole half-life that passed, so a cell is right however long nobody
 * looked. A cell idle for close to a multiple of 4,096 half-lives would look fresh: the worker
 * clears cells older than HEAT_STALE_EPOCHS every so often (heat_is_stale). The granule is an extent
 * (4 MiB) and doubles so that a device's array stays at or below HEAT_CELLS_MAX cells (16 MiB).
 */
#ifndef HEAT_H
#define HEAT_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#define HEAT_COUNT_BITS	  20
#define HEAT_COUNT_MAX	  ((1U << HEAT_COUNT_BITS) - 1)
#define HEAT_EPOCH_MASK	  0xfffU
#define HEAT_STALE_EPOCHS 64U
#define HEAT_CELLS_MAX	  (1U << 22)
#define HEAT_EXTENT_SHIFT 22 /* 4 MiB */

/* The epoch that @now_ns is in. */
static inline __u32 heat_epoch(__u64 now_ns, __u32 half_life_ms)
{
	return (__u32)(now_ns / ((__u64)half_life_ms * 1000000ULL)) & HEAT_EPOCH_MASK;
}

static inline __u32 heat_age(__u32 cell, __u32 epoch)
{
	return (epoch - (cell >> HEAT_COUNT_BITS)) & HEAT_EPOCH_MASK;
}

/* Its heat at @epoch. */
static inline __u32 heat_now(__u32 cell, __u32 epoch)
{
	__u32 age = heat_age(cell, epoch);

	return age < HEAT_COUNT_BITS ? (cell & HEAT_COUNT_MAX) >> age : 0;
}

/* The cell after @n more reads at @epoch. Saturates. */
static inline __u32 heat_add(__u32 cell, __u32 epoch, __u32 n)
{
	__u32 heat = heat_now(cell, epoch);

	heat = n > HEAT_COUNT_MAX - heat ? HEAT_COUNT_MAX : heat + n;
	return epoch << HEAT_COUNT_BITS | heat;
}

static inline int heat_is_stale(__u32 cell, __u32 epoch)
{
	return cell && heat_age(cell, epoch) >= HEAT_STALE_EPOCHS;
}

/* log2 of the granule in bytes for a device of @len bytes. */
static inline __u32 heat_shift(__u64 len)
{
	__u32 shift = HEAT_EXTENT_SHIFT;

	while (shift < 63 && len > (__u64)HEAT_CELLS_MAX << shift)
		shift++;
	return shift;
}

#endif
