/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a range of a file is in the page cache, asked without waiting for a disk. */
#ifndef BASE_CACHED_H
#define BASE_CACHED_H

#include <stdbool.h>
#include <stdint.h>

/* All of [off, off + len), len > 0. Reclaim may take it the next moment. cachestat(2) where the
 * kernel has it (6.5) and allows it (from 6.15 on to who may write the file), which costs 0.4 us
 * for 4 KiB and 7 us for 1 MiB; else a byte of each 64 KiB is tried, 0.8 us each, and a hole
 * between those is not seen. Any thread. */
bool file_is_cached(int fd, uint64_t off, uint32_t len);

/* The same, but of pages that are being read: they count. Not sure to be there: true. */
bool file_has_pages(int fd, uint64_t off, uint32_t len);

/* Copy what is in the page cache. All of @len, or false: reading would wait for the disk. */
bool file_read_cached(int fd, uint64_t off, uint32_t len, void *dst);

#endif
