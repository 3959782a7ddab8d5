/* SPDX-License-Identifier: Apache-2.0 */
/* The node's store: verified blocks of objects on a local file system, within a size limit.
 *
 *   PATH/lock                     flock by the one daemon that owns the store; holds its pid
 *   PATH/version                  "cairn-store 1"
 *   PATH/clean                    written at an orderly stop, removed at start (store/clean.c)
 *   PATH/objects/KIND-HEX/data    sparse, same offsets and length as the object
 *   PATH/objects/KIND-HEX/present one 64-bit little-endian word an extent, one bit a stored block
 *   PATH/objects/KIND-HEX/sums    unsealed objects: SHA-256 of each stored block
 *   PATH/objects/KIND-HEX/meta    length, and whether it keeps sums
 *   PATH/objects/KIND-HEX/complete, promoted
 *                                 whole, and read past this process (store/complete.c)
 *   PATH/urls/HEX                 attributes by URL
 *
 * Each extent has three words. `stored`: blocks that take space, as the present file says.
 * `ready`: blocks that are verified and visible to readers. `suspect`: stored blocks of an unclean
 * stop, which must match their hash before they become ready. All-zero blocks are ready without
 * being stored. Words live in anonymous memory that a sparse object never touches.
 *
 * Crash-safe without fsync: a killed process leaves what it wrote in the page cache, in order;
 * after a power cut or without a clean mark every stored block is suspect.
 *
 * Threads: object_resident() any data thread inside its turn (store/quiesce.h); publish, forget and
 * trust only by the fill thread whose flight has the extent pinned; the rest any thread.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"
#include "store/evict.h"
#include "store/quiesce.h"

/* The store's own names for DESIGN's units; image/tree.h asserts that they are the same. */
#define STORE_BLOCK	    (64U << 10)
#define STORE_EXTENT	    (4U << 20)
#define STORE_EXTENT_BLOCKS 64
#define OBJECT_LENGTH_MAX   (1ULL << 50)

static inline uint64_t blocks_mask(uint32_t first, uint32_t n)
{
	return n >= 64 ? ~0ULL : ((1ULL << n) - 1) << first;
}

enum object_kind { OBJECT_IMAGE = 1, OBJECT_TREE = 2 };

struct object_id {
	enum object_kind kind;
	uint8_t id[SHA256_LEN];
	uint64_t length; /* bytes; what the data file spans */
};

struct store;
struct object_pages;

/* What a file is like; another ctime, and someone else wrote to it. */
struct file_stamp {
	uint64_t ino, size;
	struct timespec mtime, ctime;
};

struct object {
	struct store *store;
	struct object *bucket_next;
	struct object_id id;
	char name[80]; /* its directory: "image-HEX" */
	bool own_sums; /* false: it is verified against a tree */
	/* store/files.c: open from object_open() to object_close(), else -1, as sums_fd is for
	 * objects that keep none. */
	int data_fd, present_fd, sums_fd;
	_Atomic int direct_fd;	    /* from a device's first connection on: store/pages.h */
	pthread_mutex_t files_lock; /* the next three */
	uint32_t files_users;
	bool is_stamped; /* when they were closed: */
	struct object_stamps {
		struct file_stamp data, present, sums;
	} stamps;
	uint64_t extents;
	_Atomic uint64_t *ready, *suspect, *stored;
	_Atomic uint64_t *wanted; /* blocks that a reader asked for since the extent is stored */
	_Atomic uint64_t *use;
	_Atomic uint32_t *pins, kept;
	struct evict *evict; /* the store's */
	struct evict_set set;
	_Atomic uint64_t stored_blocks, zero_blocks;
	_Atomic uint64_t quota, writing; /* bytes: at most stored, 0 = any; about to be */
	_Atomic uint32_t users;		 /* object_open() less object_close() */
	_Atomic bool sealed;		 /* durably complete, and data_fd only reads */
	uint32_t promotions;		 /* object_promoted() less object_release() */
	bool orphan; /* promoted no more as far as we know, but kept: somebody may read it yet */
	/* store/pages.h */
	_Atomic uint32_t device_readers, program_readers;
	struct object_pages *_Atomic pages; /* NULL until a device reads */
};

struct store_counters {
	_Atomic uint64_t used; /* bytes of stored blocks */
	_Atomic uint64_t evicted_extents, write_errors, rechecked_blocks, recheck_failures;
};

/* @size 0 = 80 % of the file system. -EBUSY: owned by another daemon (text names its pid). */
int store_open(const char *path, uint64_t size, struct store **out, struct err *err);
void store_close(struct store *s); /* orderly: leaves the clean mark. All objects closed. */

/* For a process that ends without store_close(): the clean mark, at once and while others still
 * publish, and nothing may be removed or added after it. What a killed process leaves in the page
 * cache is whole (see above), so is what is published between the mark and the end. */
void store_leave(struct store *s);

uint64_t store_size(const struct store *s);
uint64_t store_objects(struct store *s);

/* Bytes stored that a reader asked for, and not only because they were near or next: told from at
 * most 4,096 extents, evenly drawn. Of an earlier run's blocks only what was read in this one. */
uint64_t store_wanted(struct store *s);
const char *store_path(const struct store *s);
struct store_counters *store_counters(struct store *s);
struct quiesce *store_quiesce(struct store *s);

