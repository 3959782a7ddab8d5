/* SPDX-License-Identifier: Apache-2.0 */
/* The bench origin's entity tag of a file: its size and when it last changed. */
#ifndef TESTS_BENCH_ETAG_H
#define TESTS_BENCH_ETAG_H

#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#define ETAG_MAX 64

/* @size: of what is served, which for a tile is more than the file. */
static inline void etag_of(const struct stat *st, uint64_t size, char out[ETAG_MAX])
{
	snprintf(out, ETAG_MAX, "\"%llx-%llx%08lx\"", (unsigned long long)size,
		 (unsigned long long)st->st_mtim.tv_sec, (unsigned long)st->st_mtim.tv_nsec);
}

#endif
