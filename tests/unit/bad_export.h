/* SPDX-License-Identifier: Apache-2.0 */
/* Two exports of one image, of which the first misbehaves on request: what is resident comes and
 * goes, and reads fail, wait or stall. Include it once a test. */
#ifndef TESTS_BAD_EXPORT_H
#define TESTS_BAD_EXPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/bytes.h"
#include "nbd/export.h"
#include "nbd/protocol.h"

#define SIZE (48U << 20)

enum residence {
	ALL,
	NOTHING,
	ODD_BLOCKS,	 /* every other 64 KiB */
	LOST_ONCE_ASKED, /* the rest of a body is gone when it is looked for again */
	ONCE_READ,	 /* what was read once, all of it, is in the store */
};

struct held_read {
	struct loop_post post; /* first */
	TAILQ_ENTRY(held_read) line;
	struct nbd_read *r;
	struct loop *loop;
	bool stalled;
};

struct bad_export {
	struct nbd_export nbd;
	int fd;
	_Atomic enum residence residence;
	_Atomic int fail;   /* errno of reads, or 0 */
	atomic_bool hold;   /* reads wait for release() */
	atomic_bool stalls; /* the next one stalls, until another release() */
	atomic_int refs;
	_Atomic uint64_t served, cached, read_bytes, bytes_in_flight, most_in_flight;
	_Atomic uint32_t in_flight;
	_Atomic uint64_t read_to;
	uint64_t asked_off;
	pthread_mutex_t lock;
	TAILQ_HEAD(held_reads, held_read) held;
};

static struct bad_export exports[2];
static uint8_t *image;

static inline uint32_t bad_resident(struct nbd_export *e, uint64_t off, uint32_t len, int *fd,
				    uint64_t *fd_off)
{
	struct bad_export *b = (struct bad_export *)e;
	uint32_t n = len;

	switch (atomic_load(&b->residence)) {
	case ALL:
		break;
	case NOTHING:
		n = 0;
		break;
	case ODD_BLOCKS:
		n = off / 65536 % 2 ? (uint32_t)(65536 - off % 65536) : 0;
		break;
	case LOST_ONCE_ASKED: /* a body's rest starts inside what was asked before */
		n = off > b->asked_off ? 0 : len;
		b->asked_off = off;
		break;
	case ONCE_READ:
		n = off + len <= atomic_load(&b->read_to) ? len : 0;
		break;
	}
	*fd = b->fd;
	*fd_off = off;
	return n < len ? n : len;
}

static inline void held_read_end(struct loop_post *p)
{
	struct held_read *h = (struct held_read *)p;
	struct bad_export *b = &exports[0];
	struct nbd_read *r = h->r;
	int rc = h->stalled ? -EAGAIN : -atomic_load(&b->fail);

	if (atomic_exchange(&b->stalls, false)) {
		h->stalled = true;
		r->stalled(r);
		pthread_mutex_lock(&b->lock);
		TAILQ_INSERT_TAIL(&b->held, h, line);
		pthread_mutex_unlock(&b->lock);
		return;
	}
	if (!rc)
		memcpy(r->dst, image + r->off, r->len);
	if (!rc && atomic_load(&b->read_to) < r->off + r->len)
		atomic_store(&b->read_to, r->off + r->len);
	atomic_fetch_sub(&b->bytes_in_flight, r->len);
	atomic_fetch_sub(&b->in_flight, 1);
	free(h);
	r->done(r, rc);
}

static inline void bad_read(struct nbd_export *e, struct nbd_read *r, struct loop *l)
{
	struct bad_export *b = &exports[0];
	struct held_read *h = calloc(1, sizeof(*h));
	uint64_t in_flight = atomic_fetch_add(&b->bytes_in_flight, r->len) + r->len;

	(void)e;
	assert_non_null(h);
	memset(r->dst, 0xee, r->len); /* all of it must be ours to write */
	if (in_flight > atomic_load(&b->most_in_flight))
		atomic_store(&b->most_in_flight, in_flight);
	atomic_fetch_add(&b->in_flight, 1);
	atomic_fetch_add(&b->read_bytes, r->len);
	h->post.fn = held_read_end;
	h->r = r;
	h->loop = l;
	if (!atomic_load(&b->hold)) {
		loop_post(l, &h->post);
		return;
	}
	pthread_mutex_lock(&b->lock);
	TAILQ_INSERT_TAIL(&b->held, h, line);
	pthread_mutex_unlock(&b->lock);
}

