/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of continuity. */
#ifndef SUPERVISOR_CONTINUITY_IMPL_H
#define SUPERVISOR_CONTINUITY_IMPL_H

#include "supervisor/continuity.h"

/* Descriptors that a successor can't open by itself; the caller frees. NULL: out of memory. */
int *continuity_fds(const struct continuity_now *now, size_t *count);

/* execve.c. True once after an execve: what it let through goes to @pool. */
bool continuity_after_execve(struct inherited *pool);

#endif
