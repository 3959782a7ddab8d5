/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <stdint.h>
#include <string.h>

bool json_text_take(const cJSON *o, const char *key, char *out, size_t room)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));

	if (!s || strlen(s) >= room)
		return false;
	strcpy(out, s);
	return true;
}

bool json_integer_of(const cJSON *v, double min, double max, double *out)
{
	if (!cJSON_IsNumber(v) || !(v->valuedouble >= min && v->valuedouble <= max) ||
	    v->valuedouble != (double)(int64_t)v->valuedouble)
		return false;
	*out = v->valuedouble;
	return true;
}

bool json_integer_take(const cJSON *o, const char *key, double min, double max, double *out)
{
	return json_integer_of(cJSON_GetObjectItemCaseSensitive(o, key), min, max, out);
}
