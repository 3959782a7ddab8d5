/* SPDX-License-Identifier: Apache-2.0 */
/* A ring that can poll, remove polls and read, and refuses all else: a seccomp filter sees no
 * operation of a ring, so the ring itself is told what it may do. */
#ifndef BASE_RING_H
#define BASE_RING_H

#include <liburing.h>

#include "base/err.h"

/* Opened disabled; nothing can be submitted before ring_enable(). 0, or a negative errno with the
 * reason: kernel before 5.13, seccomp, sysctl. */
int ring_open(struct io_uring *ring, unsigned sq_entries, unsigned cq_entries, struct err *err);

/* By the thread that will use it: where the kernel can, it becomes the only one that may. */
int ring_enable(struct io_uring *ring);

#endif
