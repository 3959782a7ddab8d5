/* SPDX-License-Identifier: Apache-2.0 */
#include "observe/tune.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_AHEAD_MAX_KB (1024 * 1024)

static const struct {
	const char *name, *must;
	double min, max, unit; /* of the text; a value is in units of 1 / unit */
	bool whole;
} keys[TUNE_KEYS] = {
	[TUNE_ENABLE] = {"enable", "true or false", 0, 1, 1, true},
	[TUNE_HALF_LIFE] = {"half_life", "1 to 86400 seconds", POLICY_HALF_LIFE_MIN_MS / 1e3,
			    POLICY_HALF_LIFE_MAX_MS / 1e3, 1e3, false},
	[TUNE_MIN_RUN] = {"min_run", "1 to 1024 windows", 1, POLICY_MIN_RUN_MAX, 1, true},
	[TUNE_RING_SAMPLING] = {"ring_sampling", "1 (each window) to 65536", 1, POLICY_SAMPLING_MAX,
				1, true},
	[TUNE_READ_AHEAD_KB] = {"read_ahead_kb", "0 to 1048576 KiB", 0, READ_AHEAD_MAX_KB, 1, true},
};

const char *tune_key_name(enum tune_key key)
{
	return keys[key].name;
}

static const char *names_list(uint32_t allowed, char *buf, size_t room)
{
	size_t n = 0;

	buf[0] = 0;
	for (int k = 0; k < TUNE_KEYS; k++)
		if (allowed >> k & 1 && n < room)
			n += (size_t)snprintf(buf + n, room - n, "%s%s", n ? ", " : "",
					      keys[k].name);
	return buf;
}

static bool word_parse(const char *text, uint64_t *out)
{
	static const char *const words[2][4] = {{"false", "off", "no", "0"},
						{"true", "on", "yes", "1"}};

	for (uint64_t v = 0; v < 2; v++)
		for (int i = 0; i < 4; i++)
			if (strcmp(text, words[v][i]) == 0) {
				*out = v;
				return true;
			}
	return false;
}

static bool number_parse(enum tune_key key, const char *text, uint64_t *out)
{
	char *end;
	double v = strtod(text, &end);

	/* digits first: neither "nan" nor "0x10" nor " 1" */
	if (text[0] < '0' || text[0] > '9' || *end || strpbrk(text, "xX") ||
	    !(v >= keys[key].min) || v > keys[key].max ||
	    (keys[key].whole && v != (double)(uint64_t)v))
		return false;
	*out = (uint64_t)(v * keys[key].unit + 0.5);
	return true;
}

int tune_parse(const char *key, const char *text, uint32_t allowed, struct tuning *t,
	       struct err *err)
{
	char list[128];
	uint64_t v = 0;
	int k = 0;

	while (k < TUNE_KEYS && strcmp(keys[k].name, key) != 0)
		k++;
	if (k == TUNE_KEYS)
		return err_set(err, -EINVAL, "there is no key %.40s; there are %s", key,
			       names_list(allowed, list, sizeof(list)));
	if (!(allowed >> k & 1))
		return err_set(err, -EINVAL, "%s is a device's, not a cgroup's; a cgroup has %s",
			       key, names_list(allowed, list, sizeof(list)));
	if (strcmp(text, "default") == 0) {
		t->have &= ~(1U << k);
		t->reset |= 1U << k;
		return 0;
	}
	if (k == TUNE_ENABLE ? !word_parse(text, &v) : !number_parse((enum tune_key)k, text, &v))
		return err_set(err, -EINVAL, "%s=%.40s: must be %s, or default", key, text,
			       keys[k].must);
	t->have |= 1U << k;
	t->reset &= ~(1U << k);
	t->value[k] = v;
	return 0;
}

int tune_parse_json(const cJSON *object, uint32_t allowed, struct tuning *t, struct err *err)
{
	const cJSON *m;
	int rc = 0;

	if (!cJSON_IsObject(object))
		return err_set(err, -EINVAL, "settings must be a JSON object of keys and values");
	cJSON_ArrayForEach (m, object) {
		char number[32];
		const char *text = number;

		snprintf(number, sizeof(number), "%.15g", m->valuedouble);
		if (cJSON_IsString(m))
			text = m->valuestring;
		else if (cJSON_IsBool(m))
			text = cJSON_IsTrue(m) ? "true" : "false";
		else if (!cJSON_IsNumber(m))
			text = "(neither text nor number)";
		rc = tune_parse(m->string, text, allowed, t, err);
		if (rc)
			break;
	}
	return rc;
}

cJSON *tune_value_json(enum tune_key key, uint64_t value)
{
	if (key == TUNE_ENABLE)
		return cJSON_CreateBool(value != 0);
	return cJSON_CreateNumber((double)value / keys[key].unit);
}

void tuning_merge(struct tuning *base, const struct tuning *change)
{
	base->have = (base->have & ~change->reset) | change->have;
	base->reset = (base->reset & ~change->have) | change->reset;
	for (int k = 0; k < TUNE_KEYS; k++)
		if (change->have >> k & 1)
			base->value[k] = change->value[k];
}

void tuning_of_policy(const struct policy *p, struct tuning *out)
{
	struct policy s = policy_sane(*p);

	*out = (struct tuning){.have = TUNE_DEVICE_KEYS & ~(1U << TUNE_READ_AHEAD_KB)};
	out->value[TUNE_ENABLE] = !(s.flags & POLICY_DISABLED);
	out->value[TUNE_HALF_LIFE] = s.half_life_ms;
	out->value[TUNE_MIN_RUN] = s.min_run;
	out->value[TUNE_RING_SAMPLING] = s.ring_sampling;
}

struct policy tuning_policy(const struct tuning *t, struct policy base)
{
	const struct policy none = {0};
	struct tuning all, defaults;

	tuning_of_policy(&base, &all);
	tuning_of_policy(&none, &defaults);
	for (int k = 0; k < TUNE_KEYS; k++)
		if (t->reset >> k & 1)
			all.value[k] = defaults.value[k];
	tuning_merge(&all, t);
	return (struct policy){.cgroup = base.cgroup,
			       .flags = POLICY_SET | (all.value[TUNE_ENABLE] ? 0 : POLICY_DISABLED),
			       .half_life_ms = (uint32_t)all.value[TUNE_HALF_LIFE],
			       .min_run = (uint32_t)all.value[TUNE_MIN_RUN],
			       .ring_sampling = (uint32_t)all.value[TUNE_RING_SAMPLING]};
}
