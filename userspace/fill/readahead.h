/* SPDX-License-Identifier: Apache-2.0 */
/* What to fetch before it is asked for, from the reads that the server sees: sequential streams
 * with a window that grows while reads come too early for it. Pure; the caller locks.
 *
 * A stream is a position that reads continue at. Reads of a queue come a little out of order, so a
 * read may lie up to READAHEAD_QUEUE times its own length from there. Only a stream that ran long
 * enough gets a window: random reads cost no byte beyond their blocks. The window grows by an
 * extent with each read whose bytes are not there yet, up to twice what was read: a stream whose
 * end is near has little fetched beyond it where the origin is fast, and much where it is slow.
 */
#ifndef FILL_READAHEAD_H
#define FILL_READAHEAD_H

#include <stdbool.h>
#include <stdint.h>

#define READAHEAD_STREAMS   8
#define READAHEAD_QUEUE	    32
#define READAHEAD_SLACK	    (16ULL << 20)  /* most that out-of-order reads may be apart, bytes */
#define READAHEAD_MIN_RUN   (256ULL << 10) /* bytes read in sequence before a window opens */
#define READAHEAD_MIN_READS 3
#define READAHEAD_STEP	    (4ULL << 20)

struct readahead_stream {
	uint64_t next;	 /* where the next read is expected, bytes */
	uint64_t run;	 /* bytes read in sequence */
	uint64_t issued; /* fetched ahead up to here */
	uint64_t window; /* how far ahead, bytes */
	uint32_t reads;
	uint32_t used; /* age, for replacement */
};

struct readahead {
	struct readahead_stream streams[READAHEAD_STREAMS];
	uint64_t size; /* of the device, bytes */
	uint64_t max;  /* largest window, bytes; 0 = never */
	uint32_t tick;
};

/* Note a read; @missed: its bytes are not there. True: fetch [*from, *to), and the stream wants to
 * hear of the first read at or after *wake_at (an offset) again, also when that is a hit. */
bool readahead_note(struct readahead *ra, uint64_t off, uint32_t len, bool missed, uint64_t *from,
		    uint64_t *to, uint64_t *wake_at, uint32_t *stream);

#endif
