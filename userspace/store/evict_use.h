/* SPDX-License-Identifier: Apache-2.0 */
/* How an extent was used, in one word: pure.
 *
 *   bits  0-15  tick of the last read
 *   bits 16-31  frequency: USE_READ a read, halved each USE_HALF_LIFE ticks
 *   bits 32-34  ticks in which it was read again since it is stored
 *   bit  35     not read yet since it is stored: it was brought ahead of need
 *   bits 36-63  its place among its set's stored extents, from 1 on; 0 = it is not stored
 *
 * A word that was not looked at for 65,536 ticks (a thousand times the store) seems younger than it
 * is, which costs a hit and no more.
 */
#ifndef STORE_EVICT_USE_H
#define STORE_EVICT_USE_H

#include <stdbool.h>
#include <stdint.h>

#define USE_TICKS     0xffffU
#define USE_READ      32
#define USE_HALF_LIFE 2048
#define USE_FORGOTTEN 1024 /* ticks without a read: nothing speaks for it any more */
#define USE_GRACE     8	   /* ticks that what was brought ahead of need has */
#define USE_AGAIN     (1ULL << 32)
#define USE_AGAIN_MAX 7
#define USE_UNREAD    (1ULL << 35)
#define USE_PLACE     (1ULL << 36)
#define USE_PLACE_MAX ((1ULL << 28) - 1)

enum evict_expert { EVICT_RECENT, EVICT_OFTEN, EVICT_KEEP, EVICT_EXPERTS };

static inline uint32_t use_age(uint64_t use, uint32_t now)
{
	return (uint32_t)(now - use) & USE_TICKS;
}

static inline uint32_t use_again(uint64_t use)
{
	return use >> 32 & USE_AGAIN_MAX;
}

static inline uint64_t use_place(uint64_t use)
{
	return use >> 36;
}

/* The frequency as it is at @now; between two halvings it falls along a line. */
static inline uint32_t use_often(uint64_t use, uint32_t now)
{
	uint32_t age = use_age(use, now), often = (use >> 16 & 0xffff) >> age / USE_HALF_LIFE;

	return often - often * (age % USE_HALF_LIFE) / (2 * USE_HALF_LIFE);
}

/* Stored at @now, and not because somebody reads it: a later read is its first. */
static inline uint64_t use_brought(uint64_t use, uint32_t now)
{
	return ((now - 1) & USE_TICKS) | (uint64_t)use_often(use, now - 1) << 16 | USE_UNREAD;
}

/* Read at @now, from the store (@hit) or not. */
static inline uint64_t use_read(uint64_t use, uint32_t now, bool hit)
{
	uint64_t often = use_often(use, now) + USE_READ, again = use_again(use);

	if (often > 0xffff)
		often = 0xffff;
	if (hit && use_place(use) && !(use & USE_UNREAD) && again < USE_AGAIN_MAX)
		again++;
	return (now & USE_TICKS) | often << 16 | again * USE_AGAIN | use_place(use) * USE_PLACE;
}

#define USE_WORTH_MAX (1ULL << 48)

/* How much the expert wants to keep it: the least goes first. */
static inline uint64_t use_worth(enum evict_expert expert, uint64_t use, uint32_t now)
{
	uint64_t age = use_age(use, now), young = USE_TICKS - age;

	if (use & USE_UNREAD)
		return age < USE_GRACE ? USE_WORTH_MAX : 0;
	switch (expert) {
	case EVICT_RECENT:
		return young;
	case EVICT_OFTEN:
		return (uint64_t)use_often(use, now) << 16 | young;
	default: /* what was read last has longest to wait for its next read */
		if (age >= USE_FORGOTTEN)
			return 0;
		return use_again(use) ? (uint64_t)use_often(use, now) << 16 | 1ULL << 40 | age
				      : age;
	}
}

#endif
