/* SPDX-License-Identifier: Apache-2.0 */
/* The policy array and the heat cells: what is written by us and by the BPF programs at once.
 *
 * Programs may read a policy while it is being written; whatever they see is corrected. A changed
 * half-life changes what a cell's epoch means, so the cells are turned at once, also when somebody
 * else wrote the array: view_heat_convert() is called with every look at it.
 */
#include <errno.h>
#include <unistd.h>

#include "base/clock.h"
#include "observe/view_impl.h"

#define CONVERT_GRACE_US 1000 /* a program that began under the old half-life has ended */

struct policy view_policy_of(const struct view *v, uint32_t slot)
{
	struct policy p = policy_sane(*(volatile struct policy *)&v->policy[slot]);

	p.cgroup = 0;
	return p;
}

/* ---- cells ---- */

void view_heat_convert(struct view *v, struct view_slot *s)
{
	uint32_t ms = view_policy_of(v, (uint32_t)(s - v->slots)).half_life_ms, from, to;
	uint64_t now = clock_now_ns();

	if (ms == s->half_life_ms)
		return;
	from = heat_epoch(now, s->half_life_ms);
	to = heat_epoch(now, ms);
	for (uint32_t i = 0; i < s->cells; i++) {
		uint32_t cell = __atomic_load_n(&s->heat[i], __ATOMIC_RELAXED), heat;

		if (!cell)
			continue;
		heat = heat_now(cell, from);
		/* one that was touched meanwhile is in the new half-life already */
		__atomic_compare_exchange_n(&s->heat[i], &cell,
					    heat ? to << HEAT_COUNT_BITS | heat : 0, false,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	}
	s->half_life_ms = ms;
	s->swept_ns = now;
}

void view_heat_sweep(struct view_slot *s, uint64_t now_ns)
{
	uint64_t every = (uint64_t)s->half_life_ms * NSEC_PER_MSEC * HEAT_STALE_EPOCHS;
	uint32_t epoch = heat_epoch(now_ns, s->half_life_ms);

	if (now_ns - s->swept_ns < every)
		return;
	s->swept_ns = now_ns;
	for (uint32_t i = 0; i < s->cells; i++) {
		uint32_t cell = __atomic_load_n(&s->heat[i], __ATOMIC_RELAXED);

		if (heat_is_stale(cell, epoch))
			__atomic_compare_exchange_n(&s->heat[i], &cell, 0, false, __ATOMIC_RELAXED,
						    __ATOMIC_RELAXED);
	}
}

int view_heat(struct view *v, int slot, uint32_t first, uint32_t n, uint32_t *out)
{
	struct view_slot *s;
	uint32_t epoch;
	int rc = 0;

	pthread_mutex_lock(&v->lock);
	s = view_slot_of(v, slot);
	if (!s)
		rc = v->on ? -ENOENT : -ENOTSUP;
	else if (first > s->cells || n > s->cells - first)
		rc = -ERANGE;
	if (!rc) {
		view_heat_convert(v, s);
		epoch = heat_epoch(clock_now_ns(), s->half_life_ms);
		for (uint32_t i = 0; i < n; i++)
			out[i] = heat_now(__atomic_load_n(&s->heat[first + i], __ATOMIC_RELAXED),
					  epoch);
	}
	pthread_mutex_unlock(&v->lock);
	return rc;
}

/* ---- policies ---- */

/* What a person may set: nothing that policy_sane() would change. */
static bool is_settable(const struct policy *p)
{
	return p->half_life_ms >= POLICY_HALF_LIFE_MIN_MS &&
	       p->half_life_ms <= POLICY_HALF_LIFE_MAX_MS && p->min_run >= 1 &&
	       p->min_run <= POLICY_MIN_RUN_MAX && p->ring_sampling >= 1 &&
	       p->ring_sampling <= POLICY_SAMPLING_MAX &&
	       !(p->flags & ~(POLICY_SET | POLICY_DISABLED));
}

/* The key last: before it, nobody finds the entry. */
static void entry_write(struct policy *at, const struct policy *p, uint64_t cgroup)
{
	volatile struct policy *e = at;

	e->half_life_ms = p->half_life_ms;
	e->min_run = p->min_run;
	e->ring_sampling = p->ring_sampling;
	e->reserved[0] = e->reserved[1] = 0;
	e->flags = p->flags | POLICY_SET;
	__atomic_store_n(&at->cgroup, cgroup, __ATOMIC_RELEASE);
}

int view_policy(struct view *v, int slot, struct policy *out, bool *set)
{
	struct view_slot *s;

	pthread_mutex_lock(&v->lock);
	s = view_slot_of(v, slot);
	if (s) {
		*out = view_policy_of(v, (uint32_t)slot);
		*set = out->flags & POLICY_SET;
	}
	pthread_mutex_unlock(&v->lock);
	return s ? 0 : v->on ? -ENOENT : -ENOTSUP;
}

int view_policy_set(struct view *v, int slot, const struct policy *p)
{
	struct view_slot *s;

	if (!is_settable(p))
		return -ERANGE;
	pthread_mutex_lock(&v->lock);
	s = view_slot_of(v, slot);
	if (s && p->half_life_ms != s->half_life_ms) {
		/* no cell is touched while they are turned */
		v->policy[slot].flags = POLICY_SET | POLICY_DISABLED;
		v->policy[slot].half_life_ms = p->half_life_ms;
		usleep(CONVERT_GRACE_US);
		view_heat_convert(v, s);
	}
	if (s)
		entry_write(&v->policy[slot], p, 0);
	pthread_mutex_unlock(&v->lock);
	return s ? 0 : v->on ? -ENOENT : -ENOTSUP;
}

/* The entry of @cgroup, else NULL. 0 finds a free one of those where @near may be. */
static struct policy *cgroup_entry(struct view *v, uint64_t near, uint64_t cgroup)
{
	for (uint32_t i = 0; i < POLICY_PROBES; i++) {
		struct policy *e = &v->policy[policy_cgroup_entry(near, i)];

		if (e->cgroup == cgroup)
			return e;
	}
	return NULL;
}

/* So that programs look for a task's cgroup only while one could be found. */
static void cgroups_count(struct view *v)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < OBSERVE_CGROUPS; i++)
		n += v->policy[OBSERVE_DEVICES + i].cgroup != 0;
	__atomic_store_n(&v->policy[POLICY_HEAD].cgroup, n, __ATOMIC_RELEASE);
}

