/* SPDX-License-Identifier: Apache-2.0 */
/* Which file system an image holds, by its magic, and how to mount that without writing. */
#ifndef CLI_FSTYPE_H
#define CLI_FSTYPE_H

#include "base/err.h"

#define FSTYPE_MAX 16

/* -EINVAL: none that is known; says to give --fs. */
int fstype_detect(const char *device, char out[FSTYPE_MAX], struct err *err);

/* Mount options: a journal must not be replayed on a device that can't be written. NULL = none. */
const char *fstype_options(const char *fs);

#endif
