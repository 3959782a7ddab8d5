/* SPDX-License-Identifier: Apache-2.0 */
/* What is told of workers that died.
 *
 *   GET    /v1/crashes   {"deaths": [DEATH, ..] newest first, "refused": [..]}
 *   DELETE /v1/crashes   requests that are refused are tried again
 *
 * and "crashes" in /v1/status: {"by_cause", "in_a_row", "loop", "last": DEATH or
 * null with its last few log lines, "refused"}.
 */
#ifndef CONTROL_API_CRASH_H
#define CONTROL_API_CRASH_H

#include <cjson/cJSON.h>

#include "control/api.h"

void crashes_get(struct api_reply *out);
void crashes_delete(struct api_reply *out);

/* "crashes" of the status; nothing when there is no record. @uptime_ms of this worker. */
void crashes_add(cJSON *o, uint64_t uptime_ms);

void crashes_metrics(FILE *out);

/* api_call(), in a thread that says so. */
void crashes_api_call(struct api *a, const char *method, const char *path,
		      const struct api_query *q, const char *body, struct api_reply *out);

#endif