int view_cgroup_policy(struct view *v, uint64_t cgroup, struct policy *out, bool *set)
{
	struct policy *e;

	if (!v->on)
		return -ENOTSUP;
	if (!cgroup)
		return -ENOENT;
	pthread_mutex_lock(&v->lock);
	e = cgroup_entry(v, cgroup, cgroup);
	*set = e != NULL;
	*out = policy_sane(e ? *e : (struct policy){0});
	out->cgroup = cgroup;
	pthread_mutex_unlock(&v->lock);
	return 0;
}

int view_cgroup_policy_set(struct view *v, uint64_t cgroup, const struct policy *p)
{
	struct policy *e;

	if (!v->on)
		return -ENOTSUP;
	if (!cgroup)
		return -ENOENT;
	if (!is_settable(p))
		return -ERANGE;
	pthread_mutex_lock(&v->lock);
	e = cgroup_entry(v, cgroup, cgroup);
	if (!e)
		e = cgroup_entry(v, cgroup, 0);
	if (e)
		entry_write(e, p, cgroup);
	cgroups_count(v);
	pthread_mutex_unlock(&v->lock);
	return e ? 0 : -ENOSPC;
}

int view_cgroup_policy_unset(struct view *v, uint64_t cgroup)
{
	struct policy *e;

	if (!v->on)
		return -ENOTSUP;
	pthread_mutex_lock(&v->lock);
	e = cgroup ? cgroup_entry(v, cgroup, cgroup) : NULL;
	if (e)
		__atomic_store_n(&e->cgroup, 0, __ATOMIC_RELEASE);
	cgroups_count(v);
	pthread_mutex_unlock(&v->lock);
	return e ? 0 : -ENOENT;
}
