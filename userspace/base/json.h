/* SPDX-License-Identifier: Apache-2.0 */
/* Members of JSON that we wrote down ourselves, and that may have been damaged since: taken when
 * they are what they have to be. False leaves *out as it was. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

/* Text that with its NUL has @room in @out. */
bool json_text_take(const cJSON *o, const char *key, char *out, size_t room);

/* A whole number from @min to @max; a double holds them up to 2^53. */
bool json_integer_of(const cJSON *v, double min, double max, double *out);
bool json_integer_take(const cJSON *o, const char *key, double min, double max, double *out);

#endif
