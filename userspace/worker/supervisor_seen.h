/* SPDX-License-Identifier: Apache-2.0 */
/* Who the supervisor is, as it said when this worker was ready: one that took over since
 * has another worker in its place at once. Any thread. */
#ifndef WORKER_SUPERVISOR_SEEN_H
#define WORKER_SUPERVISOR_SEEN_H

#include <stdint.h>

/* @pid as its own namespace has it; @takeovers: supervisors before it, since a clean start. 0, 0
 * before it said so. */
void supervisor_seen(uint64_t *pid, uint64_t *takeovers);
void supervisor_seen_set(uint64_t pid, uint64_t takeovers);

#endif
