/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cached.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"

#ifndef SYS_cachestat
#define SYS_cachestat 451 /* on every architecture */
#endif

#define PROBE_STEP (64 * KIB)

struct cachestat_range {
	uint64_t off, len;
};

struct cachestat {
	uint64_t cached, dirty, writeback, evicted, recently_evicted; /* pages */
};

bool file_read_cached(int fd, uint64_t off, uint32_t len, void *dst)
{
	struct iovec iov = {dst, len};
	ssize_t n;

	n = preadv2(fd, &iov, 1, (off_t)off, RWF_NOWAIT);
	if (n < 0 && errno == EOPNOTSUPP) /* tmpfs, older overlays: nothing to wait for */
		n = pread(fd, dst, len, (off_t)off);
	return n == (ssize_t)len;
}

static bool byte_is_cached(int fd, uint64_t off)
{
	uint8_t byte;

	return file_read_cached(fd, off, 1, &byte);
}

/* Pages of the range that are there, or -1: this kernel does not say. */
static int64_t pages_cached(int fd, uint64_t off, uint32_t len)
{
	static atomic_bool refused;
	struct cachestat_range range = {off, len};
	struct cachestat stat;

	if (atomic_load_explicit(&refused, memory_order_relaxed))
		return -1;
	if (syscall(SYS_cachestat, fd, &range, &stat, 0) == 0)
		return (int64_t)stat.cached;
	atomic_store_explicit(&refused, true, memory_order_relaxed);
	return -1;
}

/* 1: all of them; 0: not all; -1: this kernel does not say. */
static int has_pages(int fd, uint64_t off, uint32_t len)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t wanted = (off + len + page - 1) / page - off / page;
	int64_t have = pages_cached(fd, off, len);

	return have < 0 ? -1 : (uint64_t)have >= wanted;
}

bool file_has_pages(int fd, uint64_t off, uint32_t len)
{
	return has_pages(fd, off, len) != 0;
}

bool file_is_cached(int fd, uint64_t off, uint32_t len)
{
	int has = has_pages(fd, off, len);
	uint64_t end = off + len;

	if (!has)
		return false;
	for (uint64_t at = off; has < 0 && at < end; at += PROBE_STEP)
		if (!byte_is_cached(fd, at))
			return false;
	/* Pages that are being read count, too; in order, so the last one comes last. */
	return byte_is_cached(fd, end - 1);
}
