/* SPDX-License-Identifier: Apache-2.0 */
#include "crash/backoff.h"

unsigned crash_backoff_ms(unsigned *deaths, unsigned long ran_ms)
{
	unsigned ms = 0;

	if (ran_ms >= CRASH_LONG_LIFE_MS)
		*deaths = 0;
	for (unsigned i = 0; i < *deaths && ms < CRASH_WAIT_MAX_MS; i++)
		ms = ms ? ms * 2 : 100;
	++*deaths;
	return ms < CRASH_WAIT_MAX_MS ? ms : CRASH_WAIT_MAX_MS;
}
