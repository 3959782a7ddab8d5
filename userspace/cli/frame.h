/* SPDX-License-Identifier: Apache-2.0 */
/* What `cairn top` shows at one time: rates between two looks at the daemon, as one JSON object,
 * which --json prints and top_print.c lays out. */
#ifndef CLI_FRAME_H
#define CLI_FRAME_H

#include <cjson/cJSON.h>
#include <stdbool.h>

struct frame_names; /* of the files on each device, kept from frame to frame */

struct frame_names *frame_names_new(void); /* NULL without memory */
void frame_names_free(struct frame_names *n);

/* Both are replies of GET /v1/top, @before the older. @names may be NULL: none are asked for;
 * @patiently: wait for them. Fresh, the caller's to delete. */
cJSON *frame_make(const cJSON *before, const cJSON *now, struct frame_names *names, bool patiently);

#endif
