/* SPDX-License-Identifier: Apache-2.0 */
#include "image/source.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

_Static_assert(BLOCK_SIZE == STORE_BLOCK && EXTENT_SIZE == STORE_EXTENT, "one unit, two names");
_Static_assert(IMAGE_LENGTH_MAX <= OBJECT_LENGTH_MAX, "every image fits an object");

/* A blob's ETag as last seen. Readers hold the pointer without a lock, so a replaced text is kept
 * until the image is closed; a blob changes its ETag a handful of times at most. */
struct image_etag {
	_Atomic(char *) now;
	struct image_etag *older;
};

static struct image_source *of_data(struct fill_source *src)
{
	return (struct image_source *)((char *)src - offsetof(struct image_source, data));
}

static struct image_source *of_tree(struct fill_source *src)
{
	return (struct image_source *)((char *)src - offsetof(struct image_source, tree));
}

/* Turn the manifest part that holds @off into a piece. */
static void part_piece(struct image_source *s, const struct manifest_part *parts, uint32_t n,
		       uint64_t off, enum fill_piece_kind hole, struct fill_piece *out)
{
	const struct manifest_part *p = manifest_find(parts, n, off);
	uint64_t in = off - p->off;

	*out = (struct fill_piece){.kind = hole, .len = p->len - in};
	if (p->blob == MANIFEST_ZERO)
		return;
	out->kind = PIECE_ORIGIN;
	out->origin = s->origin;
	out->name = s->manifest->blobs[p->blob].name;
	out->etag = atomic_load(&s->etags[p->blob].now);
	out->blob_off = p->blob_off + in;
}

static void sealed_piece(struct fill_source *src, uint64_t off, struct fill_piece *out)
{
	struct image_source *s = of_data(src);

	part_piece(s, s->manifest->parts, s->manifest->nparts, off, PIECE_ZERO, out);
}

static void tree_piece(struct fill_source *src, uint64_t off, struct fill_piece *out)
{
	struct image_source *s = of_tree(src);

	part_piece(s, s->manifest->tree_parts, s->manifest->ntree_parts, off, PIECE_MADE, out);
}

static void unsealed_piece(struct fill_source *src, uint64_t off, struct fill_piece *out)
{
	struct image_source *s = of_data(src);

	*out = (struct fill_piece){.kind = PIECE_ORIGIN,
				   .len = s->length - off,
				   .origin = s->origin,
				   .name = s->name,
				   .etag = atomic_load(&s->etags[0].now),
				   .blob_off = off};
}

static enum fill_sum sealed_sum(struct fill_source *src, uint64_t block, uint8_t sum[SHA256_LEN],
				struct fill_source **from, uint64_t *at)
{
	struct image_source *s = of_data(src);

	if (!s->manifest->geometry.levels) {
		memcpy(sum, s->manifest->root, SHA256_LEN);
		return SUM_INLINE;
	}
	*from = &s->tree;
	*at = tree_leaf_off(&s->manifest->geometry, block);
	return SUM_AT;
}

static enum fill_sum tree_sum(struct fill_source *src, uint64_t block, uint8_t sum[SHA256_LEN],
			      struct fill_source **from, uint64_t *at)
{
	struct image_source *s = of_tree(src);

	*at = tree_parent_off(&s->manifest->geometry, block);
	if (*at == UINT64_MAX) {
		memcpy(sum, s->manifest->root, SHA256_LEN);
		return SUM_INLINE;
	}
	*from = &s->tree;
	return SUM_AT;
}

static enum fill_sum unsealed_sum(struct fill_source *src, uint64_t block, uint8_t sum[SHA256_LEN],
				  struct fill_source **from, uint64_t *at)
{
	(void)src, (void)block, (void)sum, (void)from, (void)at;
	return SUM_NONE;
}

static void tree_make(struct fill_source *src, uint64_t block, uint8_t *out)
{
	struct image_source *s = of_tree(src);
	uint32_t level;
	uint64_t index;

	tree_locate(&s->manifest->geometry, block, &level, &index);
	tree_zero_block(&s->manifest->geometry, level, index, out);
}

static bool hashes_decide(struct fill_source *src)
{
	(void)src;
	return true;
}

static bool etag_decides(struct fill_source *src)
{
	(void)src;
	return false;
}

