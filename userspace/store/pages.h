/* SPDX-License-Identifier: Apache-2.0 */
/* The store's files in the page cache: what need not stay there.
 *
 * A device's kernel keeps what it read in the page cache of its mount. The store's own pages of the
 * same bytes would hold them twice, so while devices are an object's only readers
 *	cold reads pass by the page cache (object_direct_fd())
 *	extents that were filled, or sent from the page cache, are dropped from it soon after
 * Programs on the NBD socket keep nothing as a rule: while one has the object open its pages stay.
 * Nor does who reads a device with O_DIRECT: an extent of which more than twice its length was read
 * from the disk within PAGES_HOT_S is hot, and is read through the page cache and stays there for
 * as long as that goes on.
 *
 * An extent is written back after PAGES_WRITE_MS, dropped after PAGES_DROP_MS, and once more after
 * PAGES_AGAIN_MS, since what a socket still holds, or the disk was slow to take, is passed over. In
 * between a reader that follows a prefetch finds it. Dropping costs a read of the disk at worst.
 */
#ifndef STORE_PAGES_H
#define STORE_PAGES_H

#include "store/store.h"

#define STORE_DIRECT_ALIGN 4096U /* of offset, length and memory */

#define PAGES_WRITE_MS 1000U
#define PAGES_DROP_MS  3000U
#define PAGES_AGAIN_MS 12000U
#define PAGES_HOT_S    60U

/* A device's, or a program's, connection came (+1) or went (-1). Any thread. */
void object_readers(struct object *o, bool is_device, int change);

/* Its pages are not to stay. Any thread, wait-free. */
static inline bool object_pages_leave(const struct object *o)
{
	return atomic_load_explicit(&o->device_readers, memory_order_relaxed) &&
	       !atomic_load_explicit(&o->program_readers, memory_order_relaxed);
}

/* Bytes of the extent came into the page cache, or were sent from it. Any thread; does not wait. */
void object_pages_note(struct object *o, uint64_t extent);

/* A descriptor to read [off, off + len) of the data file by that leaves the page cache alone, for
 * whole STORE_DIRECT_ALIGN into memory aligned to them; such a read is counted. -1: there is none,
 * or its pages are to stay. */
int object_direct_fd(struct object *o, uint64_t off, uint32_t len);
/* The file system refused it. */
void object_direct_refused(struct object *o);

/* Handle what is due at @now_ns. By the thread that drops, and tests; it may wait for the disk. */
void store_pages_drop(struct store *s, uint64_t now_ns);

/* Begin: without it pages stay. A thread drops in time until store_close(). */
int store_pages_start(struct store *s, struct err *err);

#endif
