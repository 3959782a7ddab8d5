/* SPDX-License-Identifier: Apache-2.0 */
/* States: refused, or cold (the ring reads the store's file) -> done, or -> filled, when the file
 * is not what it was; filled (a fill for each extent) -> done; or, after the deadline, pausing ->
 * done with -EAGAIN, which has the read asked for again. Each is counted once, when it is done. */
#include "worker/volume_read.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "crash/doing.h"
#include "store/pages.h"
#include "worker/patience.h"

#define PAUSE_READS 16 /* deadlines that pass together count as one for the back-off */

/* One NBD read that waits, for a cold page of the store's file or for fills. */
struct volume_read {
	struct volume *volume;
	struct nbd_read *nbd;
	struct loop *loop; /* the data thread's */
	uint64_t began_ns;
	struct loop_read cold;
	struct loop_post back;
	struct patience patience; /* after the deadline, when the volume waits */
	_Atomic uint32_t open;	  /* fills not yet ended */
	_Atomic int rc;
	_Atomic uint64_t origin_bytes;
	bool filled; /* fills were asked for it */
	uint32_t nfills;
	struct fill_read fills[];
};

static void note_error(struct volume *v, const char *why)
{
	pthread_mutex_lock(&v->lock);
	snprintf(v->last_error, sizeof(v->last_error), "%s", why ? why : "");
	pthread_mutex_unlock(&v->lock);
}

static void note_latency(const struct volume_read *r, int rc, uint64_t from_origin)
{
	uint64_t ns = clock_now_ns() - r->began_ns;
	struct latency *l = r->volume->latency;

	if (r->filled)
		atomic_fetch_add_explicit(&l->stall_ns, ns, memory_order_relaxed);
	if (!rc)
		histogram_add(from_origin ? &l->origin : &l->local, ns, 1);
}

static bool read_enter(const struct volume_read *r)
{
	return crash_enter(CRASH_READ, &r->volume->export.subject, r->nbd->off, r->nbd->len);
}

static struct volume_read *of_patience(struct patience *p)
{
	return (struct volume_read *)((char *)p - offsetof(struct volume_read, patience));
}

static bool may_wait(const struct volume *v)
{
	return atomic_load(&v->waits) && !atomic_load(&v->export.closing) &&
	       !fill_is_cancelled(v->fill);
}

/* Somebody else's read got through, or there is nobody to wait for it. */
static bool pause_is_over(struct patience *p)
{
	struct volume *v = of_patience(p)->volume;

	return !may_wait(v) || !atomic_load(&v->in_a_row);
}

static void pause_end(struct patience *p)
{
	struct volume_read *r = of_patience(p);
	struct volume *v = r->volume;
	struct nbd_read *nbd = r->nbd;
	int rc = may_wait(v) ? -EAGAIN : -ESHUTDOWN;

	free(r);
	atomic_fetch_sub(&v->patient, 1);
	nbd->done(nbd, rc);
	volume_unref(v);
}

/* The deadline passed, and on_deadline is wait: its memory is for others while it pauses. */
static void read_pauses(struct volume_read *r)
{
	uint64_t now = clock_now_ns();
	uint32_t nth = atomic_fetch_add(&r->volume->in_a_row, 1);

	atomic_fetch_add(&r->volume->patient, 1);
	if (r->nbd->stalled)
		r->nbd->stalled(r->nbd);
	r->patience.over = pause_is_over;
	r->patience.end = pause_end;
	patience_wait(&r->patience, r->loop,
		      now + patience_pause_ns(nth / PAUSE_READS, (uint32_t)(now >> 8)));
}

static void read_end(struct loop_post *p)
{
	struct volume_read *r =
		(struct volume_read *)((char *)p - offsetof(struct volume_read, back));
	struct volume *v = r->volume;
	uint64_t from_origin = atomic_load(&r->origin_bytes);
	struct nbd_read *nbd = r->nbd;
	int rc = atomic_load(&r->rc);
	bool entered = read_enter(r);

	note_latency(r, rc, from_origin);
	if (rc == -ETIMEDOUT)
		atomic_fetch_add(&v->deadlines, 1);
	if (rc == -ETIMEDOUT && may_wait(v)) {
		read_pauses(r);
		crash_leave(entered);
		return;
	}
	if (from_origin)
		atomic_store(&v->in_a_row, 0);
	if (rc) {
		atomic_fetch_add(&v->read_errors, 1);
	} else {
		atomic_fetch_add(from_origin ? &v->origin_reads : &v->local[0].reads, 1);
		atomic_fetch_add(&v->origin_bytes, from_origin);
		atomic_fetch_add(&v->local[0].bytes, nbd->len - from_origin);
	}
	free(r);
	nbd->done(nbd, rc);
	volume_unref(v);
	crash_leave(entered);
}

static void fill_done(struct fill_read *f, int rc, const char *why)
{
	struct volume_read *r = (struct volume_read *)f->owner;

	if (rc) {
		int none = 0;

		atomic_compare_exchange_strong(&r->rc, &none, rc);
		note_error(r->volume, why);
	}
	atomic_fetch_add(&r->origin_bytes, f->origin_bytes);
	if (atomic_fetch_sub(&r->open, 1) == 1)
		loop_post(r->loop, &r->back);
}