static void etag_is_now(struct image_source *s, const char *name, const char *etag)
{
	for (uint32_t i = 0; i < s->manifest->nblobs; i++) {
		struct image_etag *e = &s->etags[i], *old;
		char *now;

		if (strcmp(s->manifest->blobs[i].name, name) != 0)
			continue;
		now = strdup(etag);
		old = calloc(1, sizeof(*old));
		if (!now || !old) {
			free(now);
			free(old);
			return; /* asked again at the next read */
		}
		old->now = atomic_exchange(&e->now, now);
		do
			old->older = __atomic_load_n(&e->older, __ATOMIC_ACQUIRE);
		while (!__sync_bool_compare_and_swap(&e->older, old->older, old));
		log_info("image", "blob has a new ETag and the same bytes", "blob=%s etag=%s %s",
			 name, etag, s->what);
		return;
	}
}

static void data_blob_is_now(struct fill_source *src, const char *name, const char *etag)
{
	etag_is_now(of_data(src), name, etag);
}

static void tree_blob_is_now(struct fill_source *src, const char *name, const char *etag)
{
	etag_is_now(of_tree(src), name, etag);
}

static void nothing_is_now(struct fill_source *src, const char *name, const char *etag)
{
	(void)src, (void)name, (void)etag;
}

static void data_describe(struct fill_source *src, char *buf, size_t len)
{
	snprintf(buf, len, "%s", of_data(src)->what);
}

static void tree_describe(struct fill_source *src, char *buf, size_t len)
{
	snprintf(buf, len, "tree of %.480s", of_tree(src)->what);
}

static void data_ref(struct fill_source *src)
{
	atomic_fetch_add(&of_data(src)->refs, 1);
}

static void data_unref(struct fill_source *src)
{
	image_source_unref(of_data(src));
}

static void tree_ref(struct fill_source *src)
{
	atomic_fetch_add(&of_tree(src)->refs, 1);
}

static void tree_unref(struct fill_source *src)
{
	image_source_unref(of_tree(src));
}

static const struct fill_source_ops sealed_ops = {
	.piece = sealed_piece,
	.sum = sealed_sum,
	.may_change = hashes_decide,
	.blob_is_now = data_blob_is_now,
	.ref = data_ref,
	.unref = data_unref,
	.describe = data_describe,
};

static const struct fill_source_ops tree_ops = {
	.piece = tree_piece,
	.sum = tree_sum,
	.make = tree_make,
	.may_change = hashes_decide,
	.blob_is_now = tree_blob_is_now,
	.ref = tree_ref,
	.unref = tree_unref,
	.describe = tree_describe,
};

static const struct fill_source_ops unsealed_ops = {
	.piece = unsealed_piece,
	.sum = unsealed_sum,
	.may_change = etag_decides,
	.blob_is_now = nothing_is_now,
	.ref = data_ref,
	.unref = data_unref,
	.describe = data_describe,
};

static uint64_t device_length(uint64_t length)
{
	return (length + DEVICE_ALIGN - 1) / DEVICE_ALIGN * DEVICE_ALIGN;
}

static struct image_source *source_new(struct fill *fill, struct origin *origin, const char *name,
				       uint64_t length, uint32_t nblobs)
{
	struct image_source *s = calloc(1, sizeof(*s));
	char url[400];

	if (!s)
		return NULL;
	s->refs = 1;
	s->etags = calloc(nblobs ? nblobs : 1, sizeof(*s->etags));
	s->name = strdup(name);
	s->origin = origin_ref(origin);
	s->length = length;
	s->device_len = device_length(length);
	s->data.fill = s->tree.fill = fill;
	snprintf(s->what, sizeof(s->what), "image %s", origin_url(origin, name, url, sizeof(url)));
	if (!s->etags || !s->name) {
		image_source_unref(s);
		return NULL;
	}
	return s;
}

static int open_objects(struct store *store, struct image_source *s, struct err *err)
{
	struct manifest *m = s->manifest;
	struct object_id id = {.kind = OBJECT_IMAGE, .length = s->device_len};
	int rc;

	memcpy(id.id, m->digest, SHA256_LEN);
	rc = object_open(store, &id, false, &s->data.object, err);
	if (!rc)
		crash_subject_init(&s->data.subject, "", s->data.object->name);
	if (rc || !m->geometry.levels)
		return rc;
	id.kind = OBJECT_TREE;
	id.length = m->geometry.tree_len;
	rc = object_open(store, &id, false, &s->tree.object, err);
	if (!rc)
		crash_subject_init(&s->tree.subject, "", s->tree.object->name);
	return rc;
}

