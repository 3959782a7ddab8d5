/* SPDX-License-Identifier: Apache-2.0 */
/* What a thread does that crashes: it tells of itself in the area, then dies as it would have.
 * For doing.c. */
#ifndef CRASH_HANDLER_H
#define CRASH_HANDLER_H

#include <crash_record.h>

/* Take SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT, for all threads. */
void crash_handler_begin(struct crash_area *a);

/* Each thread: let those signals through (one that is blocked kills without a word), and have a
 * stack for the handler, since the own one may be what overflowed. Returns what
 * crash_handler_thread_end() takes, on the same thread; NULL without memory. */
void *crash_handler_thread_begin(void);
void crash_handler_thread_end(void *stack);

#endif
