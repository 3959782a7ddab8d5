/* SPDX-License-Identifier: Apache-2.0 */
/* What `cairn status` shows of workers that died. */
#ifndef CLI_CRASHES_H
#define CLI_CRASHES_H

#include <cjson/cJSON.h>

/* "crashes" of GET /v1/status (NULL: the daemon keeps none); nothing when no worker died. */
void crashes_print(const cJSON *crashes);

/* The answer to GET /v1/crashes. */
void crashes_print_all(const cJSON *all);

#endif
