/* SPDX-License-Identifier: Apache-2.0 */
/* One object: its files and words, made, loaded and let go. What changes them is in publish.c. */
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

static void *words_new(uint64_t n, size_t size)
{
	void *p = mmap(NULL, n * size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void words_free(void *p, uint64_t n, size_t size)
{
	if (p)
		munmap(p, n * size);
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void object_free(struct object *o)
{
	words_free(o->ready, o->extents, 8);
	words_free(o->suspect, o->extents, 8);
	words_free(o->stored, o->extents, 8);
	words_free(o->heat, o->extents, 1);
	words_free(o->pins, o->extents, 4);
	close_fd(o->sums_fd);
	close_fd(o->present_fd);
	close_fd(o->data_fd);
	close_fd(o->dir_fd);
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
	o->heat = words_new(o->extents, 1);
	o->pins = words_new(o->extents, 4);
	if (!o->ready || !o->suspect || !o->stored || !o->heat || !o->pins)
		return -ENOMEM;
	o->set = (struct evict_set){o->extents, o->stored, o->heat, o->pins, &o->kept};
	return 0;
}

static int open_file(struct object *o, const char *name, int *fd)
{
	*fd = openat(o->dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	return *fd < 0 ? -errno : 0;
}

/* One that was being sealed when its process ended has no mark yet, but the mode. */
static int open_data(struct object *o)
{
	int rc = open_file(o, "data", &o->data_fd);

	if (rc != -EACCES || fchmodat(o->dir_fd, "data", 0600, 0))
		return rc;
	return open_file(o, "data", &o->data_fd);
}

/* Give the data file its length; a file of another length was not left so by us. */
static int fit_data(struct object *o, bool *was_right)
{
	struct stat st;

	if (fstat(o->data_fd, &st) < 0)
		return -errno;
	*was_right = (uint64_t)st.st_size == o->id.length;
	if (!*was_right && ftruncate(o->data_fd, (off_t)o->id.length) < 0)
		return -errno;
	return 0;
}

static int object_open_files(struct object *o, bool own_sums, bool *was_right)
{
	int rc;

	o->dir_fd = openat(o->store->objects_fd, o->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o->dir_fd < 0)
		return -errno;
	o->sealed = object_open_sealed(o);
	rc = o->sealed ? 0 : open_data(o);
	if (!rc)
		rc = open_file(o, "present", &o->present_fd);
	if (!rc && own_sums)
		rc = open_file(o, "sums", &o->sums_fd);
	if (!rc && o->sealed && !object_is_vouched(o))
		rc = object_unseal(o);
	return rc ? rc : fit_data(o, was_right);
}

static struct object *object_new(struct store *s, const struct object_id *id)
{
	struct object *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->store = s;
	o->id = *id;
	o->dir_fd = o->data_fd = o->present_fd = o->sums_fd = -1;
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
	bool was_right;
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
	o = object_new(s, &id);
	if (!o)
		return err_set(err, -ENOMEM, "out of memory");
	rc = object_open_files(o, own_sums, &was_right);
	if (rc) {
		object_free(o);
		return err_set(err, rc, "%s/objects/%s: %s", s->path, name, strerror(-rc));
	}
	load_present(o, o->sealed || clean_vouches(clean, o));
	if (o->sealed)
		load_sealed(o);
	object_load_promoted(o);
	atomic_fetch_add(&s->counters.used, o->stored_blocks * STORE_BLOCK);
	*out = o;
	return 0;
}

static int object_make(struct store *s, const struct object_id *id, bool own_sums,
		       struct object **out)
{
	struct object *o = object_new(s, id);
	bool was_right;
	char meta[128];
	int rc, n;

	if (!o)
		return -ENOMEM;
	rc = mkdirat(s->objects_fd, o->name, 0700) < 0 && errno != EEXIST ? -errno : 0;
	if (!rc)
		rc = object_open_files(o, own_sums, &was_right);
	if (!rc && ftruncate(o->present_fd, (off_t)(o->extents * 8)) < 0)
		rc = -errno;
	n = snprintf(meta, sizeof(meta), META_FORMAT, id->length, own_sums);
	if (!rc)
		rc = attr_write(o->dir_fd, "meta", meta, (size_t)n);
	if (rc) {
		object_free(o);
		return rc;
	}
	*out = o;
	return 0;
}

int store_add(struct store *s, struct object *o)
{
	if (s->nobjects == s->cap) {
		uint64_t cap = s->cap ? s->cap * 2 : 64;
		void *objects = reallocarray(s->objects, cap, sizeof(*s->objects));
		void *sets;

		if (!objects)
			return -ENOMEM;
		s->objects = objects;
		sets = reallocarray(s->sets, cap, sizeof(*s->sets));
		if (!sets)
			return -ENOMEM;
		s->sets = sets;
		s->cap = cap;
	}
	s->sets[s->nobjects] = &o->set;
	s->objects[s->nobjects++] = o;
	return 0;
}

static struct object *store_find(struct store *s, const char *name)
{
	for (uint64_t i = 0; i < s->nobjects; i++)
		if (strcmp(s->objects[i]->name, name) == 0)
			return s->objects[i];
	return NULL;
}

int object_open(struct store *s, const struct object_id *id, bool own_sums, struct object **out,
		struct err *err)
{
	struct object *o;
	char name[80];
	int rc = 0;

	object_name(id, name);
	pthread_mutex_lock(&s->lock);
	o = store_find(s, name);
	if (o && (o->id.length != id->length || (o->sums_fd >= 0) != own_sums))
		rc = err_set(err, -EINVAL,
			     "store %s holds %s with length %" PRIu64 ", not %" PRIu64, s->path,
			     name, o->id.length, id->length);
	if (!o && !rc) {
		rc = object_make(s, id, own_sums, &o);
		if (rc == -ENOSPC && store_evict_locked(s, MAKE_ROOM))
			rc = object_make(s, id, own_sums, &o);
		if (!rc)
			rc = store_add(s, o);
		if (rc == -EFBIG)
			err_set(err, rc,
				"store %s: its file system does not allow a file of %" PRIu64
				" bytes (ext4 ends at 16 TiB); put the store on xfs",
				s->path, id->length);
		else if (rc)
			err_set(err, rc, "store %s: can't make object %s: %s", s->path, name,
				strerror(-rc));
	}
	if (!rc)
		o->users++;
	pthread_mutex_unlock(&s->lock);
	if (!rc)
		*out = o;
	return rc;
}

void object_close(struct object *o)
{
	atomic_fetch_sub(&o->users, 1);
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
