/* SPDX-License-Identifier: Apache-2.0 */
/* A thread drains the ring every VIEW_DRAIN_MS; everything else is read where the programs count
 * it, when somebody asks.
 */
#include "observe/view.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "observe/loader.h"
#include "observe/view_impl.h"
#include "worker/privileged.h"

#define VIEW_DRAIN_MS 100

#define STATS_BYTES  (sizeof(struct observe_stats) * OBSERVE_DEVICES * OBSERVE_STRIPES)
#define POLICY_BYTES (sizeof(struct policy) * POLICY_ENTRIES)

struct view_slot *view_slot_of(struct view *v, int slot)
{
	if (slot < 0 || slot >= OBSERVE_DEVICES || !v->slots[slot].name[0])
		return NULL;
	return &v->slots[slot];
}

static struct observe_stats stats_sum(const struct view *v, uint32_t slot)
{
	struct observe_stats sum = {0};
	const size_t words = sizeof(sum) / sizeof(uint64_t);

	for (uint32_t i = 0; i < OBSERVE_STRIPES; i++) {
		const uint64_t *from = (const uint64_t *)&v->stats[slot * OBSERVE_STRIPES + i];

		for (size_t w = 0; w < words; w++)
			((uint64_t *)&sum)[w] += __atomic_load_n(&from[w], __ATOMIC_RELAXED);
	}
	return sum;
}

/* ---- the thread ---- */

static void record_take(void *arg, const void *rec, size_t len)
{
	const struct observe_window *w = rec;
	struct view *v = arg;

	v->records++;
	/* of a device that went, or of nobody's: the ring is older than this worker */
	if (len < sizeof(*w) || w->slot >= OBSERVE_DEVICES || !v->slots[w->slot].name[0] ||
	    v->slots[w->slot].generation != w->generation)
		return;
	streams_put(&v->streams, w);
}

static void turn(struct view *v)
{
	uint64_t now = clock_now_ns();

	observe_ring_drain(&v->ring, record_take, v);
	for (uint32_t i = 0; i < OBSERVE_DEVICES; i++) {
		if (!v->slots[i].name[0])
			continue;
		view_heat_convert(v, &v->slots[i]);
		view_heat_sweep(&v->slots[i], now);
	}
}

