/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/supervisor_seen.h"

static _Atomic uint64_t last_pid, last_takeovers;

void supervisor_seen(uint64_t *pid, uint64_t *takeovers)
{
	*pid = last_pid;
	*takeovers = last_takeovers;
}

void supervisor_seen_set(uint64_t pid, uint64_t takeovers)
{
	last_pid = pid;
	last_takeovers = takeovers;
}
