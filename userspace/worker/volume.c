/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/volume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "crash/doing.h"
#include "nbd/protocol.h"
#include "store/pages.h"
#include "worker/patience.h"

#define PAUSE_READS    16  /* deadlines that pass together count as one for the back-off */
#define PREFETCHES_MAX 256 /* extents asked for ahead and not yet there, per volume */

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

static struct volume *of_export(struct nbd_export *e)
{
	return (struct volume *)((char *)e - offsetof(struct volume, export));
}

static uint32_t volume_resident(struct nbd_export *e, uint64_t off, uint32_t len, int *fd,
				uint64_t *fd_off)
{
	struct object *o = of_export(e)->source->data.object;

	object_expect(o, off);
	*fd = o->data_fd;
	*fd_off = off;
	if (crash_is_poison(&e->subject, CRASH_READ, off, len))
		return 0; /* volume_read() refuses it */
	return object_resident(o, off, len);
}

static void note_error(struct volume *v, const char *why)
{
	pthread_mutex_lock(&v->lock);
	snprintf(v->last_error, sizeof(v->last_error), "%s", why ? why : "");
	pthread_mutex_unlock(&v->lock);
}

/* ---- prefetch ---- */

struct prefetch {
	struct fill_read read;
	struct volume *volume;
};

static void prefetch_done(struct fill_read *r, int rc, const char *why)
{
	struct prefetch *p = (struct prefetch *)((char *)r - offsetof(struct prefetch, read));

	(void)rc, (void)why; /* advice that fails is no failure: the read will say so */
	atomic_fetch_sub(&p->volume->prefetches, 1);
	volume_unref(p->volume);
	free(p);
}

/* Ask for [from, to) to be in the store; what is over the limit is left to the reader. */
static void prefetch(struct volume *v, uint64_t from, uint64_t to)
{
	struct object *o = v->source->data.object;

	while (from < to) {
		uint64_t extent = from / STORE_EXTENT, end = (extent + 1) * STORE_EXTENT;
		struct prefetch *p;

		if (end > to)
			end = to;
		if (object_resident(o, from, (uint32_t)(end - from)) == end - from) {
			from = end;
			continue;
		}
		if (atomic_fetch_add(&v->prefetches, 1) >= PREFETCHES_MAX ||
		    !(p = calloc(1, sizeof(*p)))) {
			atomic_fetch_sub(&v->prefetches, 1);
			return;
		}
		p->volume = volume_ref(v);
		p->read = (struct fill_read){.source = &v->source->data,
					     .extent = extent,
					     .off = (uint32_t)(from % STORE_EXTENT),
					     .len = (uint32_t)(end - from),
					     .class = FILL_PREFETCH,
					     .share = v->share,
					     .done = prefetch_done};
		fill_submit(v->fill, &p->read);
		from = end;
	}
}

bool volume_fetch(struct volume *v, uint64_t *at, uint32_t most)
{
	uint64_t len = v->source->data.object->id.length;

	while (*at < len && atomic_load(&v->prefetches) < most) {
		uint64_t end = *at + STORE_EXTENT < len ? *at + STORE_EXTENT : len;

		prefetch(v, *at, end);
		*at = end;
	}
	return *at >= len;
}

static void note_stream(struct volume *v, uint64_t off, uint32_t len, bool missed)
{
	uint64_t from = 0, to = 0, wake = 0;
	uint32_t stream = 0;
	bool ahead;

	pthread_mutex_lock(&v->lock);
	ahead = readahead_note(&v->readahead, off, len, missed, &from, &to, &wake, &stream);
	if (ahead) {
		/* The extent after the one that is being read: there the stream moves on. */
		atomic_store(&v->wake_extent[stream], wake / STORE_EXTENT + 1);
		atomic_store(&v->streams_awake, 1);
	}
	pthread_mutex_unlock(&v->lock);
	if (ahead)
		prefetch(v, from, to);
}

static void note_pages(struct object *o, uint64_t off, uint32_t len)
{
	if (!object_pages_leave(o))
		return;
	object_pages_note(o, off / STORE_EXTENT);
	object_pages_note(o, (off + len - 1) / STORE_EXTENT);
}

