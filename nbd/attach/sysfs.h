/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes of a block device: /sys/block/NAME/FILE. */
#ifndef NBD_SYSFS_H
#define NBD_SYSFS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* One window of the kernel's own readahead: a quarter extent. A sequential reader keeps one such
 * request ahead, which hides a local read; far ahead is the worker's to fetch, since it knows
 * what is resident. A page fault in the middle of a mapped file reads this much around it, so more
 * would cost random readers. */
#define DEVICE_READ_AHEAD_KB "1024"

/* Its first line without the newline. 0 or a negative errno. */
int sysfs_read(const char *device, const char *file, char *buf, size_t len);

/* 0 or a negative errno. */
int sysfs_write(const char *device, const char *file, const char *text);

/* The same for a wish: a refusal is logged. */
void sysfs_wish(const char *device, const char *file, const char *text);

/* Set read_ahead_kb of @device ("loop3") unless @kb is UINT64_MAX; *now is what it is then. -EINVAL
 * where the kernel refuses. */
int device_read_ahead(const char *device, uint64_t kb, uint64_t *now, struct err *err);

#endif
