/* SPDX-License-Identifier: Apache-2.0 */
/* When the next worker starts. Pure. */
#ifndef CRASH_BACKOFF_H
#define CRASH_BACKOFF_H

#include <stdbool.h>

#define CRASH_LONG_LIFE_MS 60000 /* a worker that ran so long makes the count start anew */
#define CRASH_WAIT_MAX_MS  10000
#define CRASH_LOOP_DEATHS  3 /* in a row: a loop, and said so */

/* Milliseconds to wait after a worker that ran @ran_ms: 0 for the first, so that a reader waits for
 * no more than the start, then 100 doubling up to 10,000. *deaths, those in a row, is counted up.
 */
unsigned crash_backoff_ms(unsigned *deaths, unsigned long ran_ms);

static inline bool crash_is_loop(unsigned deaths)
{
	return deaths >= CRASH_LOOP_DEATHS;
}

#endif
