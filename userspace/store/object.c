/* SPDX-License-Identifier: Apache-2.0 */
/* One object: its files, its words, and the order in which they change.
 *
 * Publish: data, then the present word, then `ready`. Hide: `ready` and the present word, then
 * (after quiesce_wait) the hole. So at no moment does the present file name a block whose bytes may
 * be gone.
 */
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
	o->set = (struct evict_set){o->extents, o->stored, o->heat, o->pins, false};
	return 0;
}

static int open_file(struct object *o, const char *name, int *fd)
{
	*fd = openat(o->dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	return *fd < 0 ? -errno : 0;
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
	rc = open_file(o, "data", &o->data_fd);
	if (!rc)
		rc = open_file(o, "present", &o->present_fd);
	if (!rc && own_sums)
		rc = open_file(o, "sums", &o->sums_fd);
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
static uint64_t valid_mask(const struct object *o, uint64_t extent)
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
			word = le64toh(buf[i]) & valid_mask(o, extent);
			if (!word)
				continue; /* zeros must not touch the words' pages */
			atomic_store(&o->stored[extent], word);
			atomic_store(&state[extent], word);
			o->stored_blocks += (uint64_t)__builtin_popcountll(word);
		}
		at += n / 8 * 8;
	}
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
	load_present(o, clean_vouches(clean, o));
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