static _Thread_local uint32_t stripe_of_thread = UINT32_MAX;
static _Atomic uint32_t next_stripe;

static void volume_served(struct nbd_export *e, uint64_t off, uint32_t len)
{
	struct volume *v = of_export(e);
	uint64_t extent = off / STORE_EXTENT;

	if (stripe_of_thread == UINT32_MAX)
		stripe_of_thread = atomic_fetch_add(&next_stripe, 1) % VOLUME_STRIPES;
	atomic_fetch_add_explicit(&v->local[stripe_of_thread].reads, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&v->local[stripe_of_thread].bytes, len, memory_order_relaxed);
	object_touch(v->source->data.object, off, len, true);
	completion_served(v, off, len);
	note_pages(v->source->data.object, off, len);
	if (!atomic_load_explicit(&v->streams_awake, memory_order_relaxed))
		return;
	for (int i = 0; i < READAHEAD_STREAMS; i++) {
		if (atomic_load_explicit(&v->wake_extent[i], memory_order_relaxed) == extent) {
			atomic_store(&v->wake_extent[i], UINT64_MAX);
			note_stream(v, off, len, false);
		}
	}
}

/* ---- misses ---- */

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
			note_pages(o, r->nbd->off, r->nbd->len);
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

static void volume_read(struct nbd_export *e, struct nbd_read *nbd, struct loop *l)
{
	struct volume *v = of_export(e);
	uint64_t first = nbd->off / STORE_EXTENT, last = (nbd->off + nbd->len - 1) / STORE_EXTENT;
	uint32_t n = (uint32_t)(last - first + 1);
	struct volume_read *r = calloc(1, sizeof(*r) + n * sizeof(r->fills[0]));
	bool missed;

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
		return;
	missed = !start_cold(r);
	if (missed)
		start_fills(r);
	note_stream(v, nbd->off, nbd->len, missed);
	completion_note(v, nbd->off, nbd->len);
}

/* ---- the rest of an export ---- */

/* The status of the run at @off: the manifest's holes, and blocks the tree showed to be zeros. */
static uint32_t status_run(struct volume *v, uint64_t off, uint32_t len, uint32_t *flags)
{
	struct object *o = v->source->data.object;
	uint64_t n, word, extent = off / STORE_EXTENT;
	uint32_t block = (uint32_t)(off % STORE_EXTENT / STORE_BLOCK), run;
	bool zero;

	*flags = NBD_STATE_HOLE | NBD_STATE_ZERO;
	if (image_source_hole(v->source, off, &n))
		return n < len ? (uint32_t)n : len;
	word = atomic_load(&o->ready[extent]) & ~atomic_load(&o->stored[extent]);
	zero = word >> block & 1;
	word = (zero ? ~word : word) >> block;
	run = word ? (uint32_t)__builtin_ctzll(word) : STORE_EXTENT_BLOCKS - block;
	if (run > STORE_EXTENT_BLOCKS - block)
		run = STORE_EXTENT_BLOCKS - block;
	if (!zero)
		*flags = 0;
	if (extent * STORE_EXTENT + (uint64_t)(block + run) * STORE_BLOCK - off < n)
		n = extent * STORE_EXTENT + (uint64_t)(block + run) * STORE_BLOCK - off;
	return n < len ? (uint32_t)n : len;
}

static int block_status(struct nbd_export *e, uint64_t off, uint32_t len, struct nbd_extent *out,
			int max)
{
	struct volume *v = of_export(e);
	int n = 0;

	while (len) {
		uint32_t flags, run = status_run(v, off, len, &flags);

		if (n && out[n - 1].flags == flags)
			out[n - 1].len += run;
		else if (n == max)
			break;
		else
			out[n++] = (struct nbd_extent){.len = run, .flags = flags};
		off += run;
		len -= run;
	}
	return n;
}

static int volume_block_status(struct nbd_export *e, uint64_t off, uint32_t len,
			       struct nbd_extent *out, int max)
{
	bool entered = crash_enter(CRASH_STATUS, &e->subject, off, len);
	int n = block_status(e, off, len, out, max);

