/* SPDX-License-Identifier: Apache-2.0 */
/* When the rest of an extent, or of an image, is fetched because readers want so much of it. Pure;
 * the caller locks, except for density_is_news().
 *
 * What counts is visits: reads that do not go on where a recent one ended. One long read is one
 * visit however many requests it takes (readahead.c knows what to do with it).
 *
 *   An extent is worth having when several of the last 32 visits fell into it: so many that reads
 * at random would hardly ever do so in an image of that size. Extents that were then read for the
 *   better part let the next ones come sooner, in the end at the first visit; one that was not
 * costs what four of those earned.
 *
 *   An image is worth having when at least 1/64 and 16 MiB of it were read in scattered places, at
 * a rate that would see all of it in two minutes, and the store has twice the room for it.
 *
 * So reads at random over a large image bring in their own blocks and no others.
 */
#ifndef FILL_DENSITY_H
#define FILL_DENSITY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define DENSITY_VISITS	32  /* that are compared */
#define DENSITY_SLOTS	128 /* extents whose touched blocks are known */
#define DENSITY_RECENT	16  /* reads that another may go on from */
#define DENSITY_HORIZON 120 /* seconds in which the image would be read at the present rate */

struct density_slot {
	_Atomic uint64_t extent;  /* + 1; 0 = none */
	_Atomic uint64_t touched; /* blocks */
	uint64_t asked;		  /* the visit at which the rest was asked for; 0 = not */
	bool proven;		  /* half of it was read since */
};

struct density_range {
	uint64_t start, end; /* bytes */
};

struct density {
	uint64_t blocks, extents; /* of the image */
	uint32_t need;		  /* visits that are no chance */
	int32_t trust;		  /* extents that proved right, less those that did not */
	uint32_t unproven;
	bool whole; /* the image was asked for */
	uint64_t visits;
	uint64_t visited[DENSITY_VISITS]; /* extent + 1 */
	struct density_range recent[DENSITY_RECENT];
	uint32_t oldest;
	uint64_t since_ns;  /* of the two below; both are halved now and then */
	uint64_t touched;   /* blocks */
	uint64_t scattered; /* visits */
	struct density_slot slots[DENSITY_SLOTS];
};

/* @length of the image, bytes. */
void density_init(struct density *d, uint64_t length);

/* A reader wants [off, off + len), inside the image. @room: bytes that the store has left. True:
 * fetch the extents [*first, *first + *n); all of them, beginning at *first, if *n is d->extents.
 */
bool density_note(struct density *d, uint64_t now_ns, uint64_t off, uint32_t len, uint64_t room,
		  uint64_t *first, uint64_t *n);

/* Should density_note() hear of this read, though it is a hit? Any thread, without a lock. */
bool density_is_news(const struct density *d, uint64_t off, uint32_t len);

/* The image is here, or what could be had of it: look anew. */
void density_restart(struct density *d);

#endif
