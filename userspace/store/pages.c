/* SPDX-License-Identifier: Apache-2.0 */
#include "store/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/store_impl.h"

#define PAGES_TICK_MS	500
#define PAGES_NOTES_MAX 65536U /* 256 GiB: more is left to the kernel */

/* An extent is noted once, and goes down the line. */
enum { NOT_NOTED, NOTED, NOTED_AGAIN };
enum step { WRITE_BACK, DROP, DROP_AGAIN, STEPS };
static const uint64_t due_ms[STEPS] = {PAGES_WRITE_MS, PAGES_DROP_MS, PAGES_AGAIN_MS};

struct object_pages {
	/* An extent each, untouched where nothing is. */
	_Atomic uint8_t *noted;
	_Atomic uint64_t *cold; /* since when in s, << 32, and KiB read from the disk since */
	uint64_t extents;
	atomic_bool direct_refused;
};

struct note {
	STAILQ_ENTRY(note) next;
	struct object *object;
	uint64_t extent;
	uint64_t at_ns;
};

STAILQ_HEAD(notes, note);

struct pages {
	pthread_mutex_t lock; /* the rest, and making object_pages */
	pthread_cond_t wake;
	pthread_t thread;
	struct notes line[STEPS]; /* each in order of time */
	uint32_t count;
	bool stopping;
};

/* Objects. */

static struct object_pages *object_pages_new(struct object *o)
{
	struct object_pages *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->extents = o->extents;
	/* of one mapping: the words first */
	p->cold = mmap(NULL, o->extents * 9, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->cold == MAP_FAILED) {
		free(p);
		return NULL;
	}
	p->noted = (_Atomic uint8_t *)(p->cold + o->extents);
	return p;
}

void object_pages_free(struct object *o)
{
	struct object_pages *p = atomic_load(&o->pages);

	if (!p)
		return;
	munmap((void *)p->cold, p->extents * 9);
	free(p);
}

/* One read through the page cache must not bring in all that follows: what readahead left there
 * would be sent from there, and call for more. */
void object_pages_advise(struct object *o)
{
	posix_fadvise(o->data_fd, 0, 0,
		      object_pages_leave(o) && atomic_load(&o->pages) ? POSIX_FADV_RANDOM
								      : POSIX_FADV_NORMAL);
}

static void pages_begin(struct object *o)
{
	struct pages *line = o->store->pages;

	object_direct_open(o);
	pthread_mutex_lock(&line->lock);
	if (!atomic_load(&o->pages))
		atomic_store(&o->pages, object_pages_new(o));
	pthread_mutex_unlock(&line->lock);
}

void object_readers(struct object *o, bool is_device, int change)
{
	atomic_fetch_add(is_device ? &o->device_readers : &o->program_readers, (uint32_t)change);
	if (!o->store->pages)
		return;
	if (is_device && change > 0)
		pages_begin(o);
	object_pages_advise(o);
}

static uint32_t now_s(void)
{
	return (uint32_t)(clock_now_ns() / NSEC_PER_SEC);
}

static bool is_hot(uint64_t word, uint32_t now)
{
	return now - (uint32_t)(word >> 32) < PAGES_HOT_S &&
	       (uint32_t)word > 2 * STORE_EXTENT / KIB;
}

static void count_cold(_Atomic uint64_t *cold, uint32_t kib, uint32_t now)
{
	uint64_t was = atomic_load(cold), next;

	do {
		next = now - (uint32_t)(was >> 32) < PAGES_HOT_S ? was + kib
								 : (uint64_t)now << 32 | kib;
	} while (!atomic_compare_exchange_weak(cold, &was, next));
}

