/* SPDX-License-Identifier: Apache-2.0 */
/* A flight, as the files of fill/ share it. One fill thread owns it; nothing here is locked. */
#ifndef FILL_FLIGHT_H
#define FILL_FLIGHT_H

#include <pthread.h>
#include <sys/queue.h>

#include "fill/fill.h"
#include "fill/lane.h"

#define FLIGHT_BUCKETS 1024
#define FLIGHT_TRIES   2 /* fetches of a block whose bytes do not match, before giving up */

struct fill_thread;
struct flight;

/* One ranged GET of a flight: blocks [first, first + n) of the extent. */
struct segment {
	struct origin_read read;
	struct flight *flight;
	struct segment *next;
	TAILQ_ENTRY(segment) line; /* of the thread's stores, when is_in_line */
	uint8_t *buf;
	uint64_t blob_off;
	uint32_t first, n;
	uint32_t have;	   /* whole blocks received */
	uint32_t settled;  /* of those, verified and handed on (or failed) */
	uint32_t stored;   /* of those, given to the store */
	bool is_in_line;   /* its settled blocks wait for the store */
	bool without_etag; /* after a 412 */
	bool wrong;	   /* a block did not match */
	bool over;	   /* the origin is done with it */
};
TAILQ_HEAD(segment_line, segment);

/* A read of hashes from the tree, for blocks [first, first + n) of the extent. */
struct sum_read {
	struct fill_read read;
	struct loop_post back; /* to the flight's own thread */
	struct flight *flight;
	struct sum_read *next;
	uint32_t first, n;
	int rc;
	char why[256];
};

struct flight {
	struct flight *hash_next;
	struct drr_item wait; /* for memory, in its thread's line */
	struct lane *lane;    /* of the export that began it */
	struct fill_thread *thread;
	struct fill_source *source;
	uint64_t extent;
	uint32_t blocks; /* in this extent */
	uint64_t demand; /* blocks someone waits for */
	uint64_t want;	 /* all that is to be brought in */
	uint64_t done;	 /* delivered; in the store if it took them */
	uint64_t busy;	 /* in a segment, and not delivered */
	uint64_t held;	 /* delivered, in a segment's buffer until the store has them */
	uint64_t sums_have, sums_busy;
	uint64_t no_sum;    /* SUM_NONE */
	uint64_t retried;   /* blocks fetched once with wrong bytes */
	uint64_t unlocated; /* of want: not yet looked for on disk */
	struct segment *segments;
	struct sum_read *sum_reads;
	struct fill_read *readers;
	uint8_t sums[STORE_EXTENT_BLOCKS][SHA256_LEN];
};

struct spare {
	struct spare *next;
};

struct fill_thread {
	struct fill *fill;
	struct loop *loop;
	struct origin_client *client;
	struct flight *buckets[FLIGHT_BUCKETS];
	struct drr line;     /* flights that wait for memory, or for their limit */
	struct flight *turn; /* whose turn it is, while it begins its request */
	struct lane *lanes[LANE_BUCKETS];
	uint64_t begun;	   /* requests, ever */
	uint64_t limit_ns; /* until the first of the line is within its limit */
	uint64_t memory, memory_max;
	struct spare *spares;	    /* free buffers of one extent.. */
	uint64_t spare_bytes;	    /* ..in all */
	struct segment_line stores; /* settled blocks that the store is to take */
	struct loop_timer sweep, wake, store;
	struct loop_post stop, cancel;
	uint32_t nflights, nwaiting, nlanes;
	pthread_t tid;
	bool running;
	_Atomic bool stopped;
};

struct fill {
	struct fill_config cfg;
	struct fill_counters counters;
	_Atomic bool cancelled;
	uint32_t nthreads;
	struct fill_thread *threads;
	struct share *nobodys;
};

/* An extent that killed two workers is not flown a third time, so a thread says which it is at. */
static inline bool flight_enter(struct fill_source *src, uint64_t extent)
{
	return crash_enter(CRASH_FILL, &src->subject, extent * STORE_EXTENT, STORE_EXTENT);
}

/* flight.c */
void flight_join(struct fill_thread *t, struct fill_read *r);
void flight_advance(struct flight *f); /* may free @f */
void flight_expire(struct flight *f, uint64_t now);
void flight_cancel(struct flight *f, uint64_t unused);
/* Block @b of the extent is verified: give it to readers. */
void flight_deliver(struct flight *f, uint32_t b, const uint8_t *data, bool from_origin);
/* Blocks that can't be had: their readers get @rc. */
void flight_fail(struct flight *f, uint64_t mask, int rc, const char *why);

/* sums.c */
void flight_learn_sums(struct flight *f, uint64_t mask);
bool flight_knows_sum(const struct flight *f, uint32_t b);
bool flight_block_matches(struct flight *f, uint32_t b, const uint8_t *data);
bool flight_block_is_zeros(struct flight *f, uint32_t b); /* by its hash */
/* Are blocks [b, b + n), n = 1 or 2, what they must be? Bit 0 for the first. Two cost little more
 * than one. */
uint32_t flight_verify(struct flight *f, uint32_t b, uint32_t n, const uint8_t *data);
/* Block @b is not what its hash says: it may be the hash that went bad, in the store. True if it
 * came from there; then it is checked against its parent and learned anew, as are the flight's
 * others. */
bool flight_doubt_sum(struct flight *f, uint32_t b);

/* segment.c */
void flight_fetch(struct flight *f, uint64_t mask);
/* What is on its way for these blocks is wanted now: ahead of what is only fetched ahead. */
void flight_hurry(struct flight *f, uint64_t mask);
void flight_settle(struct flight *f); /* verify what has arrived and can be verified */
/* Blocks that the store does not have yet: give them to readers that came late. */
void flight_deliver_held(struct flight *f, uint64_t mask);
/* Put one segment's settled blocks into the store. False: none waits for it. */
bool segment_store_next(struct fill_thread *t);

/* The hashes of these blocks can't be had: let go of what was fetched for them. */
void flight_abandon(struct flight *f, uint64_t mask);

/* fill.c */
/* NULL: none now, unless @beyond the limit. */
bool fill_memory_fits(const struct fill_thread *t, uint64_t bytes);
void *fill_memory_take(struct fill_thread *t, uint64_t bytes, bool beyond);
void fill_memory_give(struct fill_thread *t, void *p, uint64_t bytes);

#endif
