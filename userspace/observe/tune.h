/* SPDX-License-Identifier: Apache-2.0 */
/* What `cairn tune` may set, by key and text. Pure.
 *
 *	enable		true or false		note heat and streams
 *	half_life	1 to 86400 seconds	of heat
 *	min_run		1 to 1024 windows	in a row before a stream has a verdict
 *	ring_sampling	1 to 65536		one record every so many windows
 *	read_ahead_kb	0 to 1048576 KiB	of the device, for files opened later
 */
#ifndef OBSERVE_TUNE_H
#define OBSERVE_TUNE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include <policy.h>

#include "base/err.h"

enum tune_key {
	TUNE_ENABLE,
	TUNE_HALF_LIFE, /* value in ms */
	TUNE_MIN_RUN,
	TUNE_RING_SAMPLING,
	TUNE_READ_AHEAD_KB,
	TUNE_KEYS
};

#define TUNE_DEVICE_KEYS ((1U << TUNE_KEYS) - 1)
/* Heat and readahead are a device's, whoever reads it. */
#define TUNE_CGROUP_KEYS (TUNE_DEVICE_KEYS & ~(1U << TUNE_READ_AHEAD_KB | 1U << TUNE_HALF_LIFE))

/* Some keys with values; a key that is to be as if never set is in @reset instead. */
struct tuning {
	uint32_t have, reset; /* bits by key */
	uint64_t value[TUNE_KEYS];
};

const char *tune_key_name(enum tune_key key);

/* Put @key=@text into @t; "default" resets. -EINVAL: no such key, or none for this subject
 * (@allowed has the bits of those), or a value out of range; the text names what is allowed. */
int tune_parse(const char *key, const char *text, uint32_t allowed, struct tuning *t,
	       struct err *err);

/* The same for an object's members, texts, numbers or booleans. */
int tune_parse_json(const cJSON *object, uint32_t allowed, struct tuning *t, struct err *err);

/* A key's value as its JSON. NULL without memory. */
cJSON *tune_value_json(enum tune_key key, uint64_t value);

/* @base with @change on top. */
void tuning_merge(struct tuning *base, const struct tuning *change);

/* The policy of all that is in @t, over @base; and a policy's values. @base and *p need not be
 * sane. */
struct policy tuning_policy(const struct tuning *t, struct policy base);
void tuning_of_policy(const struct policy *p, struct tuning *out);

#endif
