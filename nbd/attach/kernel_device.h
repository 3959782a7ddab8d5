/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel NBD device as sysfs and /dev show it. */
#ifndef NBD_KERNEL_DEVICE_H
#define NBD_KERNEL_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

#define KERNEL_IDENTITY_MAX 256

/* "/dev/nbd12" -> 12; -1 when it is no such name. */
int kernel_device_index(const char *path);

/* Is it set up? The pid of who did it, and the name it gave ("" where there is none or the kernel,
 * before 5.14, tells none). */
bool kernel_device_owner(int index, pid_t *pid, char identity[KERNEL_IDENTITY_MAX]);

/* "nbd3 is in use by process 17 (nbd-client)": for texts. */
void kernel_device_describe(int index, char *out, size_t len);

/* Set the queue up for images, and make the node where nobody else does (containers). What the
 * kernel refuses is logged. */
void kernel_device_tune(int index);

/* True once nobody has it set up; waits at most @ms. */
bool kernel_device_wait_free(int index, int ms);

#endif
