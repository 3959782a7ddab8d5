/* SPDX-License-Identifier: Apache-2.0 */
/* How far a long command is, on stderr: a line that redraws itself on a terminal, else a plain line
 * every few seconds. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>

#include "image/crew.h"

struct progress {
	struct image_progress image; /* what the image functions take */
	bool terminal, quiet, drawn;
	char phase[64];
	uint64_t begun_ns, said_ns;
	uint64_t begun_at; /* bytes done when the phase began */
	uint64_t last;	   /* bytes done when it was drawn last */
};

/* @quiet: say nothing. */
void progress_init(struct progress *p, bool quiet);

/* Leave the line that is being drawn, before anything else is printed. */
void progress_end(struct progress *p);

#endif