static inline void release(struct bad_export *b)
{
	struct held_read *h;

	pthread_mutex_lock(&b->lock);
	atomic_store(&b->hold, false);
	while ((h = TAILQ_FIRST(&b->held))) {
		TAILQ_REMOVE(&b->held, h, line);
		loop_post(h->loop, &h->post);
	}
	pthread_mutex_unlock(&b->lock);
}

static inline int bad_block_status(struct nbd_export *e, uint64_t off, uint32_t len,
				   struct nbd_extent *out, int max)
{
	(void)e;
	(void)off;
	out[0] = (struct nbd_extent){len < 65536 ? len : 65536, 0};
	if (max == 1 || len <= 65536)
		return 1;
	out[1] = (struct nbd_extent){len - 65536, NBD_STATE_HOLE | NBD_STATE_ZERO};
	return 2;
}

static inline void bad_cache(struct nbd_export *e, uint64_t off, uint32_t len)
{
	(void)off;
	atomic_fetch_add(&((struct bad_export *)e)->cached, len);
}

static inline void bad_served(struct nbd_export *e, uint64_t off, uint32_t len)
{
	(void)off;
	atomic_fetch_add(&((struct bad_export *)e)->served, len);
}

static inline struct nbd_export *bad_ref(struct nbd_export *e)
{
	atomic_fetch_add(&((struct bad_export *)e)->refs, 1);
	return e;
}

static inline void bad_unref(struct nbd_export *e)
{
	atomic_fetch_sub(&((struct bad_export *)e)->refs, 1);
}

static const struct nbd_export_ops bad_ops = {
	.resident = bad_resident,
	.read = bad_read,
	.block_status = bad_block_status,
	.cache = bad_cache,
	.served = bad_served,
	.ref = bad_ref,
	.unref = bad_unref,
};

static inline struct nbd_export *find(struct nbd_directory *d, const char *name)
{
	(void)d;
	for (int i = 0; i < 2; i++)
		if (strcmp(name, exports[i].nbd.name) == 0)
			return bad_ref(&exports[i].nbd);
	return NULL;
}

static inline void list(struct nbd_directory *d, bool (*fn)(void *, const char *, const char *),
			void *arg)
{
	(void)d;
	for (int i = 0; i < 2; i++)
		fn(arg, exports[i].nbd.name, "");
}

static struct nbd_directory directory = {find, list};

static inline int make_image(void **state)
{
	uint32_t seed = 7;
	char path[] = "/tmp/test_nbd_server.XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	unlink(path);
	image = malloc(SIZE);
	for (uint32_t i = 0; i < SIZE; i += 4) {
		seed = seed * 1664525 + 1013904223;
		memcpy(image + i, &seed, 4);
	}
	assert_int_equal(pwrite_all(fd, image, SIZE, 0), 0);
	exports[0].fd = exports[1].fd = fd;
	return 0;
}

static inline int drop_image(void **state)
{
	(void)state;
	free(image);
	close(exports[0].fd);
	return 0;
}

/* All resident, and nothing asked for yet. */
static inline void exports_reset(void)
{
	int fd = exports[0].fd;

	for (int i = 0; i < 2; i++) {
		memset(&exports[i], 0, sizeof(exports[i]));
		exports[i].fd = fd;
		exports[i].nbd.ops = &bad_ops;
		nbd_budget_share_init(&exports[i].nbd.budget);
		exports[i].nbd.size = SIZE;
		strcpy(exports[i].nbd.name, i ? "two" : "one");
		pthread_mutex_init(&exports[i].lock, NULL);
		TAILQ_INIT(&exports[i].held);
	}
}

#endif
