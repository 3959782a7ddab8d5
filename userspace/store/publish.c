/* SPDX-License-Identifier: Apache-2.0 */
/* How an object's blocks appear and go, and the order in which its files and words change.
 *
 * Publish: data, then the present word, then `ready`. Hide: `ready` and the present word, then
 * (after quiesce_wait) the hole. So at no moment does the present file name a block whose bytes may
 * be gone.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "store/pages.h"
#include "store/store_impl.h"

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

/* Folios of the page cache are as large as the write that makes them. A resident 4 KiB read of
 * those of 1 MiB takes 0.7 of the time that it takes of those of 64 KiB; those of 2 MiB cost a fill
 * twice its CPU time in a guest, where the host has to find memory for large free areas. */
#define WRITE_BYTES (1U << 20)

static int write_blocks(struct object *o, uint64_t first, uint32_t n, const void *data,
			const uint8_t (*sums)[SHA256_LEN])
{
	uint64_t off = first * STORE_BLOCK, len = span(o, first, n);
	int rc = 0;

	for (uint64_t at = 0; !rc && at < len; at += WRITE_BYTES)
		rc = pwrite_all(o->data_fd, (const char *)data + at,
				len - at < WRITE_BYTES ? len - at : WRITE_BYTES, off + at);
	if (!rc && o->own_sums)
		rc = pwrite_all(o->sums_fd, sums, (size_t)n * SHA256_LEN, first * SHA256_LEN);
	return rc;
}

static void punch(struct object *o, uint64_t extent, uint64_t mask)
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

static int open_to_change(struct object *o)
{
	int rc = 0;

	if (!o->sealed)
		return 0;
	pthread_mutex_lock(&o->store->lock);
	if (o->sealed)
		rc = object_unseal(o);
	pthread_mutex_unlock(&o->store->lock);
	return rc;
}

int object_publish(struct object *o, uint64_t first, uint32_t n, const void *data,
		   const uint8_t (*sums)[SHA256_LEN])
{
	struct store *s = o->store;
	uint64_t extent = first / STORE_EXTENT_BLOCKS, bytes = (uint64_t)n * STORE_BLOCK;
	uint64_t mask = blocks_mask((uint32_t)(first % STORE_EXTENT_BLOCKS), n), was, now;
	int rc = object_reserve(o, bytes), again;

	if (rc)
		return rc;
	rc = open_to_change(o);
	if (!rc)
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
		punch(o, extent, mask & ~was);
		object_reserved(o, bytes, bytes);
		atomic_fetch_add(&s->counters.write_errors, 1);
		return rc;
	}
	again = __builtin_popcountll(mask & was); /* two images may share the object */
	atomic_fetch_add(&o->stored_blocks, (uint64_t)(n - (uint32_t)again));
	object_reserved(o, bytes, (uint64_t)again * STORE_BLOCK);
	atomic_fetch_and(&o->suspect[extent], ~mask);
	atomic_store(&o->stored[extent], now);
	object_list(o, extent);
	atomic_fetch_or_explicit(&o->ready[extent], mask, memory_order_release);
	object_pages_note(o, extent);
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
	if (open_to_change(o) < 0 || write_present(o, extent, left) < 0)
		return; /* stays suspect: it is looked at again, never believed */
	atomic_fetch_and(&o->suspect[extent], ~mask);
	atomic_store(&o->stored[extent], left);
	atomic_fetch_sub(&o->stored_blocks, (uint64_t)__builtin_popcountll(was));
	quiesce_wait(&o->store->quiesce);
	if (!atomic_load(&o->kept)) /* others may read the file: the right bytes take their place */
		punch(o, extent, was);
	store_unreserve(o->store, (uint64_t)__builtin_popcountll(was) * STORE_BLOCK);
	atomic_fetch_add(&o->store->counters.recheck_failures, (uint64_t)__builtin_popcountll(was));
}

int object_hide(struct object *o, uint64_t extent, uint64_t *mask)
{
	uint64_t was = atomic_load(&o->stored[extent]), visible;
	int rc = object_files_open(o);

	if (rc)
		return rc;
	/* Zero blocks stay ready: the hole that is left reads as zeros. */
	visible = atomic_fetch_and(&o->ready[extent], ~was) & was;
	/* object_hold() counts, then looks at `ready`; here it is the other way round, so one of
	 * the two sees the other. */
	rc = atomic_load(&o->pins[extent]) ? -EBUSY : o->sealed ? object_unseal(o) : 0;
	if (!rc)
		rc = write_present(o, extent, 0);
	if (rc) {
		atomic_fetch_or(&o->ready[extent], visible);
		if (rc != -EBUSY)
			atomic_fetch_add(&o->store->counters.write_errors, 1);
		object_files_close(o);
		return rc;
	}
	atomic_store(&o->suspect[extent], 0);
	atomic_store(&o->stored[extent], 0);
	atomic_store_explicit(&o->wanted[extent], 0, memory_order_relaxed);
	atomic_fetch_sub(&o->stored_blocks, (uint64_t)__builtin_popcountll(was));
	*mask = was;
	return 0;
}

void object_punch_hidden(struct object *o, uint64_t extent, uint64_t mask)
{
	punch(o, extent, mask);
	object_files_close(o);
}

int object_read_block(struct object *o, uint64_t block, void *buf)
{
	uint64_t n = span(o, block, 1);

	memset((char *)buf + n, 0, STORE_BLOCK - n);
	return pread_all(o->data_fd, buf, n, block * STORE_BLOCK);
}

int object_read_sum(struct object *o, uint64_t block, uint8_t out[SHA256_LEN])
{
	if (!o->own_sums)
		return -ENOENT;
	return pread_all(o->sums_fd, out, SHA256_LEN, block * SHA256_LEN);
}

void object_usage(const struct object *o, uint64_t *stored, uint64_t *zero)
{
	*stored = atomic_load(&o->stored_blocks) * STORE_BLOCK;
	*zero = atomic_load(&o->zero_blocks) * STORE_BLOCK;
}
