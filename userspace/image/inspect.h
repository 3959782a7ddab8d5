/* SPDX-License-Identifier: Apache-2.0 */
/* Show what a published image is made of. */
#ifndef IMAGE_INSPECT_H
#define IMAGE_INSPECT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"

/* Reads the manifest only. -ENOENT when there is none. @json: one object, its keys documented in
 * docs/image-format.md. */
int image_inspect(const char *url, bool json, FILE *out, struct err *err);

#endif
