/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal by plain escape codes. */
#ifndef CLI_SCREEN_H
#define CLI_SCREEN_H

#include <stdbool.h>
#include <stdint.h>

struct screen_size {
	uint32_t columns, rows;
};

/* Of the terminal on stdout, else of $COLUMNS and $LINES, else 80 by 24. */
struct screen_size screen_size(void);

/* Stdout is a terminal that takes them, and NO_COLOR is not set. */
bool screen_has_colours(void);

/* The text that follows, or what is behind it, in one of 256 colours. */
void screen_colour(uint8_t r, uint8_t g, uint8_t b, bool behind);
void screen_plain(void);

/* Take the whole screen, with no cursor, and no echo; and give it back as it was, which SIGINT,
 * SIGTERM, SIGHUP and exit() do too. -ENOTTY: stdout is no terminal. */
int screen_take(void);
void screen_give_back(void);

/* Wait: 'q' (or another key), 0 when the time is over or the window changed, -EINTR when a signal
 * says to end. */
int screen_wait(int timeout_ms);

/* The signal that said to end; 0 = none. */
int screen_ended_by(void);

#endif