int object_direct_fd(struct object *o, uint64_t off, uint32_t len)
{
	struct object_pages *p = atomic_load(&o->pages);
	_Atomic uint64_t *cold;
	uint32_t now;

	if (!p || o->direct_fd < 0 || !object_pages_leave(o) || atomic_load(&p->direct_refused))
		return -1;
	now = now_s();
	cold = &p->cold[off / STORE_EXTENT];
	if (is_hot(atomic_load(cold), now))
		return -1;
	count_cold(cold, len / KIB, now);
	return o->direct_fd;
}

/* A hot extent stays so while it is read. */
static bool stays_hot(struct object_pages *p, uint64_t extent)
{
	uint64_t was = atomic_load_explicit(&p->cold[extent], memory_order_relaxed);
	uint32_t now;

	if (!was) /* the clock costs more than that look */
		return false;
	now = now_s();
	if (!is_hot(was, now))
		return false;
	if (now - (uint32_t)(was >> 32) > PAGES_HOT_S / 2)
		atomic_compare_exchange_strong(&p->cold[extent], &was,
					       (uint64_t)now << 32 | (uint32_t)was);
	return true;
}

void object_direct_refused(struct object *o)
{
	struct object_pages *p = atomic_load(&o->pages);

	if (p && !atomic_exchange(&p->direct_refused, true))
		log_info("store", "read through the page cache: direct reads are refused",
			 "object=%s", o->name);
}

/* The line. */

static bool line_add(struct pages *line, struct object *o, uint64_t extent)
{
	struct note *n = malloc(sizeof(*n));
	bool fits;

	if (!n)
		return false;
	*n = (struct note){.object = o, .extent = extent, .at_ns = clock_now_ns()};
	pthread_mutex_lock(&line->lock);
	fits = line->count < PAGES_NOTES_MAX;
	if (fits) {
		STAILQ_INSERT_TAIL(&line->line[WRITE_BACK], n, next);
		if (!line->count++)
			pthread_cond_signal(&line->wake);
	}
	pthread_mutex_unlock(&line->lock);
	if (!fits)
		free(n);
	return fits;
}

void object_pages_note(struct object *o, uint64_t extent)
{
	struct object_pages *p = atomic_load_explicit(&o->pages, memory_order_acquire);
	uint8_t was;

	if (!p || !object_pages_leave(o))
		return;
	was = atomic_load_explicit(&p->noted[extent], memory_order_relaxed);
	if (was == NOTED_AGAIN || stays_hot(p, extent))
		return;
	was = NOT_NOTED;
	if (atomic_compare_exchange_strong(&p->noted[extent], &was, NOTED)) {
		if (!line_add(o->store->pages, o, extent))
			atomic_store(&p->noted[extent], NOT_NOTED);
	} else if (was == NOTED) {
		atomic_compare_exchange_strong(&p->noted[extent], &was, NOTED_AGAIN);
	}
}

static struct note *line_take(struct pages *line, enum step step, uint64_t now_ns)
{
	struct note *n;

	pthread_mutex_lock(&line->lock);
	n = STAILQ_FIRST(&line->line[step]);
	if (n && (line->stopping || n->at_ns + due_ms[step] * NSEC_PER_MSEC > now_ns))
		n = NULL;
	if (n)
		STAILQ_REMOVE_HEAD(&line->line[step], next);
	pthread_mutex_unlock(&line->lock);
	return n;
}

static void line_move(struct pages *line, struct note *n, enum step to)
{
	pthread_mutex_lock(&line->lock);
	STAILQ_INSERT_TAIL(&line->line[to], n, next);
	pthread_mutex_unlock(&line->lock);
}

static void line_forget(struct pages *line, struct note *n)
{
	pthread_mutex_lock(&line->lock);
	line->count--;
	pthread_mutex_unlock(&line->lock);
	free(n);
}

/* What came since it was noted has a turn of its own. */
static void note_end(struct pages *line, struct note *n, uint64_t now_ns)
{
	_Atomic uint8_t *noted = &atomic_load(&n->object->pages)->noted[n->extent];
	uint8_t was = NOTED;

	if (atomic_compare_exchange_strong(noted, &was, NOT_NOTED)) {
		line_forget(line, n);
		return;
	}
	atomic_store(noted, NOTED);
	n->at_ns = now_ns;
	line_move(line, n, WRITE_BACK);
}

