/* SPDX-License-Identifier: Apache-2.0 */
/* A view without BPF: two devices of @cells granules whose heat and policies are set by hand, and a
 * supervisor's readahead. With `off` it is one of a kernel that can't. Include it once a test. */
#ifndef TESTS_UNIT_FAKE_VIEW_H
#define TESTS_UNIT_FAKE_VIEW_H

#include <errno.h>
#include <string.h>

#include "observe/view.h"
#include "worker/privileged.h"

#define FAKE_SLOTS 2
#ifndef FAKE_CELLS
#define FAKE_CELLS 3000000
#endif

static struct fake_view {
	bool off, cgroups_full;
	uint32_t cells, heat_shift;
	uint32_t heat[FAKE_CELLS];
	struct policy policy[FAKE_SLOTS], cgroup;
	struct observe_window streams[4];
	size_t nstreams;
	uint64_t read_ahead, read_ahead_max;
} fake;

const char *view_hooks(const struct view *v, uint32_t *hooks)
{
	(void)v;
	if (hooks)
		*hooks = fake.off ? 0 : OBSERVE_REQUESTS;
	return fake.off ? "off: this kernel has no BTF" : "requests";
}

int view_device(struct view *v, int slot, struct view_device *out)
{
	(void)v;
	(void)slot;
	*out = (struct view_device){.stats = {.asked_pages = (1ULL << 60) + 1, .missed_pages = 25},
				    .heat_shift = fake.heat_shift,
				    .cells = fake.cells};
	return 0;
}

int view_heat(struct view *v, int slot, uint32_t first, uint32_t n, uint32_t *out)
{
	(void)v;
	(void)slot;
	if (first + n > fake.cells)
		return -ERANGE;
	memcpy(out, fake.heat + first, n * sizeof(*out));
	return 0;
}

size_t view_streams(struct view *v, int slot, struct observe_window *out, size_t max)
{
	size_t n = fake.nstreams < max ? fake.nstreams : max;

	(void)v;
	(void)slot;
	memcpy(out, fake.streams, n * sizeof(*out));
	return n;
}

void view_ring(struct view *v, struct view_ring *out)
{
	(void)v;
	*out = (struct view_ring){.records = 12, .lost = 3};
}

int view_policy(struct view *v, int slot, struct policy *out, bool *set)
{
	(void)v;
	*out = policy_sane(fake.policy[slot]);
	*set = fake.policy[slot].flags & POLICY_SET;
	return fake.off ? -ENOTSUP : 0;
}

int view_policy_set(struct view *v, int slot, const struct policy *p)
{
	(void)v;
	fake.policy[slot] = *p;
	return fake.off ? -ENOTSUP : 0;
}

int view_cgroup_policy(struct view *v, uint64_t cgroup, struct policy *out, bool *set)
{
	(void)v;
	*set = fake.cgroup.cgroup == cgroup;
	*out = policy_sane(*set ? fake.cgroup : (struct policy){0});
	return fake.off ? -ENOTSUP : 0;
}

int view_cgroup_policy_set(struct view *v, uint64_t cgroup, const struct policy *p)
{
	(void)v;
	if (fake.off)
		return -ENOTSUP;
	if (fake.cgroups_full)
		return -ENOSPC;
	fake.cgroup = *p;
	fake.cgroup.cgroup = cgroup;
	return 0;
}

int view_cgroup_policy_unset(struct view *v, uint64_t cgroup)
{
	(void)v;
	if (fake.cgroup.cgroup == cgroup)
		fake.cgroup = (struct policy){0};
	return fake.off ? -ENOTSUP : 0;
}

static inline int fake_read_ahead(uint64_t kb, uint64_t *now)
{
	if (kb != UINT64_MAX)
		fake.read_ahead = kb < fake.read_ahead_max ? kb : fake.read_ahead_max;
	*now = fake.read_ahead;
	return 0;
}

static inline void fake_view_reset(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.cells = 256;
	fake.heat_shift = HEAT_EXTENT_SHIFT;
	fake.read_ahead = 128;
	fake.read_ahead_max = UINT64_MAX;
}

#endif