int image_source_sealed(struct store *store, struct fill *fill, struct origin *origin,
			const char *name, struct manifest **manifest, struct image_source **out,
			struct err *err)
{
	struct manifest *m = *manifest;
	struct image_source *s = source_new(fill, origin, name, m->length, m->nblobs);
	int rc;

	*manifest = NULL;
	if (!s) {
		manifest_free(m);
		return err_set(err, -ENOMEM, "out of memory");
	}
	s->manifest = m;
	s->data.ops = &sealed_ops;
	s->tree.ops = &tree_ops;
	for (uint32_t i = 0; i < m->nblobs; i++)
		s->etags[i].now = strdup(m->blobs[i].etag ? m->blobs[i].etag : "");
	rc = open_objects(store, s, err);
	if (rc) {
		image_source_unref(s);
		return rc;
	}
	*out = s;
	return 0;
}

/* Another ETag or length at the same URL is another object. A server that gives no ETag can't say
 * that the bytes are still the same, so what was stored before is not used again. */
static void unsealed_id(const struct image_source *s, const struct origin_stat *stat,
			struct object_id *id)
{
	char text[ORIGIN_URL_MAX + ORIGIN_ETAG_MAX + 128], url[ORIGIN_URL_MAX];
	uint64_t once = stat->etag[0] ? 0 : clock_now_ns();
	int n = snprintf(text, sizeof(text), "cairn-unsealed-v1\n%s\n%s\n%llu\n%llu\n",
			 origin_url(s->origin, s->name, url, sizeof(url)), stat->etag,
			 (unsigned long long)stat->length, (unsigned long long)once);

	*id = (struct object_id){.kind = OBJECT_IMAGE, .length = s->device_len};
	sha256(text, (size_t)n, id->id);
}

int image_source_unsealed(struct store *store, struct fill *fill, struct origin *origin,
			  const char *name, const struct origin_stat *stat,
			  struct image_source **out, struct err *err)
{
	struct image_source *s;
	struct object_id id;
	char url[512];
	int rc;

	origin_url(origin, name, url, sizeof(url));
	if (!stat->length)
		return err_set(err, -EINVAL, "%s is empty: an image has at least 1 byte", url);
	if (stat->length > IMAGE_LENGTH_MAX)
		return err_set(err, -EFBIG, "%s is longer than an image may be (1 PiB)", url);
	s = source_new(fill, origin, name, stat->length, 1);
	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->data.ops = &unsealed_ops;
	s->etags[0].now = strdup(stat->etag);
	memcpy(s->etag, stat->etag, sizeof(s->etag));
	unsealed_id(s, stat, &id);
	rc = object_open(store, &id, true, &s->data.object, err);
	if (rc) {
		image_source_unref(s);
		return rc;
	}
	crash_subject_init(&s->data.subject, "", s->data.object->name);
	*out = s;
	return 0;
}

void image_source_unref(struct image_source *s)
{
	uint32_t n = s->manifest ? s->manifest->nblobs : 1;

	if (atomic_fetch_sub(&s->refs, 1) != 1)
		return;
	for (uint32_t i = 0; s->etags && i < n; i++) {
		free(s->etags[i].now);
		for (struct image_etag *e = s->etags[i].older, *older; e; e = older) {
			older = e->older;
			free(e->now);
			free(e);
		}
	}
	if (s->data.object)
		object_close(s->data.object);
	if (s->tree.object)
		object_close(s->tree.object);
	manifest_free(s->manifest);
	origin_unref(s->origin);
	free(s->etags);
	free(s->name);
	free(s);
}

bool image_source_hole(struct image_source *s, uint64_t off, uint64_t *n)
{
	struct fill_piece piece;

	if (off >= s->length) {
		*n = s->device_len - off;
		return true;
	}
	s->data.ops->piece(&s->data, off, &piece);
	*n = piece.len;
	return piece.kind == PIECE_ZERO;
}