static void start_fills(struct volume_read *r)
{
	uint64_t at = r->nbd->off, end = at + r->nbd->len;

	r->filled = true;
	atomic_store(&r->open, r->nfills);
	for (uint32_t i = 0; i < r->nfills; i++) {
		uint64_t stop = (at / STORE_EXTENT + 1) * STORE_EXTENT;
		struct fill_read *f = &r->fills[i];

		if (stop > end)
			stop = end;
		*f = (struct fill_read){.source = &r->volume->source->data,
					.extent = at / STORE_EXTENT,
					.off = (uint32_t)(at % STORE_EXTENT),
					.len = (uint32_t)(stop - at),
					.dst = r->nbd->dst + (at - r->nbd->off),
					.class = FILL_DEMAND,
					.share = r->volume->share,
					.done = fill_done,
					.owner = r};
		object_touch(f->source->object, at, f->len, false);
		at = stop;
	}
	for (uint32_t i = 0, n = r->nfills; i < n; i++) /* the last may free @r */
		fill_submit(r->volume->fill, &r->fills[i]);
}

static void pin_range(struct volume_read *r, void (*fn)(struct object *, uint64_t))
{
	uint64_t first = r->nbd->off / STORE_EXTENT,
		 last = (r->nbd->off + r->nbd->len - 1) / STORE_EXTENT;

	for (uint64_t i = first; i <= last; i++)
		fn(r->volume->source->data.object, i);
}

static void suspect_extent(struct object *o, uint64_t extent)
{
	object_suspect(o, extent, ~0ULL);
}

/* Past the page cache if that is how its readers want it. */
static int cold_fd(struct object *o, const struct nbd_read *nbd)
{
	uint64_t all = nbd->off | nbd->len | (uintptr_t)nbd->dst;
	bool whole = all % STORE_DIRECT_ALIGN == 0 && nbd->off + nbd->len <= o->id.length;
	int fd = whole ? object_direct_fd(o, nbd->off, nbd->len) : -1;

	return fd < 0 ? o->data_fd : fd;
}

static void cold_done(struct loop_read *c, int res)
{
	struct volume_read *r =
		(struct volume_read *)((char *)c - offsetof(struct volume_read, cold));
	struct object *o = r->volume->source->data.object;

	if (res != (int)r->nbd->len && c->fd != o->data_fd) {
		if (res == -EINVAL) /* finer than this disk goes */
			object_direct_refused(o);
		c->fd = o->data_fd;
		loop_pread(r->loop, c);
		return;
	}
	if (res == (int)r->nbd->len) {
		if (c->fd == o->data_fd)
			volume_note_pages(o, r->nbd->off, r->nbd->len);
		pin_range(r, object_unpin);
		read_end(&r->back);
		return;
	}
	/* The file is not what it was: nothing of it is believed before it is rechecked. */
	log_warn("store", "store file can't be read; its blocks are rechecked",
		 "object=%s off=%llu got=%d", o->name, (unsigned long long)r->nbd->off, res);
	pin_range(r, suspect_extent);
	pin_range(r, object_unpin);
	start_fills(r);
}

static bool start_cold(struct volume_read *r)
{
	struct object *o = r->volume->source->data.object;

	pin_range(r, object_hold);
	if (object_resident(o, r->nbd->off, r->nbd->len) != r->nbd->len) {
		pin_range(r, object_unpin);
		return false;
	}
	r->cold = (struct loop_read){.done = cold_done,
				     .buf = r->nbd->dst,
				     .off = r->nbd->off,
				     .len = r->nbd->len,
				     .fd = cold_fd(o, r->nbd)};
	loop_pread(r->loop, &r->cold);
	return true;
}

static bool refuse(struct volume_read *r)
{
	static const char why[] = "this read killed the worker twice, so it is refused";

	if (r->nbd->is_begun ||
	    !crash_is_refused(&r->volume->export.subject, CRASH_READ, r->nbd->off, r->nbd->len))
		return false;
	note_error(r->volume, why);
	atomic_store(&r->rc, -EIO);
	loop_post(r->loop, &r->back);
	return true;
}

enum volume_read_way volume_read_start(struct volume *v, struct nbd_read *nbd, struct loop *l)
{
	uint64_t first = nbd->off / STORE_EXTENT, last = (nbd->off + nbd->len - 1) / STORE_EXTENT;
	uint32_t n = (uint32_t)(last - first + 1);
	struct volume_read *r = calloc(1, sizeof(*r) + n * sizeof(r->fills[0]));

	if (!r) {
		static const struct timespec nap = {.tv_nsec = 1000000};

		while (!(r = calloc(1, sizeof(*r) + n * sizeof(r->fills[0]))))
			nanosleep(&nap, NULL); /* done() may not be called from here */
	}
	r->volume = volume_ref(v);
	r->nbd = nbd;
	r->loop = l;
	r->began_ns = clock_now_ns();
	r->nfills = n;
	r->back.fn = read_end;
	if (refuse(r))
		return VOLUME_READ_REFUSED;
	if (start_cold(r))
		return VOLUME_READ_COLD;
	start_fills(r);
	return VOLUME_READ_FILLED;
}
