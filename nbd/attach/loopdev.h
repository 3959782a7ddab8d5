/* SPDX-License-Identifier: Apache-2.0 */
/* Loop devices: read-only, direct I/O. What may wait for the backing file's server runs in a child
 * with a bound, so every call here returns in time; -ETIMEDOUT then. */
#ifndef NBD_LOOPDEV_H
#define NBD_LOOPDEV_H

#include <limits.h>
#include <stdbool.h>

#include "base/err.h"
#include "nbd/attach/attach.h"

/* 0, or -ENOTSUP with what is missing. */
int loopdev_available(struct err *err);

/* A free loop device on @path: its index, or a negative errno. */
int loopdev_new(const char *path, struct err *err);

/* Put @path, of the same length, under the device, whoever has it open. Since 6.6 the kernel shuts
 * an ext4 or xfs that is mounted from it: it has to be mounted anew. erofs goes on. */
int loopdev_change(int index, const char *path, struct err *err);

/* Put what @fd is under the device, if that is a regular file open for reading, of @size bytes, on
 * the file system of @folder. Told in @out; -EINVAL when it is none. The kernel first lets reads
 * under way end. -ETIMEDOUT: it may happen yet. */
int loopdev_promote(int index, int fd, uint64_t size, const char *folder, struct attach_file *out,
		    struct err *err);
/* The device shows that file. */
bool loopdev_shows(int index, const struct attach_file *file);

/* Take the file away. A device still open is emptied at its last close. */
int loopdev_clear(int index, struct err *err);

/* -EBUSY with who mounts, holds or has open the device (short-lived openers, such as udev, are
 * waited for a little); 0 if nobody. */
int loopdev_in_use(int index, struct err *err);

/* The path of the backing file as the kernel sees it; false when the device is empty. */
bool loopdev_backing(int index, char path[PATH_MAX]);

#endif
