/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the API build replies with. */
#ifndef CONTROL_REPLY_H
#define CONTROL_REPLY_H

#include <cjson/cJSON.h>

#include "control/api.h"

/* The HTTP status that fits a negative errno. */
unsigned reply_status(int code);

/* Consumes @json. */
void reply_json(struct api_reply *out, unsigned status, cJSON *json);
void reply_err(struct api_reply *out, const struct err *e);

/* Exact: a double holds integers up to 2^53 only. */
void reply_add_u64(cJSON *o, const char *key, uint64_t v);
void reply_add_sources(cJSON *o, const char *key, uint64_t local, uint64_t peer, uint64_t origin);

/* "hooks", the observer's line, and "hook_bits". */
void reply_add_hooks(cJSON *o, struct api *a);

#endif
