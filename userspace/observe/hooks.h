/* SPDX-License-Identifier: Apache-2.0 */
/* The hooks that are on, in words. Pure. */
#ifndef OBSERVE_HOOKS_H
#define OBSERVE_HOOKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <observe.h>

#define HOOKS_HITS    (OBSERVE_HITS_READ | OBSERVE_HITS_FAULT)
#define HOOKS_WINDOWS (OBSERVE_WINDOWS_TP | OBSERVE_WINDOWS_FENTRY | OBSERVE_WINDOWS_ADDED)

/* "requests, windows (fentry); off: page-cache hits (not in this kernel)". @refused: the kernel did
 * not take some that it has. */
void hooks_line(uint32_t hooks, bool refused, char *out, size_t len);

#endif