/* The object, made when it is not there. @own_sums: no tree will vouch for it, so hashes of its own
 * are kept. Each open is closed once; the object stays in the store, and holds no descriptors while
 * nobody has it open. object_close() is for any thread, a data thread too. */
int object_open(struct store *s, const struct object_id *id, bool own_sums, struct object **out,
		struct err *err);
void object_close(struct object *o);

/* How many of [off, off + len) are ready from @off on. */
uint32_t object_resident(const struct object *o, uint64_t off, uint32_t len);

/* A reader uses the range, and found it (@hit) or not: for the policy, and to tell which blocks
 * were asked for. Any thread, wait-free. */
static inline void object_touch(struct object *o, uint64_t off, uint32_t len, bool hit)
{
	uint64_t block = off / STORE_BLOCK, end = (off + len - 1) / STORE_BLOCK + 1;

	while (block < end) {
		uint64_t extent = block / STORE_EXTENT_BLOCKS, in = block % STORE_EXTENT_BLOCKS;
		uint64_t n = end - block, mask;

		if (n > STORE_EXTENT_BLOCKS - in)
			n = STORE_EXTENT_BLOCKS - in;
		mask = blocks_mask((uint32_t)in, (uint32_t)n);
		evict_touch(o->evict, &o->set, extent, hit);
		if (mask & ~atomic_load_explicit(&o->wanted[extent], memory_order_relaxed))
			atomic_fetch_or_explicit(&o->wanted[extent], mask, memory_order_relaxed);
		block += n;
	}
}

/* object_touch() follows soon: of a huge image its word is in no cache, and comes while the read is
 * served. */
static inline void object_expect(const struct object *o, uint64_t off)
{
	__builtin_prefetch((const void *)&o->use[off / STORE_EXTENT]);
}

/* Keep an extent from eviction. Pins nest.
 * object_pin() waits for an eviction under way, so that nobody publishes what is about to be
 * punched: by fill and control threads, never by a data thread (the eviction waits for those).
 * object_hold() never waits: what is ready after it stays ready until object_unpin(). */
void object_pin(struct object *o, uint64_t extent);
void object_hold(struct object *o, uint64_t extent);
void object_unpin(struct object *o, uint64_t extent);

/* Keep all of the object from eviction, what comes later too, until object_let_go(). Nests. By fill
 * and control threads, never by a data thread: it waits for an eviction under way. */
void object_keep(struct object *o);
void object_let_go(struct object *o);

/* At most @bytes of the store for this object from now on, 0 = as many as there are: what is over
 * it is evicted at once, except what is pinned or kept. Then, and when others fill it faster than
 * its own extents go, its blocks are not stored. By control threads. */
void object_set_quota(struct object *o, uint64_t bytes);

/* Store @n verified blocks from @first on (within one extent) and make them ready. @data is whole
 * blocks, zero-padded; @sums their hashes (used when the object keeps its own). On error nothing
 * became visible: -ENOSPC (full and nothing to evict, or the disk is), -EIO. */
int object_publish(struct object *o, uint64_t first, uint32_t n, const void *data,
		   const uint8_t (*sums)[SHA256_LEN]);

/* These blocks are zeros: ready, and never stored. */
void object_publish_zero(struct object *o, uint64_t extent, uint64_t mask);

/* Reading stored blocks went wrong (file too short, EIO): recheck them before the next use. By any
 * thread that has the extent pinned. */
void object_suspect(struct object *o, uint64_t extent, uint64_t mask);

/* Suspect blocks turned out right, or wrong (then they are freed). */
void object_trust(struct object *o, uint64_t extent, uint64_t mask);
void object_forget(struct object *o, uint64_t extent, uint64_t mask);

/* One whole block, zero-padded, as it is in the data file; nobody vouches for it. */
int object_read_block(struct object *o, uint64_t block, void *buf);

/* The object's own hash of a stored block. -ENOENT without own sums. */
int object_read_sum(struct object *o, uint64_t block, uint8_t out[SHA256_LEN]);

/* Bytes of stored blocks, and of blocks known to be zeros. */
void object_usage(const struct object *o, uint64_t *stored, uint64_t *zero);

/* Every block is ready. */
bool object_is_complete(const struct object *o);
bool object_has_all(const struct object *o); /* the same by its counters, cheaply */

/* Note durably that it is complete: all of it is ready from now on, after any stop, until the first
 * block goes. Waits for the disk. -EAGAIN: it is not complete, or no tree vouched for it. By
 * control threads. */
int object_seal(struct object *o);

/* Sealed and kept, in this process and the next ones of this boot, while somebody else reads its
 * data file, until as many object_release(). */
int object_promote(struct object *o);
/* It is already, as the process before this one left it. */
void object_promoted(struct object *o);
void object_release(struct object *o);

/* Somebody besides us has the data file open, as a loop device's or a mount's, or nobody can say.
 */
bool object_is_read_elsewhere(struct object *o);

/* Let go of what was released, or promoted by a process before this one without anyone claiming it
 * since, once nobody reads it any more. */
void store_let_go_unread(struct store *s);

/* -ENAMETOOLONG */
int object_data_path(const struct object *o, char *out, size_t room);

/* A descriptor of its own to read the data file by, the caller's; or a negative errno. */
int object_data_open(const struct object *o);

/* Small files by URL: whole or not at all. @limit bounds what is read. */
int store_url_write(struct store *s, const char *url, const void *buf, size_t len);
int store_url_read(struct store *s, const char *url, size_t limit, char **buf, size_t *len);

#endif
