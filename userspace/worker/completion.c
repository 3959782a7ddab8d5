/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/completion.h"

#include <stdlib.h>

#include "base/clock.h"
#include "worker/volume.h"

#define HEAD_REQUEST (STORE_EXTENT / 4)

struct completion_read {
	struct fill_read read;
	struct volume *volume;
};

static void go_on(struct volume *v);

static void read_done(struct fill_read *f, int rc, const char *why)
{
	struct completion_read *r =
		(struct completion_read *)((char *)f - offsetof(struct completion_read, read));
	struct volume *v = r->volume;

	(void)why; /* advice that fails is no failure */
	free(r);
	pthread_mutex_lock(&v->lock);
	v->completion.in_flight--;
	if (rc)
		v->completion.left = 0;
	pthread_mutex_unlock(&v->lock);
	go_on(v);
	volume_unref(v);
}

static uint32_t extent_len(const struct volume *v, uint64_t extent)
{
	uint64_t left = v->export.size - extent * STORE_EXTENT;

	return left < STORE_EXTENT ? (uint32_t)left : STORE_EXTENT;
}

static bool is_resident(const struct volume *v, uint64_t extent)
{
	uint32_t len = extent_len(v, extent);

	return object_resident(v->source->data.object, extent * STORE_EXTENT, len) == len;
}

/* The next extent that is not here, if another may be asked for now. */
static bool take_next(struct volume *v, uint64_t *extent)
{
	struct completion *c = &v->completion;
	bool found = false;

	if (atomic_load(&v->export.closing) || fill_is_cancelled(v->fill))
		c->left = 0;
	while (!found && c->left && (uint64_t)c->in_flight * STORE_EXTENT < v->readahead.max) {
		*extent = c->next;
		c->next = (c->next + 1) % v->density.extents;
		c->left--;
		found = !is_resident(v, *extent);
	}
	c->in_flight += found;
	if (!c->left && !c->in_flight && v->density.whole)
		density_restart(&v->density);
	return found;
}

static void go_on(struct volume *v)
{
	uint64_t extent;
	bool more;

	for (;;) {
		struct completion_read *r = calloc(1, sizeof(*r));

		pthread_mutex_lock(&v->lock);
		if (!r)
			v->completion.left = 0;
		more = take_next(v, &extent);
		pthread_mutex_unlock(&v->lock);
		if (!more) {
			free(r);
			return;
		}
		r->volume = volume_ref(v);
		r->read = (struct fill_read){.source = &v->source->data,
					     .extent = extent,
					     .len = extent_len(v, extent),
					     .class = FILL_PREFETCH,
					     .share = v->share,
					     .done = read_done};
		fill_submit(v->fill, &r->read);
	}
}

static void head_done(struct fill_read *f, int rc, const char *why)
{
	struct completion_read *r =
		(struct completion_read *)((char *)f - offsetof(struct completion_read, read));

	(void)rc, (void)why;
	volume_unref(r->volume);
	free(r);
}

void completion_expect_mount(struct volume *v)
{
	uint32_t len = extent_len(v, 0), n;

	if (v->readahead.max < len || is_resident(v, 0))
		return;
	for (uint32_t off = 0; off < len; off += n) {
		struct completion_read *r = calloc(1, sizeof(*r));

		if (!r)
			return;
		n = len - off < HEAD_REQUEST ? len - off : HEAD_REQUEST;
		r->volume = volume_ref(v);
		r->read = (struct fill_read){.source = &v->source->data,
					     .off = off,
					     .len = n,
					     .class = FILL_PREFETCH,
					     .share = v->share,
					     .done = head_done};
		fill_submit(v->fill, &r->read);
	}
}

static uint64_t store_room(struct store *s)
{
	uint64_t size = store_size(s), used = atomic_load(&store_counters(s)->used);

	return used < size ? size - used : 0;
}

void completion_note(struct volume *v, uint64_t off, uint32_t len)
{
	uint64_t now = clock_now_ns(), room, first, n;
	bool wanted;

	if (!v->readahead.max)
		return;
	room = store_room(v->source->data.object->store);
	pthread_mutex_lock(&v->lock);
	wanted = density_note(&v->density, now, off, len, room, &first, &n);
	if (wanted && (n == v->density.extents || !v->completion.left)) {
		v->completion.next = first;
		v->completion.left = n;
	}
	pthread_mutex_unlock(&v->lock);
	if (wanted)
		go_on(v);
}

void completion_served(struct volume *v, uint64_t off, uint32_t len)
{
	if (density_is_news(&v->density, off, len))
		completion_note(v, off, len);
}
