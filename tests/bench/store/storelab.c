/* SPDX-License-Identifier: Apache-2.0 */
/* What the store costs apart from a daemon, as one line of JSON.
 *
 *	storelab open DIR GIB OBJECTS	open a store of so many sparse objects that have GIB in all,
 *					each block of them in the present file
 *	storelab evict DIR GIB REAL	evict GIB at once, of which REAL are really allocated, while
 *					a reader takes the turns of a data thread over resident
 *					blocks of the same file; before that, as long without
 *	storelab cold FILE WAY SIZE	read a file that is not in the page cache in pieces of SIZE:
 *					WAY is buffered, dontcache (RWF_DONTCACHE, 6.14), drop
 *					(buffered, and dropped behind by 4 MiB) or direct
 *
 * DIR is made, and removed at the end by who asked for it.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/cached.h"
#include "base/clock.h"
#include "base/log.h"
#include "store/store_impl.h"

#define HOT_EXTENTS 16
#define SEND_LEN    131072

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "storelab: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	exit(1);
}

static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct store *open_store(const char *dir)
{
	struct err err = {0};
	struct store *s;

	if (store_open(dir, 4 * TIB, &s, &err))
		die("%s", err.text);
	return s;
}

static struct object *make_object(struct store *s, uint64_t length, uint8_t name)
{
	struct object_id id = {.kind = OBJECT_IMAGE, .id = {name, 1}, .length = length};
	struct err err = {0};
	struct object *o;

	if (object_open(s, &id, false, &o, &err))
		die("%s", err.text);
	return o;
}

/* As if the extents from @first on were stored, with a file of holes. */
static void pretend(struct object *o, uint64_t first)
{
	uint64_t n = o->extents - first;
	uint64_t *words = malloc(n * 8);

	if (!words)
		die("out of memory");
	memset(words, 0xff, n * 8);
	if (pwrite_all(o->present_fd, words, n * 8, first * 8))
		die("present: %s", strerror(errno));
	free(words);
}

/* Opening. */

static void bench_open(const char *dir, uint64_t bytes, uint32_t objects)
{
	struct store *s = open_store(dir);
	uint64_t t0, ns;
	double cpu;

	for (uint32_t i = 0; i < objects; i++)
		pretend(make_object(s, bytes / objects, (uint8_t)i), 0);
	store_close(s);
	cpu = cpu_seconds();
	t0 = clock_now_ns();
	s = open_store(dir);
	ns = clock_now_ns() - t0;
	cpu = cpu_seconds() - cpu;
	printf("{\"objects\":%u,\"used_gib\":%ju,\"seconds\":%.4f,\"cpu_s\":%.4f}\n", objects,
	       (uintmax_t)(s->counters.used / GIB), (double)ns / 1e9, cpu);
	store_close(s);
}

/* Evicting. */

struct reader {
	pthread_t thread;
	struct store *store;
	struct object *object;
	int null_fd;
	atomic_bool stop;
	_Atomic uint64_t longest_ns, reads, missed;
	_Atomic uint64_t slept_ns; /* the longest in which it slept: the rest is the scheduler's */
};

/* How often this thread went to sleep by itself. */
static long sleeps(void)
{
	struct rusage u;

	getrusage(RUSAGE_THREAD, &u);
	return u.ru_nvcsw;
}

static bool send_once(struct reader *r, uint64_t off)
{
	off_t at = (off_t)off;

	return file_is_cached(r->object->data_fd, off, SEND_LEN) &&
	       sendfile(r->null_fd, r->object->data_fd, &at, SEND_LEN) == SEND_LEN;
}

/* One resident read, as a data thread does it: within a turn, and only of what is cached. Each 32nd
 * is large. */