int store_object_attr_read(struct store *s, const struct object_id *id, const char *attr,
			   size_t limit, char **buf, size_t *len)
{
	char path[256];

	object_name(id, path);
	strncat(path, "/", sizeof(path) - strlen(path) - 1);
	strncat(path, attr, sizeof(path) - strlen(path) - 1);
	return attr_read(s->objects_fd, path, limit, buf, len);
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

void object_pin_all(struct object *o, bool pinned)
{
	pthread_mutex_lock(&o->store->lock);
	o->set.pinned = pinned;
	pthread_mutex_unlock(&o->store->lock);
}

static int write_present(struct object *o, uint64_t extent, uint64_t word)
{
	uint64_t le = htole64(word);

	return pwrite_all(o->present_fd, &le, sizeof(le), extent * 8);
}

/* Bytes of @n blocks from @first on that lie within the object. */
static uint64_t span(const struct object *o, uint64_t first, uint32_t n)
{
	uint64_t off = first * STORE_BLOCK, end = (first + n) * (uint64_t)STORE_BLOCK;

	return (end < o->id.length ? end : o->id.length) - off;
}

static int write_blocks(struct object *o, uint64_t first, uint32_t n, const void *data,
			const uint8_t (*sums)[SHA256_LEN])
{
	int rc = pwrite_all(o->data_fd, data, span(o, first, n), first * STORE_BLOCK);

	if (!rc && o->sums_fd >= 0)
		rc = pwrite_all(o->sums_fd, sums, (size_t)n * SHA256_LEN, first * SHA256_LEN);
	return rc;
}

/* A data file that someone cut short would be made whole again by the next write beyond its end,
 * with zeros where stored blocks were. So what is beyond the end stops being believed, and readers
 * that still may have their eyes on it are waited for, before the file gets its length back. */
static int mend_length(struct object *o)
{
	struct stat st;
	uint64_t from;

	if (fstat(o->data_fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size >= o->id.length)
		return 0;
	log_warn("store", "data file was cut short; what is beyond its end is rechecked",
		 "object=%s bytes=%" PRIu64 " of=%" PRIu64, o->name, (uint64_t)st.st_size,
		 o->id.length);
	from = (uint64_t)st.st_size / STORE_BLOCK;
	for (uint64_t e = from / STORE_EXTENT_BLOCKS; e < o->extents; e++) {
		uint64_t first = e * STORE_EXTENT_BLOCKS;

		object_suspect(o, e, first >= from ? ~0ULL : ~0ULL << (from - first));
	}
	quiesce_wait(&o->store->quiesce);
	return ftruncate(o->data_fd, (off_t)o->id.length) < 0 ? -errno : 0;
}

int object_publish(struct object *o, uint64_t first, uint32_t n, const void *data,
		   const uint8_t (*sums)[SHA256_LEN])
{
	struct store *s = o->store;
	uint64_t extent = first / STORE_EXTENT_BLOCKS, bytes = (uint64_t)n * STORE_BLOCK;
	uint64_t mask = blocks_mask((uint32_t)(first % STORE_EXTENT_BLOCKS), n), was, now;
	int rc = store_reserve(s, bytes), again;

	if (rc)
		return rc;
	rc = mend_length(o);
	if (!rc)
		rc = write_blocks(o, first, n, data, sums);
	if (rc == -ENOSPC &&
	    store_evict(s, bytes + 16 * MIB)) /* the disk is smaller than we think */
		rc = write_blocks(o, first, n, data, sums);
	was = atomic_load(&o->stored[extent]);
	now = was | mask;
	if (!rc)
		rc = write_present(o, extent, now);
	if (rc) {
		object_punch(o, extent, mask & ~was);
		store_unreserve(s, bytes);
		atomic_fetch_add(&s->counters.write_errors, 1);
		return rc;
	}
	again = __builtin_popcountll(mask & was); /* two images may share the object */
	store_unreserve(s, (uint64_t)again * STORE_BLOCK);
	atomic_fetch_add(&o->stored_blocks, (uint64_t)(n - (uint32_t)again));
	atomic_fetch_and(&o->suspect[extent], ~mask);
	atomic_store(&o->stored[extent], now);
	atomic_fetch_or_explicit(&o->ready[extent], mask, memory_order_release);
	return 0;
}

void object_publish_zero(struct object *o, uint64_t extent, uint64_t mask)
{
	uint64_t was = atomic_fetch_or_explicit(&o->ready[extent], mask, memory_order_release);

	atomic_fetch_add(&o->zero_blocks, (uint64_t)__builtin_popcountll(mask & ~was));
}

void object_trust(struct object *o, uint64_t extent, uint64_t mask)
{
	atomic_fetch_and(&o->suspect[extent], ~mask);
	atomic_fetch_or_explicit(&o->ready[extent], mask, memory_order_release);
	atomic_fetch_add(&o->store->counters.rechecked_blocks,
			 (uint64_t)__builtin_popcountll(mask));
}

void object_suspect(struct object *o, uint64_t extent, uint64_t mask)
{
	mask &= atomic_load(&o->stored[extent]);
	atomic_fetch_or(&o->suspect[extent], mask);
	atomic_fetch_and(&o->ready[extent], ~mask);
}

void object_forget(struct object *o, uint64_t extent, uint64_t mask)
{
	uint64_t was = atomic_load(&o->stored[extent]) & mask;
	uint64_t left = atomic_load(&o->stored[extent]) & ~mask;

	if (!was)
		return;
	atomic_fetch_and(&o->ready[extent], ~mask);
	if (write_present(o, extent, left) < 0)
		return; /* stays suspect: it is looked at again, never believed */
	atomic_fetch_and(&o->suspect[extent], ~mask);
	atomic_store(&o->stored[extent], left);
	atomic_fetch_sub(&o->stored_blocks, (uint64_t)__builtin_popcountll(was));
	quiesce_wait(&o->store->quiesce);
	object_punch(o, extent, was);
	store_unreserve(o->store, (uint64_t)__builtin_popcountll(was) * STORE_BLOCK);
	atomic_fetch_add(&o->store->counters.recheck_failures, (uint64_t)__builtin_popcountll(was));
}

int object_hide(struct object *o, uint64_t extent, uint64_t *mask)
{
	uint64_t was = atomic_load(&o->stored[extent]), visible;
	int rc;

	/* Zero blocks stay ready: the hole that is left reads as zeros. */
	visible = atomic_fetch_and(&o->ready[extent], ~was) & was;
	/* object_hold() counts, then looks at `ready`; here it is the other way round, so one of
	 * the two sees the other. */
	rc = atomic_load(&o->pins[extent]) ? -EBUSY : write_present(o, extent, 0);
	if (rc) {
		atomic_fetch_or(&o->ready[extent], visible);
		if (rc != -EBUSY)
			atomic_fetch_add(&o->store->counters.write_errors, 1);
		return rc;
	}
	atomic_store(&o->suspect[extent], 0);
	atomic_store(&o->stored[extent], 0);
	atomic_fetch_sub(&o->stored_blocks, (uint64_t)__builtin_popcountll(was));
	*mask = was;
	return 0;
}

void object_punch(struct object *o, uint64_t extent, uint64_t mask)
{
	while (mask) {
		uint32_t first = (uint32_t)__builtin_ctzll(mask);
		uint64_t rest = ~(mask >> first);
		uint32_t n = rest ? (uint32_t)__builtin_ctzll(rest) : 64;

		if (n > 64 - first)
			n = 64 - first;
		fallocate(o->data_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  (off_t)(extent * STORE_EXTENT + (uint64_t)first * STORE_BLOCK),
			  (off_t)n * STORE_BLOCK);
		mask &= ~blocks_mask(first, n);
	}
}

int object_read_block(struct object *o, uint64_t block, void *buf)
{
	uint64_t n = span(o, block, 1);

	memset((char *)buf + n, 0, STORE_BLOCK - n);
	return pread_all(o->data_fd, buf, n, block * STORE_BLOCK);
}

int object_read_sum(struct object *o, uint64_t block, uint8_t out[SHA256_LEN])
{
	if (o->sums_fd < 0)
		return -ENOENT;
	return pread_all(o->sums_fd, out, SHA256_LEN, block * SHA256_LEN);
}

void object_usage(const struct object *o, uint64_t *stored, uint64_t *zero)
{
	*stored = atomic_load(&o->stored_blocks) * STORE_BLOCK;
	*zero = atomic_load(&o->zero_blocks) * STORE_BLOCK;
}
