/* SPDX-License-Identifier: Apache-2.0 */
#include "observe/ring.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/bpf.h>

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

int observe_ring_open(struct observe_ring *r, int fd, size_t size)
{
	size_t page = page_size();
	void *consumer, *rest;

	consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (consumer == MAP_FAILED)
		return -errno;
	/* the kernel lets these be mapped for reading only */
	rest = mmap(NULL, page + 2 * size, PROT_READ, MAP_SHARED, fd, (off_t)page);
	if (rest == MAP_FAILED) {
		int rc = -errno;

		munmap(consumer, page);
		return rc;
	}
	*r = (struct observe_ring){.consumer = consumer,
				   .producer = rest,
				   .data = (uint8_t *)rest + page,
				   .size = size};
	return 0;
}

void observe_ring_close(struct observe_ring *r)
{
	munmap(r->consumer, page_size());
	munmap((void *)r->producer, page_size() + 2 * r->size);
	*r = (struct observe_ring){0};
}

/* Past the record at @at, or 0 when it is not complete yet. */
static uint64_t record_take(struct observe_ring *r, uint64_t at, const void **body, size_t *len)
{
	const uint8_t *p = r->data + (at & (r->size - 1));
	uint32_t word = __atomic_load_n((const uint32_t *)p, __ATOMIC_ACQUIRE);
	uint32_t n = word & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);

	if ((word & BPF_RINGBUF_BUSY_BIT) || n > r->size - BPF_RINGBUF_HDR_SZ)
		return 0;
	*body = word & BPF_RINGBUF_DISCARD_BIT ? NULL : p + BPF_RINGBUF_HDR_SZ;
	*len = n;
	return at + (((uint64_t)n + BPF_RINGBUF_HDR_SZ + 7) & ~7ULL);
}

size_t observe_ring_drain(struct observe_ring *r,
			  void (*fn)(void *arg, const void *rec, size_t len), void *arg)
{
	uint64_t at = *r->consumer, end = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE);
	size_t seen = 0;

	if (end - at > r->size) {
		__atomic_store_n(r->consumer, end, __ATOMIC_RELEASE);
		return 0;
	}
	while (at < end) {
		const void *body;
		size_t len;
		uint64_t next = record_take(r, at, &body, &len);

		if (!next || next > end)
			break;
		if (body) {
			fn(arg, body, len);
			seen++;
		}
		at = next;
		/* room for the programs again only when the record has been used */
		__atomic_store_n(r->consumer, at, __ATOMIC_RELEASE);
	}
	return seen;
}
