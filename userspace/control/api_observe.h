/* SPDX-License-Identifier: Apache-2.0 */
/* The routes that look at what is read, and tune that.
 *
 *   GET   /v1/top
 *   GET   /v1/exports/KEY/heat?cells=N   the export in at most N cells (default 4,096)
 *   GET   /v1/tune[?key=K]               K: an export's name, URL or device, or a cgroup's path
 *   PATCH /v1/tune?key=K                 {"set": {KEY: VALUE, ..}, "save"?: bool}
 */
#ifndef CONTROL_API_OBSERVE_H
#define CONTROL_API_OBSERVE_H

#include "control/api.h"

#define HEAT_CELLS_DEFAULT 4096
#define HEAT_CELLS_LIMIT   65536

void top_get(struct api *a, struct api_reply *out);
void heat_get(struct api *a, const char *export_key, const char *cells, struct api_reply *out);
void tune_get(struct api *a, const char *key, struct api_reply *out);
void tune_patch(struct api *a, const char *key, const char *body, struct api_reply *out);

/* The device that stands on an export, or is to. Strings are @e's. */
struct tuner_device api_tuner_device(const struct export_info *e);

#endif