static void note_step(struct pages *line, struct note *n, enum step step, uint64_t now_ns)
{
	off_t off = (off_t)(n->extent * STORE_EXTENT);
	struct object *o = n->object;
	struct object_pages *p = atomic_load(&o->pages);

	if (!object_pages_leave(o) || is_hot(atomic_load(&p->cold[n->extent]), now_s()) ||
	    object_files_open(o)) {
		atomic_store(&p->noted[n->extent], NOT_NOTED);
		line_forget(line, n);
		return;
	}
	if (step == WRITE_BACK)
		sync_file_range(o->data_fd, off, STORE_EXTENT, SYNC_FILE_RANGE_WRITE);
	else /* passes over what is dirty, and what a socket holds */
		posix_fadvise(o->data_fd, off, STORE_EXTENT, POSIX_FADV_DONTNEED);
	object_files_close(o);
	if (step == DROP_AGAIN)
		note_end(line, n, now_ns);
	else
		line_move(line, n, step + 1);
}

void store_pages_drop(struct store *s, uint64_t now_ns)
{
	struct note *n;

	for (int step = STEPS - 1; step >= 0; step--) /* one step a call */
		while ((n = line_take(s->pages, (enum step)step, now_ns)))
			note_step(s->pages, n, (enum step)step, now_ns);
}

/* The thread. */

static void wait_for_tick(struct pages *line)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_nsec += PAGES_TICK_MS * 1000000L;
	at.tv_sec += at.tv_nsec / 1000000000;
	at.tv_nsec %= 1000000000;
	if (line->count)
		pthread_cond_timedwait(&line->wake, &line->lock, &at);
	else
		pthread_cond_wait(&line->wake, &line->lock);
}

static void *pages_run(void *arg)
{
	struct store *s = arg;
	struct pages *line = s->pages;

	pthread_mutex_lock(&line->lock);
	while (!line->stopping) {
		wait_for_tick(line);
		pthread_mutex_unlock(&line->lock);
		store_pages_drop(s, clock_now_ns());
		pthread_mutex_lock(&line->lock);
	}
	pthread_mutex_unlock(&line->lock);
	return NULL;
}

int store_pages_start(struct store *s, struct err *err)
{
	struct pages *line = calloc(1, sizeof(*line));
	pthread_condattr_t attr;
	int rc;

	if (!line)
		return err_set(err, -ENOMEM, "out of memory");
	for (int i = 0; i < STEPS; i++)
		STAILQ_INIT(&line->line[i]);
	pthread_mutex_init(&line->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&line->wake, &attr);
	pthread_condattr_destroy(&attr);
	s->pages = line;
	rc = pthread_create(&line->thread, NULL, pages_run, s);
	if (!rc)
		return 0;
	s->pages = NULL;
	pthread_cond_destroy(&line->wake);
	pthread_mutex_destroy(&line->lock);
	free(line);
	return err_set(err, -rc, "can't start a thread: %s", strerror(rc));
}

void pages_stop(struct store *s)
{
	struct pages *line = s->pages;
	struct note *n;

	if (!line)
		return;
	pthread_mutex_lock(&line->lock);
	line->stopping = true;
	pthread_cond_signal(&line->wake);
	pthread_mutex_unlock(&line->lock);
	pthread_join(line->thread, NULL);
	for (int i = 0; i < STEPS; i++) {
		while ((n = STAILQ_FIRST(&line->line[i]))) {
			STAILQ_REMOVE_HEAD(&line->line[i], next);
			free(n);
		}
	}
	pthread_cond_destroy(&line->wake);
	pthread_mutex_destroy(&line->lock);
	free(line);
	s->pages = NULL;
}
