/* SPDX-License-Identifier: Apache-2.0 */
/* Fills: bringing blocks that are not in the store to their readers, and into the store.
 *
 * Flights (one for an extent, which every reader joins) are sharded by extent over fill threads,
 * each with a loop and connections of its own. A flight
 *   1. rechecks suspect blocks against their hash,
 *   2. learns the hashes of the blocks it wants (a read of the tree, which is an object itself and
 *      filled by flights of its own), at the same time
 *   3. asks the origin for them, demanded blocks in requests of their own,
 *   4. verifies each block as it arrives and copies it to its readers,
 *   5. in later turns of its loop publishes them, many at once.
 * No byte passes 4 before its block matched. A store that can't take a block (full, EIO) costs the
 * cache, not the reader.
 */
#ifndef FILL_FILL_H
#define FILL_FILL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "crash/doing.h"
#include "fill/share.h"
#include "origin/origin.h"
#include "store/store.h"

struct fill;
struct fill_source;

struct fill_config {
	uint32_t threads;
	uint64_t memory;      /* bytes of buffers in flight, over all threads */
	uint64_t deadline_ms; /* every read ends by then */
	enum loop_kind loop_kind;
	struct origin_config origin; /* connections: per thread */
};

/* Where bytes of an object are. */
enum fill_piece_kind {
	PIECE_ORIGIN, /* @len bytes from blob @name at @blob_off */
	PIECE_ZERO,   /* zeros */
	PIECE_MADE,   /* ops->make() knows them */
};
struct fill_piece {
	enum fill_piece_kind kind;
	uint64_t len;
	struct origin *origin;
	const char *name; /* the source's */
	const char *etag; /* "" = none; the source's, valid as long as it is open */
	uint64_t blob_off;
};

enum fill_sum {
	SUM_NONE,   /* no hash known: an unsealed image */
	SUM_INLINE, /* given */
	SUM_AT,	    /* 32 bytes of another source */
};

struct fill_source_ops {
	/* The piece at @off (< length): its len is > 0 and may reach beyond what is wanted. */
	void (*piece)(struct fill_source *src, uint64_t off, struct fill_piece *out);

	/* The hash of a block: @sum set (SUM_INLINE), or @from and @at (SUM_AT). Hashes of adjacent
	 * blocks are adjacent where both say SUM_AT with adjacent @at. */
	enum fill_sum (*sum)(struct fill_source *src, uint64_t block, uint8_t sum[SHA256_LEN],
			     struct fill_source **from, uint64_t *at);

	/* PIECE_MADE: one whole block. */
	void (*make)(struct fill_source *src, uint64_t block, uint8_t *out);

	/* A read with piece->etag got 412. True: read again without it, hashes decide, and
	 * blob_is_now() follows when they matched. False: the blob is another one; give up. */
	bool (*may_change)(struct fill_source *src);
	void (*blob_is_now)(struct fill_source *src, const char *name, const char *etag);

	/* A flight keeps its source alive: its readers may give up before the origin does. */
	void (*ref)(struct fill_source *src);
	void (*unref)(struct fill_source *src);

	/* What to call it in an error text. */
	void (*describe)(struct fill_source *src, char *buf, size_t len);
};

struct fill_source { /* embedded in its owner */
	const struct fill_source_ops *ops;
	struct object *object;
	struct fill *fill;
	struct crash_subject subject; /* the object's name */
};

enum fill_class { FILL_DEMAND, FILL_PREFETCH };

/* What one reader wants of one extent; in flight from submit until done(). */
struct fill_read {
	/* set by the caller */
	struct fill_source *source;
	uint64_t extent;
	uint32_t off, len; /* within the extent */
	uint8_t *dst;	   /* NULL: only bring it into the store */
	enum fill_class class;
	struct share *share; /* whose it is; NULL = nobody's in particular */
	/* rc: 0 or a negative errno with @why set (valid during the call). On a fill thread. */
	void (*done)(struct fill_read *r, int rc, const char *why);
	void *owner; /* the caller's */
	/* results: bytes of blocks that came from the origin for this read or one it joined */
	uint32_t origin_bytes;
	/* the flight's */
	struct loop_post post;
	struct fill_read *next;
	uint64_t need; /* blocks still missing */
	uint64_t deadline_ns;
};

struct fill_counters {
	_Atomic uint64_t flights, joined, verify_failures, unstored_blocks;
};

int fill_start(const struct fill_config *cfg, struct fill **out, struct err *err);
/* End every read that waits with -ESHUTDOWN, and those still to come. Returns at once. */
void fill_cancel(struct fill *f);
bool fill_is_cancelled(const struct fill *f);
void fill_stop(struct fill *f); /* nobody reads any more; cancels what is left, and frees */
struct fill_counters *fill_counters(struct fill *f);

/* Any thread. The extent and range must lie within the object. */
void fill_submit(struct fill *f, struct fill_read *r);

#endif
