/* SPDX-License-Identifier: Apache-2.0 */
/* The exports that stand: what is told of them, and what they may have.
 *
 *   GET   /v1/exports
 *   GET   /v1/exports/KEY
 *   PATCH /v1/exports/KEY   {"limit"?, "store_limit"?, "keep"?}, or {"fetch": BOOL}
 */
#ifndef CONTROL_API_EXPORTS_H
#define CONTROL_API_EXPORTS_H

#include <cjson/cJSON.h>

#include "control/api.h"

void exports_get(struct api *a, struct api_reply *out);
void export_get(struct api *a, const char *key, struct api_reply *out);
void export_patch(struct api *a, const char *key, const char *body, struct api_reply *out);

/* An export as each reply shows it. */
cJSON *export_json(const struct api *a, const struct export_info *e);

#endif
