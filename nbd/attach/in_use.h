/* SPDX-License-Identifier: Apache-2.0 */
/* Who uses a block device: asked before it is taken away. */
#ifndef NBD_IN_USE_H
#define NBD_IN_USE_H

#include "base/err.h"

/* @name as in /sys/block: "loop0", "nbd3". -EBUSY with who mounts, holds or has open the device or
 * a partition of it (short-lived openers, such as udev, are waited for a little); 0 if nobody.
 * -ETIMEDOUT when opening it hangs. */
int device_in_use(const char *name, struct err *err);

#endif