static void read_once(struct reader *r, uint64_t off, uint8_t *buf)
{
	bool is_large = off % SEND_LEN == 0;
	long slept = sleeps();
	uint64_t t0 = clock_now_ns(), ns;
	bool good;

	quiesce_enter(&r->store->quiesce, 0);
	good = object_resident(r->object, off, 4096) == 4096 &&
	       (is_large ? send_once(r, off)
			 : file_read_cached(r->object->data_fd, off, 4096, buf));
	quiesce_leave(&r->store->quiesce, 0);
	ns = clock_now_ns() - t0;
	if (!good) { /* reclaimed, or somebody dropped caches: what another thread would wait for */
		atomic_fetch_add(&r->missed, 1);
		if (pread(r->object->data_fd, buf, SEND_LEN, (off_t)off) < 0)
			die("can't read at %ju", (uintmax_t)off);
	}
	if (ns > atomic_load(&r->longest_ns))
		atomic_store(&r->longest_ns, ns);
	if (sleeps() != slept && ns > atomic_load(&r->slept_ns))
		atomic_store(&r->slept_ns, ns);
	atomic_fetch_add(&r->reads, 1);
}

static void *read_on(void *arg)
{
	struct reader *r = arg;
	const struct timespec nap = {.tv_nsec = 50000};
	static uint8_t buf[SEND_LEN];
	uint64_t i = 0;

	while (!atomic_load(&r->stop)) {
		read_once(r, i++ * 7919 % (HOT_EXTENTS * STORE_EXTENT / 4096) * 4096, buf);
		nanosleep(&nap, NULL);
	}
	return NULL;
}

static void reader_start(struct reader *r, struct store *s, struct object *o)
{
	static uint8_t buf[STORE_EXTENT];

	for (uint64_t e = 0; e < HOT_EXTENTS; e++)
		if (pread_all(o->data_fd, buf, sizeof(buf), e * STORE_EXTENT))
			die("can't read extent %ju", (uintmax_t)e);
	*r = (struct reader){
		.store = s, .object = o, .null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC)};
	if (pthread_create(&r->thread, NULL, read_on, r))
		die("can't start a thread");
}

static void reader_stop(struct reader *r)
{
	atomic_store(&r->stop, true);
	pthread_join(r->thread, NULL);
	if (r->null_fd > 0)
		close(r->null_fd);
}

static void fill(struct object *o, uint64_t extents)
{
	uint8_t *data = malloc(STORE_EXTENT);

	if (!data)
		die("out of memory");
	for (uint64_t e = 0; e < extents; e++) {
		memset(data, (int)(e % 255) + 1, STORE_EXTENT);
		if (object_publish(o, e * STORE_EXTENT_BLOCKS, STORE_EXTENT_BLOCKS, data, NULL))
			die("can't store extent %ju", (uintmax_t)e);
	}
	free(data);
	fsync(o->data_fd);
}

/* What else wants the store meanwhile: a fill thread that begins a flight. */
static void *pin_on(void *arg)
{
	struct reader *r = arg;
	const struct timespec nap = {.tv_nsec = 1000000};

	while (!atomic_load(&r->stop)) {
		uint64_t t0 = clock_now_ns(), ns;

		object_pin(r->object, 0);
		object_unpin(r->object, 0);
		ns = clock_now_ns() - t0;
		if (ns > atomic_load(&r->longest_ns))
			atomic_store(&r->longest_ns, ns);
		nanosleep(&nap, NULL);
	}
	return NULL;
}

