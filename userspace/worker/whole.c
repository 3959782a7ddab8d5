/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/whole.h"

#include <errno.h>

#include "base/log.h"
#include "worker/exports_impl.h"
#include "worker/promote.h"

#define FETCH_EXTENTS 16 /* on their way at a time */
#define FETCH_PASSES  3	 /* over an image, when extents failed or were evicted meanwhile */

int exports_fetch(struct exports *x, const char *key, bool on, struct export_info *out,
		  struct err *err)
{
	struct volume *v = exports_volume_get(x, key, err);
	char have[24];

	if (!v)
		return -ENOENT;
	if (on && v->source->data.object->id.length > store_size(x->store)) {
		volume_unref(v);
		return err_set(err, -ENOSPC, "the image is larger than the store, which has %s",
			       bytes_format(store_size(x->store), have, sizeof(have)));
	}
	pthread_mutex_lock(&x->lock);
	v->fetch_at = v->fetch_passes = 0;
	volume_set_fetching(v, on);
	exports_changed(v);
	exports_save(x);
	exports_tell(v, out);
	pthread_mutex_unlock(&x->lock);
	promoter_wake(x->promoter);
	volume_unref(v);
	return 0;
}

static void fetch_end(struct exports *x, struct volume *v, bool done)
{
	pthread_mutex_lock(&x->lock);
	volume_set_fetching(v, false);
	exports_changed(v);
	exports_save(x);
	pthread_mutex_unlock(&x->lock);
	log_info("worker", done ? "image fetched" : "image not fetched whole", "export=%s",
		 v->export.name);
}

/* Blocks are delivered before they are stored. */
bool whole_step(struct exports *x, struct volume *v, bool tick)
{
	bool done;

	if (!atomic_load(&v->fetching))
		return false;
	if (!volume_fetch(v, &v->fetch_at, FETCH_EXTENTS) || atomic_load(&v->prefetches))
		return true;
	done = object_has_all(v->source->data.object);
	if (!done && !tick)
		return true;
	if (!done && ++v->fetch_passes < FETCH_PASSES) {
		v->fetch_at = 0;
		return true;
	}
	fetch_end(x, v, done);
	return false;
}
