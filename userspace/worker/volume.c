/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/volume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash/doing.h"
#include "nbd/protocol.h"
#include "store/pages.h"
#include "worker/volume_read.h"

#define PREFETCHES_MAX 256 /* extents asked for ahead and not yet there, per volume */

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

void volume_note_pages(struct object *o, uint64_t off, uint32_t len)
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
	volume_note_pages(v->source->data.object, off, len);
	if (!atomic_load_explicit(&v->streams_awake, memory_order_relaxed))
		return;
	for (int i = 0; i < READAHEAD_STREAMS; i++) {
		if (atomic_load_explicit(&v->wake_extent[i], memory_order_relaxed) == extent) {
			atomic_store(&v->wake_extent[i], UINT64_MAX);
			note_stream(v, off, len, false);
		}
	}
}

static void volume_read(struct nbd_export *e, struct nbd_read *nbd, struct loop *l)
{
	struct volume *v = of_export(e);
	enum volume_read_way way = volume_read_start(v, nbd, l);

	if (way == VOLUME_READ_REFUSED)
		return;
	note_stream(v, nbd->off, nbd->len, way == VOLUME_READ_FILLED);
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