static void *drain_thread(void *arg)
{
	struct view *v = arg;
	struct timespec at;

	pthread_mutex_lock(&v->lock);
	clock_gettime(CLOCK_MONOTONIC, &at);
	while (!v->stopping) {
		turn(v);
		clock_gettime(CLOCK_MONOTONIC, &at);
		at.tv_nsec += VIEW_DRAIN_MS * (long)NSEC_PER_MSEC;
		at.tv_sec += at.tv_nsec / (long)NSEC_PER_SEC;
		at.tv_nsec %= (long)NSEC_PER_SEC;
		while (!v->stopping && pthread_cond_timedwait(&v->wake, &v->lock, &at) == 0)
			;
	}
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

/* ---- start and end ---- */

static int maps_open(struct view *v, const int fds[LOADER_FDS])
{
	void *policy, *stats;
	int rc;

	policy = mmap(NULL, POLICY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	if (policy == MAP_FAILED)
		return -errno;
	stats = mmap(NULL, STATS_BYTES, PROT_READ, MAP_SHARED, fds[1], 0);
	rc = stats == MAP_FAILED ? -errno : observe_ring_open(&v->ring, fds[2], OBSERVE_RING_BYTES);
	if (rc) {
		munmap(policy, POLICY_BYTES);
		if (stats != MAP_FAILED)
			munmap(stats, STATS_BYTES);
		return rc;
	}
	v->policy = policy;
	v->stats = stats;
	return 0;
}

static void maps_close(struct view *v)
{
	munmap(v->policy, POLICY_BYTES);
	munmap((void *)v->stats, STATS_BYTES);
	observe_ring_close(&v->ring);
}

static int view_open(struct view *v)
{
	int fds[LOADER_FDS], rc;
	struct err err = {0};

	if (v->supervisor_fd < 0) {
		strcpy(v->line, "off: this daemon runs without a supervisor");
		return -ENOTSUP;
	}
	rc = privileged_observer(v->supervisor_fd, fds, LOADER_FDS, &v->hooks, v->line, &err);
	if (rc) {
		if (!v->line[0])
			snprintf(v->line, sizeof(v->line), "off: %s", err.text);
		return rc;
	}
	rc = maps_open(v, fds);
	for (int i = 0; i < LOADER_FDS; i++)
		close(fds[i]);
	if (!rc) {
		rc = -pthread_create(&v->thread, NULL, drain_thread, v);
		if (rc)
			maps_close(v);
	}
	if (rc)
		snprintf(v->line, sizeof(v->line), "off: its maps can't be read: %s",
			 strerror(-rc));
	return rc;
}

struct view *view_start(int supervisor_fd)
{
	struct view *v = calloc(1, sizeof(*v));
	pthread_condattr_t attr;

	if (!v)
		return NULL;
	v->supervisor_fd = supervisor_fd;
	pthread_mutex_init(&v->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&v->wake, &attr);
	pthread_condattr_destroy(&attr);
	v->on = view_open(v) == 0;
	if (!v->on)
		v->hooks = 0;
	return v;
}

static void slot_close(struct view *v, struct view_slot *s)
{
	if (!s->name[0])
		return;
	v->lost_gone += stats_sum(v, (uint32_t)(s - v->slots)).lost;
	munmap(s->heat, s->heat_bytes);
	*s = (struct view_slot){0};
}

void view_stop(struct view *v)
{
	if (!v)
		return;
	if (v->on) {
		pthread_mutex_lock(&v->lock);
		v->stopping = true;
		pthread_cond_signal(&v->wake);
		pthread_mutex_unlock(&v->lock);
		pthread_join(v->thread, NULL);
		for (int i = 0; i < OBSERVE_DEVICES; i++)
			slot_close(v, &v->slots[i]);
		maps_close(v);
	}
	pthread_cond_destroy(&v->wake);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

const char *view_hooks(const struct view *v, uint32_t *hooks)
{
	if (hooks)
		*hooks = v->hooks;
	return v->line;
}

/* ---- devices ---- */

static int slot_open(struct view *v, const char *name, const struct privileged_watch *w)
{
	struct view_slot s = {.generation = w->generation,
			      .heat_shift = w->heat_shift,
			      .cells = w->cells,
			      .swept_ns = clock_now_ns()};

	if (w->slot >= OBSERVE_DEVICES || !w->cells || w->cells > HEAT_CELLS_MAX ||
	    strlen(name) >= sizeof(s.name))
		return -EBADMSG;
	strcpy(s.name, name);
	s.heat_bytes = ((size_t)w->cells + 1) / 2 * sizeof(uint64_t);
	s.heat = mmap(NULL, s.heat_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w->heat_fd, 0);
	if (s.heat == MAP_FAILED)
		return -errno;
	pthread_mutex_lock(&v->lock);
	s.half_life_ms = view_policy_of(v, w->slot).half_life_ms;
	if (v->slots[w->slot].generation == w->generation) { /* watched already */
		munmap(s.heat, s.heat_bytes);
	} else {
		slot_close(v, &v->slots[w->slot]);
		v->slots[w->slot] = s;
	}
	pthread_mutex_unlock(&v->lock);
	return (int)w->slot;
}

int view_add(struct view *v, const char *export_name, uint64_t device_len)
{
	struct privileged_watch w;
	struct err err = {0};
	int rc;

	if (!v->on)
		return -ENOTSUP;
	rc = privileged_watch(v->supervisor_fd, export_name, device_len, &w, &err);
	if (!rc) {
		rc = slot_open(v, export_name, &w);
		close(w.heat_fd);
		if (rc < 0)
			err_set(&err, rc, "its heat map can't be read: %s", strerror(-rc));
	}
	if (rc < 0)
		log_warn("observe", "a device is not watched", "export=%s why=\"%s\"", export_name,
			 err.text);
	return rc;
}

void view_remove(struct view *v, int slot)
{
	char name[SUPERVISOR_NAME_LEN];
	uint32_t generation = 0;
	struct view_slot *s;

	pthread_mutex_lock(&v->lock);
	s = view_slot_of(v, slot);
	if (s) {
		strcpy(name, s->name);
		generation = s->generation;
		slot_close(v, s);
	}
	pthread_mutex_unlock(&v->lock);
	if (generation)
		privileged_unwatch(v->supervisor_fd, name, generation);
}

int view_device(struct view *v, int slot, struct view_device *out)
{
	struct view_slot *s;

	pthread_mutex_lock(&v->lock);
	s = view_slot_of(v, slot);
	if (s) {
		out->stats = stats_sum(v, (uint32_t)slot);
		out->heat_shift = s->heat_shift;
		out->cells = s->cells;
	}
	pthread_mutex_unlock(&v->lock);
	return s ? 0 : v->on ? -ENOENT : -ENOTSUP;
}

size_t view_streams(struct view *v, int slot, struct observe_window *out, size_t max)
{
	struct view_slot *s;
	size_t n = 0;

	pthread_mutex_lock(&v->lock);
	s = view_slot_of(v, slot);
	if (s)
		n = streams_of(&v->streams, (uint32_t)slot, s->generation, clock_now_ns(), out,
			       max);
	pthread_mutex_unlock(&v->lock);
	return n;
}

void view_ring(struct view *v, struct view_ring *out)
{
	pthread_mutex_lock(&v->lock);
	out->records = v->records;
	out->lost = v->lost_gone;
	for (uint32_t i = 0; i < OBSERVE_DEVICES; i++)
		if (v->slots[i].name[0])
			out->lost += stats_sum(v, i).lost;
	pthread_mutex_unlock(&v->lock);
}
