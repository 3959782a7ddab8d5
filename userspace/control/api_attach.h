/* SPDX-License-Identifier: Apache-2.0 */
/* Exports come and go, and with them their devices.
 *
 *   POST   /v1/exports               {"url", "name"?, "attach"?, ..}
 *   DELETE /v1/exports/KEY?force=1
 *
 * What fails leaves things as they were: an export that was made for it is removed again.
 */
#ifndef CONTROL_API_ATTACH_H
#define CONTROL_API_ATTACH_H

#include "control/api.h"

void export_post(struct api *a, const char *body, struct api_reply *out);
void export_delete(struct api *a, const char *key, bool force, struct api_reply *out);

#endif
