/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANDOVER_MODES_H
#define HANDOVER_MODES_H

#include <stdbool.h>

/* Exit statuses; each prints its figures. kill: 0 when no read was lost, wrong or hung. */
int mode_kill(bool tcp, const char *device, int kills);
/* Someone else's server: until it is killed or the device is disconnected. */
int mode_serve(const char *device);
int mode_bench(double seconds);

#endif