	crash_leave(entered);
	return n;
}

static void volume_cache(struct nbd_export *e, uint64_t off, uint32_t len)
{
	bool entered = crash_enter(CRASH_CACHE, &e->subject, off, len);

	prefetch(of_export(e), off, off + len);
	crash_leave(entered);
}

static void volume_readers(struct nbd_export *e, bool is_link, int change)
{
	struct object *o = of_export(e)->source->data.object;

	object_readers(o, is_link, change);
	atomic_store(&e->looks_first, object_pages_leave(o));
}

static struct nbd_export *export_ref(struct nbd_export *e)
{
	return &volume_ref(of_export(e))->export;
}

static void export_unref(struct nbd_export *e)
{
	volume_unref(of_export(e));
}

static const struct nbd_export_ops volume_ops = {
	.resident = volume_resident,
	.read = volume_read,
	.block_status = volume_block_status,
	.cache = volume_cache,
	.served = volume_served,
	.readers = volume_readers,
	.ref = export_ref,
	.unref = export_unref,
};

int volume_new(const char *name, struct image_source **source, struct fill *fill,
	       uint64_t readahead_max, struct latency *latency, struct volume **out,
	       struct err *err)
{
	struct volume *v = calloc(1, sizeof(*v));

	if (v)
		v->share = share_new();
	if (!v || !v->share) {
		free(v);
		image_source_unref(*source);
		*source = NULL;
		return err_set(err, -ENOMEM, "out of memory");
	}
	v->source = *source;
	*source = NULL;
	v->fill = fill;
	v->latency = latency;
	v->refs = 1;
	pthread_mutex_init(&v->lock, NULL);
	v->readahead.size = v->source->device_len;
	v->readahead.max = readahead_max;
	density_init(&v->density, v->source->device_len);
	for (int i = 0; i < READAHEAD_STREAMS; i++)
		v->wake_extent[i] = UINT64_MAX;
	nbd_budget_share_init(&v->export.budget);
	v->export.ops = &volume_ops;
	v->export.size = v->source->device_len;
	snprintf(v->export.name, sizeof(v->export.name), "%s", name);
	crash_subject_init(&v->export.subject, name, v->source->data.object->name);
	snprintf(v->export.description, sizeof(v->export.description), "%.255s", v->source->what);
	*out = v;
	return 0;
}

void volume_set_store_limit(struct volume *v, uint64_t bytes)
{
	v->store_limit = bytes;
	object_set_quota(v->source->data.object, bytes);
}

void volume_set_keep(struct volume *v, bool keep)
{
	struct object *o = v->source->data.object;

	if (keep == v->keeps)
		return;
	if (keep)
		object_keep(o);
	else
		object_let_go(o);
	v->keeps = keep;
}

void volume_set_fetching(struct volume *v, bool on)
{
	struct object *o = v->source->data.object;

	if (on == atomic_exchange(&v->fetching, on))
		return;
	if (on)
		object_keep(o);
	else
		object_let_go(o);
}

struct volume *volume_ref(struct volume *v)
{
	atomic_fetch_add(&v->refs, 1);
	return v;
}

void volume_unref(struct volume *v)
{
	if (atomic_fetch_sub(&v->refs, 1) != 1)
		return;
	if (v->store_limit)
		volume_set_store_limit(v, 0);
	volume_set_keep(v, false);
	volume_set_fetching(v, false);
	image_source_unref(v->source);
	share_unref(v->share);
	pthread_mutex_destroy(&v->lock);
	free(v->roster_text);
	free(v);
}

void volume_count(struct volume *v, struct volume_counters *out)
{
	*out = (struct volume_counters){.reads_origin = atomic_load(&v->origin_reads),
					.bytes_origin = atomic_load(&v->origin_bytes),
					.errors = atomic_load(&v->read_errors),
					.deadlines = atomic_load(&v->deadlines)};
	for (int i = 0; i < VOLUME_STRIPES; i++) {
		out->reads_local += atomic_load_explicit(&v->local[i].reads, memory_order_relaxed);
		out->bytes_local += atomic_load_explicit(&v->local[i].bytes, memory_order_relaxed);
	}
}