static void bench_evict(const char *dir, uint64_t bytes, uint64_t real)
{
	struct store *s = open_store(dir);
	uint64_t hot = HOT_EXTENTS * STORE_EXTENT, freed, t0, ns;
	struct object *o = make_object(s, hot + bytes, 1);
	struct reader alone, beside, pins;
	struct timespec t;

	fill(o, HOT_EXTENTS + real / STORE_EXTENT);
	pretend(o, HOT_EXTENTS + real / STORE_EXTENT);
	store_close(s);
	s = open_store(dir);
	o = make_object(s, hot + bytes, 1);
	for (uint64_t e = 0; e < HOT_EXTENTS; e++)
		object_pin(o, e);
	pins = (struct reader){.store = s, .object = o};
	reader_start(&beside, s, o);
	if (pthread_create(&pins.thread, NULL, pin_on, &pins))
		die("can't start a thread");
	t0 = clock_now_ns();
	freed = store_evict(s, bytes);
	ns = clock_now_ns() - t0;
	reader_stop(&beside);
	reader_stop(&pins);
	reader_start(&alone, s, o);
	t = (struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
	nanosleep(&t, NULL);
	reader_stop(&alone);
	printf("{\"freed_gib\":%.1f,\"seconds\":%.3f,\"longest_ms\":%.3f,\"longest_alone_ms\":%.3f,"
	       "\"longest_sleep_ms\":%.3f,\"longest_sleep_alone_ms\":%.3f,"
	       "\"reads\":%ju,\"missed\":%ju,\"pin_longest_ms\":%.3f}\n",
	       (double)freed / (double)GIB, (double)ns / 1e9, (double)beside.longest_ns / 1e6,
	       (double)alone.longest_ns / 1e6, (double)beside.slept_ns / 1e6,
	       (double)alone.slept_ns / 1e6, (uintmax_t)beside.reads, (uintmax_t)beside.missed,
	       (double)pins.longest_ns / 1e6);
	if (freed < bytes)
		die("only %ju bytes were freed", (uintmax_t)freed);
	store_close(s);
}

/* Cold reads. */

static int64_t cached_bytes(int fd, uint64_t len)
{
	int64_t n = 0;

	for (uint64_t at = 0; at < len; at += 4096)
		n += file_has_pages(fd, at, 4096) ? 4096 : 0;
	return n;
}

static void bench_cold(const char *path, const char *way, uint32_t size)
{
	bool direct = strcmp(way, "direct") == 0, drop = strcmp(way, "drop") == 0;
	int flags = strcmp(way, "dontcache") == 0 ? 0x80 /* RWF_DONTCACHE */ : 0;
	int fd = open(path, O_RDONLY | (direct ? O_DIRECT : 0) | O_CLOEXEC);
	struct iovec iov = {aligned_alloc(4096, size), size};
	uint64_t at = 0, t0;
	double cpu, seconds;
	ssize_t n;

	if (fd < 0 || !iov.iov_base)
		die("%s: %s", path, strerror(errno));
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	cpu = cpu_seconds();
	t0 = clock_now_ns();
	while ((n = preadv2(fd, &iov, 1, (off_t)at, flags)) > 0) {
		at += (uint64_t)n;
		if (drop && at % STORE_EXTENT == 0)
			posix_fadvise(fd, (off_t)(at - STORE_EXTENT), STORE_EXTENT,
				      POSIX_FADV_DONTNEED);
	}
	if (n < 0)
		die("%s: %s", way, strerror(errno));
	seconds = (double)(clock_now_ns() - t0) / 1e9;
	cpu = cpu_seconds() - cpu;
	printf("{\"MBps\":%.1f,\"cpu_us_per_mib\":%.1f,\"left_mib\":%.1f}\n",
	       (double)at / 1e6 / seconds, cpu * 1e6 / ((double)at / (double)MIB),
	       (double)cached_bytes(fd, at) / (double)MIB);
	free(iov.iov_base);
	close(fd);
}

int main(int argc, char **argv)
{
	log_set_level(LOG_ERROR_);
	if (argc == 5 && strcmp(argv[1], "open") == 0)
		bench_open(argv[2], strtoull(argv[3], NULL, 0) * GIB,
			   (uint32_t)strtoul(argv[4], NULL, 0));
	else if (argc == 5 && strcmp(argv[1], "evict") == 0)
		bench_evict(argv[2], strtoull(argv[3], NULL, 0) * GIB,
			    strtoull(argv[4], NULL, 0) * GIB);
	else if (argc == 5 && strcmp(argv[1], "cold") == 0)
		bench_cold(argv[2], argv[3], (uint32_t)strtoul(argv[4], NULL, 0));
	else
		die("usage: storelab open DIR GIB OBJECTS | evict DIR GIB REAL | cold FILE WAY "
		    "SIZE");
	return 0;
}
