/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon says of itself.
 *
 *   GET /v1/status
 *
 * and the sums over all exports, which /metrics and /v1/top tell, too.
 */
#ifndef CONTROL_API_STATUS_H
#define CONTROL_API_STATUS_H

#include "control/api.h"

void status_get(struct api *a, struct api_reply *out);

/* Of the @n exports at @e and of those that were removed. */
void api_totals(struct api *a, const struct export_info *e, size_t n, struct api_totals *out);

/* @e was removed: its counts stay in the totals. */
void api_totals_retire(struct api *a, const struct export_info *e);

/* How many workers came before this one. */
unsigned api_worker_restarts(void);

#endif
