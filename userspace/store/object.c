/* SPDX-License-Identifier: Apache-2.0 */
/* One object: its folder and words, made, loaded and let go. What changes them is in publish.c. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "store/store_impl.h"

#define META_FORMAT "cairn-object 1 length %" SCNu64 " sums %d\n"

#define MAKE_ROOM MIB /* for names, and words of a sparse file: a new object on a full disk */

static const char *const kind_names[] = {[OBJECT_IMAGE] = "image", [OBJECT_TREE] = "tree"};

#define WORDS_SMALL 4096 /* bytes; less is not worth a page of its own */

static void *words_new(uint64_t n, size_t size)
{
	void *p;

	if (n * size < WORDS_SMALL)
		return calloc(n, size);
	p = mmap(NULL, n * size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void words_free(void *p, uint64_t n, size_t size)
{
	if (n * size < WORDS_SMALL)
		free(p);
	else if (p)
		munmap(p, n * size);
}

void object_free(struct object *o)
{
	words_free(o->ready, o->extents, 8);
	words_free(o->suspect, o->extents, 8);
	words_free(o->stored, o->extents, 8);
	words_free(o->wanted, o->extents, 8);
	words_free(o->use, o->extents, 8);
	words_free(o->pins, o->extents, 4);
	object_pages_free(o);
	pthread_mutex_destroy(&o->files_lock);
	free(o);
}

static void object_name(const struct object_id *id, char name[80])
{
	char hex[2 * SHA256_LEN + 1];

	hex_encode(id->id, SHA256_LEN, hex);
	snprintf(name, 80, "%s-%s", kind_names[id->kind], hex);
}

static int object_parse_name(const char *name, struct object_id *id)
{
	for (int k = OBJECT_IMAGE; k <= OBJECT_TREE; k++) {
		size_t n = strlen(kind_names[k]);

		if (strncmp(name, kind_names[k], n) == 0 && name[n] == '-') {
			id->kind = (enum object_kind)k;
			return hex_decode(name + n + 1, id->id, SHA256_LEN);
		}
	}
	return -EINVAL;
}

static int object_alloc_words(struct object *o)
{
	o->extents = (o->id.length + STORE_EXTENT - 1) / STORE_EXTENT;
	o->ready = words_new(o->extents, 8);
	o->suspect = words_new(o->extents, 8);
	o->stored = words_new(o->extents, 8);
	o->wanted = words_new(o->extents, 8);
	o->use = words_new(o->extents, 8);
	o->pins = words_new(o->extents, 4);
	if (!o->ready || !o->suspect || !o->stored || !o->wanted || !o->use || !o->pins)
		return -ENOMEM;
	o->set = (struct evict_set){.extents = o->extents,
				    .stored = o->stored,
				    .use = o->use,
				    .pins = o->pins,
				    .kept = &o->kept};
	return 0;
}

/* Open, and with a data file of the right length: one of another was not left so by us. */
static int open_fitted(struct object *o)
{
	struct stat st;
	int rc = object_files_open(o);

	if (rc)
		return rc;
	if (fstat(o->data_fd, &st) < 0 || ((uint64_t)st.st_size != o->id.length &&
					   ftruncate(o->data_fd, (off_t)o->id.length) < 0)) {
		rc = -errno;
		object_files_close(o);
	}
	return rc;
}

static struct object *object_new(struct store *s, const struct object_id *id, bool own_sums)
{
	struct object *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->store = s;
	o->evict = &s->evict;
	o->id = *id;
	o->own_sums = own_sums;
	o->data_fd = o->present_fd = o->sums_fd = -1;
	o->direct_fd = -1;
	pthread_mutex_init(&o->files_lock, NULL);
	object_name(id, o->name);
	if (object_alloc_words(o) < 0) {
		object_free(o);
		return NULL;
	}
	return o;
}

/* Bits beyond the object's end would name blocks that are not there. */
uint64_t object_mask(const struct object *o, uint64_t extent)
{
	uint64_t blocks =
		(o->id.length + STORE_BLOCK - 1) / STORE_BLOCK - extent * STORE_EXTENT_BLOCKS;

	return blocks_mask(0, blocks < 64 ? (uint32_t)blocks : 64);
}

void object_list(struct object *o, uint64_t extent)
{
	if (use_place(atomic_load(&o->set.use[extent])))
		return;
	pthread_mutex_lock(&o->store->evict_lock);
	evict_stored(o->evict, &o->set, extent);
	pthread_mutex_unlock(&o->store->evict_lock);
}

/* The policy knows it from now on, so it may not be freed before the store is. */
static int object_enter(struct object *o)
{
	int rc;

	pthread_mutex_lock(&o->store->evict_lock);
	rc = evict_add(o->evict, &o->set);
	pthread_mutex_unlock(&o->store->evict_lock);
	return rc;
}

/* Read the present file's data (it is sparse). What a clean mark vouches for is ready, the rest
 * suspect. */
static void load_present(struct object *o, bool vouched)
{
	_Atomic uint64_t *state = vouched ? o->ready : o->suspect;
	uint64_t buf[512];
	off_t at = 0, end = (off_t)(o->extents * 8);

	while (at < end && (at = lseek(o->present_fd, at, SEEK_DATA)) >= 0 && at < end) {
		ssize_t n;

		at &= ~7L;
		n = pread(o->present_fd, buf, sizeof(buf), at);
		if (n < 8)
			break;
		for (ssize_t i = 0; i < n / 8; i++) {
			uint64_t extent = (uint64_t)at / 8 + (uint64_t)i, word;

			if (extent >= o->extents)
				break;
			word = le64toh(buf[i]) & object_mask(o, extent);
			if (!word)
				continue; /* zeros must not touch the words' pages */
			atomic_store(&o->stored[extent], word);
			atomic_store(&state[extent], word);
			o->stored_blocks += (uint64_t)__builtin_popcountll(word);
			object_list(o, extent);
		}
		at += n / 8 * 8;
	}
}

/* Its seal vouches for all of it: what is not stored is zeros. */
static void load_sealed(struct object *o)
{
	uint64_t blocks = (o->id.length + STORE_BLOCK - 1) / STORE_BLOCK;

	for (uint64_t i = 0; i < o->extents; i++)
		atomic_store(&o->ready[i], object_mask(o, i));
	o->zero_blocks = blocks - o->stored_blocks;
}

int object_load(struct store *s, const char *name, const struct clean *clean, struct object **out,
		struct err *err)
{
	struct object_id id;
	struct object *o;
	char *meta = NULL, path[160];
	size_t len;
	int own_sums, rc = object_parse_name(name, &id);

	if (rc)
		return rc;
	snprintf(path, sizeof(path), "%s/meta", name);
	rc = attr_read(s->objects_fd, path, 256, &meta, &len);
	if (rc)
		return err_set(err, rc, "%s/objects/%s: no meta file", s->path, name);
	rc = sscanf(meta, META_FORMAT, &id.length, &own_sums) == 2 ? 0 : -EINVAL;
	free(meta);
	if (rc || !id.length || id.length > OBJECT_LENGTH_MAX)
		return err_set(err, -EINVAL, "%s/objects/%s: meta file not understood", s->path,
			       name);
	o = object_new(s, &id, own_sums);
	if (!o)
		return err_set(err, -ENOMEM, "out of memory");
	o->sealed = object_is_marked(o);
	rc = open_fitted(o);
	if (!rc && ((o->sealed && !object_is_vouched(o) && (rc = object_unseal(o))) ||
		    (rc = object_enter(o))))
		object_files_close(o);
	if (rc) {
		object_free(o);
		return err_set(err, rc, "%s/objects/%s: %s", s->path, name, strerror(-rc));
	}
	load_present(o, o->sealed || clean_vouches(clean, o));
	if (o->sealed)
		load_sealed(o);
	object_load_promoted(o);
	object_files_close(o);
	atomic_fetch_add(&s->counters.used, o->stored_blocks * STORE_BLOCK);
	*out = o;
	return 0;
}

static int write_meta(struct object *o)
{
	int dir = openat(o->store->objects_fd, o->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc, n;
	char meta[128];

	if (dir < 0)
		return -errno;
	n = snprintf(meta, sizeof(meta), META_FORMAT, o->id.length, (int)o->own_sums);
	rc = attr_write(dir, "meta", meta, (size_t)n);
	close(dir);
	return rc;
}

/* The object's folder and files, open. */
static int make_files(struct object *o)
{
	int rc = mkdirat(o->store->objects_fd, o->name, 0700) < 0 && errno != EEXIST ? -errno : 0;

	if (!rc)
		rc = open_fitted(o);
	if (rc)
		return rc;
	if (ftruncate(o->present_fd, (off_t)(o->extents * 8)) < 0)
		rc = -errno;
	if (!rc)
		rc = write_meta(o);
	if (rc)
		object_files_close(o);
	return rc;
}

static int object_make(struct store *s, const struct object_id *id, bool own_sums,
		       struct object **out)
{
	struct object *o = object_new(s, id, own_sums);
	int rc;

	if (!o)
		return -ENOMEM;
	rc = make_files(o);
	if (rc == -ENOSPC && store_evict(s, MAKE_ROOM))
		rc = make_files(o);
	if (rc) {
		object_free(o);
		return rc;
	}
	pthread_mutex_lock(&s->lock);
	rc = store_make_room(s);
	if (!rc)
		rc = object_enter(o);
	if (!rc)
		rc = store_add(s, o);
	pthread_mutex_unlock(&s->lock);
	if (rc) {
		object_files_close(o);
		object_free(o);
		return rc;
	}
	*out = o;
	return 0;
}

/* Its folder may be gone: then it is made anew, and nothing of it is believed. */
static int open_again(struct object *o)
{
	int rc = open_fitted(o);

	return rc == -ENOENT ? make_files(o) : rc;
}

static int make_or_open(struct store *s, const struct object_id *id, bool own_sums,
			struct object **out, struct err *err)
{
	struct object *o;
	char name[80];
	int rc;

	object_name(id, name);
	pthread_mutex_lock(&s->lock);
	o = store_find(s, id);
	pthread_mutex_unlock(&s->lock);
	if (o && (o->id.length != id->length || o->own_sums != own_sums))
		return err_set(err, -EINVAL,
			       "store %s holds %s with length %" PRIu64 ", not %" PRIu64, s->path,
			       name, o->id.length, id->length);
	rc = o ? open_again(o) : object_make(s, id, own_sums, &o);
	if (rc == -EFBIG)
		return err_set(err, rc,
			       "store %s: its file system does not allow a file of %" PRIu64
			       " bytes (ext4 ends at 16 TiB); put the store on xfs",
			       s->path, id->length);
	if (rc)
		return err_set(err, rc, "store %s: can't make object %s: %s", s->path, name,
			       strerror(-rc));
	*out = o;
	return 0;
}

/* A new object waits for the disk, and nobody who wants the store's lock waits with it. */
int object_open(struct store *s, const struct object_id *id, bool own_sums, struct object **out,
		struct err *err)
{
	int rc;

	pthread_mutex_lock(&s->opening);
	rc = make_or_open(s, id, own_sums, out, err);
	if (!rc)
		(*out)->users++;
	pthread_mutex_unlock(&s->opening);
	return rc;
}

void object_close(struct object *o)
{
	atomic_fetch_sub(&o->users, 1);
	object_files_close(o);
}

uint32_t object_resident(const struct object *o, uint64_t off, uint32_t len)
{
	uint64_t end = off + len, at = off;

	while (at < end) {
		uint64_t extent = at / STORE_EXTENT;
		uint64_t word = atomic_load_explicit(&o->ready[extent], memory_order_acquire);
		uint32_t block = (uint32_t)(at % STORE_EXTENT / STORE_BLOCK), run;

		word >>= block;
		run = ~word ? (uint32_t)__builtin_ctzll(~word) : 64;
		if (run > STORE_EXTENT_BLOCKS - block)
			run = STORE_EXTENT_BLOCKS - block;
		if (!run)
			break;
		at = extent * STORE_EXTENT + (uint64_t)(block + run) * STORE_BLOCK;
		if (block + run < STORE_EXTENT_BLOCKS)
			break;
	}
	return at <= off ? 0 : (uint32_t)((at < end ? at : end) - off);
}

void object_pin(struct object *o, uint64_t extent)
{
	pthread_mutex_lock(&o->store->lock);
	atomic_fetch_add(&o->pins[extent], 1);
	pthread_mutex_unlock(&o->store->lock);
}

void object_hold(struct object *o, uint64_t extent)
{
	atomic_fetch_add(&o->pins[extent], 1);
}

void object_unpin(struct object *o, uint64_t extent)
{
	atomic_fetch_sub(&o->pins[extent], 1);
}

void object_keep(struct object *o)
{
	pthread_mutex_lock(&o->store->lock);
	atomic_fetch_add(&o->kept, 1);
	pthread_mutex_unlock(&o->store->lock);
}

void object_let_go(struct object *o)
{
	atomic_fetch_sub(&o->kept, 1);
}
