/* SPDX-License-Identifier: Apache-2.0 */
/* Readers of a soak: each compares every byte it gets with a file that holds what it must get.
 *
 *   reader STOP REPORT SEED BOUND_MS HOW:READ:REFERENCE...
 *
 * A thread for each HOW:READ:REFERENCE. HOW is `direct` (a file or device, past the page cache),
 * `cached` (through it, dropped now and then), or `nbd` (an export by its NBD URI, over a socket,
 * hung up and connected again now and then; a server that hangs up is one, too, and no error).
 *
 * REPORT is replaced twice a second: "reads bytes errors wrong redials longest_ms oldest_ms", the
 * last being how long the read that is in flight longest has been. Ends when the file STOP is
 * there, with the same as a line of words; exit 1 when a read failed, gave a wrong byte, or took
 * longer than BOUND_MS: then without waiting for it, since a thread in such a read can't be ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define PAGE	 4096U
#define READ_MAX (1U << 20)
#define READERS	 32

enum how { DIRECT, CACHED, NBD };
static const char *const how_names[] = {"direct", "cached", "nbd"};

struct reader {
	enum how how;
	const char *path;
	int fd;
	struct nbd_handle *nbd; /* NULL: hung up */
	const uint8_t *want;
	uint64_t len;
	uint64_t random;
	_Atomic uint64_t since_ns; /* the read in flight; 0 = none */
	pthread_t thread;
};

static struct reader readers[READERS];
static unsigned nreaders;
static atomic_bool stop;
static _Atomic uint64_t reads, bytes, errors, wrong, redials, longest_ns;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char first_error[512];
static char longest[512]; /* which read that was */

static void complain(const struct reader *r, uint64_t off, size_t len, const char *what)
{
	pthread_mutex_lock(&lock);
	if (!first_error[0])
		snprintf(first_error, sizeof(first_error), "%s: %zu bytes at %" PRIu64 ": %s",
			 r->path, len, off, what);
	pthread_mutex_unlock(&lock);
}

/* xorshift64*: each thread's own, from the seed. */
static uint32_t roll(struct reader *r, uint32_t sides)
{
	r->random ^= r->random >> 12;
	r->random ^= r->random << 25;
	r->random ^= r->random >> 27;
	return (uint32_t)((r->random * 0x2545f4914f6cdd1dULL >> 32) % sides);
}

static void note_longest(const struct reader *r, uint64_t off, size_t len, uint64_t ns)
{
	if (ns <= atomic_load(&longest_ns))
		return;
	pthread_mutex_lock(&lock);
	if (ns > longest_ns) {
		longest_ns = ns;
		snprintf(longest, sizeof(longest), "%s of %s, %zu at %" PRIu64, how_names[r->how],
			 r->path, len, off);
	}
	pthread_mutex_unlock(&lock);
}

static void hang_up(struct reader *r)
{
	nbd_close(r->nbd);
	r->nbd = NULL;
	atomic_fetch_add(&redials, 1);
}

static bool dial(struct reader *r)
{
	r->nbd = nbd_create();
	if (r->nbd && nbd_connect_uri(r->nbd, r->path) == 0)
		return true;
	nbd_close(r->nbd);
	r->nbd = NULL;
	usleep(20000); /* between two workers */
	return false;
}

/* Bytes read, all or a negative errno; -EAGAIN: the server hung up, or isn't there. */
static ssize_t read_nbd(struct reader *r, uint8_t *buf, size_t len, uint64_t off)
{
	int error;

	if (!r->nbd && !dial(r))
		return -EAGAIN;
	if (nbd_pread(r->nbd, buf, len, off, 0) == 0)
		return (ssize_t)len;
	error = nbd_get_errno();
	if (nbd_aio_is_dead(r->nbd) || nbd_aio_is_closed(r->nbd)) {
		hang_up(r);
		return -EAGAIN;
	}
	return error ? -error : -EIO;
}

static ssize_t read_file(struct reader *r, uint8_t *buf, size_t len, uint64_t off)
{
	ssize_t n;

	if (r->how == CACHED && roll(r, 16) == 0)
		posix_fadvise(r->fd, 0, 0, POSIX_FADV_DONTNEED);
	n = pread(r->fd, buf, len, (off_t)off);
	return n < 0 ? -errno : n;
}

static void judge(struct reader *r, const uint8_t *buf, uint64_t off, size_t len, ssize_t got)
{
	size_t want = r->len - off < len ? r->len - off : len, n = (size_t)got;

	if (got < 0) {
		atomic_fetch_add(&errors, 1);
		complain(r, off, len, strerror((int)-got));
		usleep(50000);
		return;
	}
	atomic_fetch_add(&bytes, n);
	if (n < want && n > 0 && n % PAGE == 0)
		want = n; /* short, which a read may be */
	if (n >= want && memcmp(buf, r->want + off, want) == 0)
		return;
	atomic_fetch_add(&wrong, 1);
	complain(r, off, len, n < want ? "too few bytes" : "wrong bytes");
}

static void read_once(struct reader *r, uint8_t *buf)
{
	uint64_t pages = (r->len + PAGE - 1) / PAGE, off, begun = clock_now_ns();
	uint32_t shift = roll(r, 9);
	size_t len = (size_t)PAGE << shift;
	ssize_t got;

	off = (uint64_t)roll(r, (uint32_t)pages) * PAGE;
	if (r->how != DIRECT && roll(r, 2)) { /* any byte, any length */
		off += roll(r, PAGE);
		off = off < r->len ? off : r->len - 1;
		len -= roll(r, PAGE);
	}
	if (r->how != DIRECT && len > r->len - off)
		len = r->len - off;
	atomic_store(&r->since_ns, begun);
	got = r->how == NBD ? read_nbd(r, buf, len, off) : read_file(r, buf, len, off);
	atomic_store(&r->since_ns, 0);
	note_longest(r, off, len, clock_now_ns() - begun);
	if (r->how == NBD && got == -EAGAIN)
		return;
	atomic_fetch_add(&reads, 1);
	judge(r, buf, off, len, got);
	if (r->nbd && roll(r, 200) == 0)
		hang_up(r);
}

static void *reader_main(void *arg)
{
	uint8_t *buf =
		mmap(NULL, READ_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (buf == MAP_FAILED)
		exit(2);
	while (!atomic_load(&stop))
		read_once(arg, buf);
	munmap(buf, READ_MAX);
	return NULL;
}

static int fail(const char *what)
{
	fprintf(stderr, "reader: %s: %s\n", what, strerror(errno));
	return 2;
}

/* HOW:READ:REFERENCE; READ may hold colons. */
static int reader_open(struct reader *r, char *word, uint64_t seed)
{
	char *path = strchr(word, ':'), *reference = strrchr(word, ':');
	struct stat st;
	int fd;

	if (!path || path == reference)
		return fail(word);
	*path++ = *reference++ = 0;
	r->path = path;
	r->how = strcmp(word, "direct") == 0 ? DIRECT : strcmp(word, "nbd") == 0 ? NBD : CACHED;
	r->random = (seed + nreaders + 1) * 0x9e3779b97f4a7c15ULL;
	fd = open(reference, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) || !st.st_size)
		return fail(reference);
	r->len = (uint64_t)st.st_size;
	r->want = mmap(NULL, r->len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (r->want == MAP_FAILED)
		return fail(reference);
	close(fd);
	if (r->how != NBD)
		r->fd = open(path, O_RDONLY | O_CLOEXEC | (r->how == DIRECT ? O_DIRECT : 0));
	return r->fd < 0 ? fail(path) : 0;
}

static uint64_t oldest_ms(const struct reader **who)
{
	uint64_t now = clock_now_ns(), most = 0;

	for (unsigned i = 0; i < nreaders; i++) {
		uint64_t since = atomic_load(&readers[i].since_ns);

		if (since && since < now && now - since > most) {
			most = now - since;
			*who = &readers[i];
		}
	}
	return most / NSEC_PER_MSEC;
}

static void report(const char *path)
{
	const struct reader *who = NULL;
	char next[4096];
	FILE *f;

	snprintf(next, sizeof(next), "%s.new", path);
	f = fopen(next, "we");
	if (!f)
		return;
	fprintf(f,
		"%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
		"\n",
		reads, bytes, errors, wrong, redials, (uint64_t)(longest_ns / NSEC_PER_MSEC),
		oldest_ms(&who));
	fclose(f);
	rename(next, path);
}

/* The end, told in one line. */
static int tell(uint64_t bound_ms, bool hung)
{
	bool good = !errors && !wrong && !hung && longest_ns / NSEC_PER_MSEC <= bound_ms;

	printf("reads=%" PRIu64 " mib=%" PRIu64 " errors=%" PRIu64 " wrong=%" PRIu64
	       " redials=%" PRIu64 " longest_ms=%" PRIu64
	       " longest=\"%s\" hung=%d first_error=\"%s\"\n",
	       reads, bytes >> 20, errors, wrong, redials, (uint64_t)(longest_ns / NSEC_PER_MSEC),
	       longest, hung, first_error);
	fflush(stdout);
	return good ? 0 : 1;
}

/* Until STOP, or a read is over the bound (-1). */
static int watch(const char *stop_path, const char *report_path, uint64_t bound_ms)
{
	const struct reader *who = NULL;

	while (access(stop_path, F_OK)) {
		usleep(500000);
		report(report_path);
		if (oldest_ms(&who) > bound_ms) {
			complain(who, 0, 0, "a read hangs");
			return -1;
		}
	}
	return 0;
}

/* The threads' last reads are waited for as any others. */
static int wait_for_readers(uint64_t bound_ms)
{
	const struct reader *who = NULL;

	for (unsigned i = 0; i < nreaders; i++) {
		struct timespec end;

		clock_gettime(CLOCK_REALTIME, &end);
		end.tv_sec += (time_t)(bound_ms / 1000) + 1;
		if (pthread_timedjoin_np(readers[i].thread, NULL, &end)) {
			oldest_ms(&who);
			complain(who ? who : &readers[i], 0, 0, "a read hangs at the end");
			return -1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t seed, bound_ms;
	bool hung;

	if (argc < 6 || argc > 5 + READERS) {
		fprintf(stderr, "usage: reader STOP REPORT SEED BOUND_MS HOW:READ:REFERENCE...\n");
		return 2;
	}
	seed = strtoull(argv[3], NULL, 10);
	bound_ms = strtoull(argv[4], NULL, 10);
	for (int i = 5; i < argc; i++, nreaders++)
		if (reader_open(&readers[nreaders], argv[i], seed))
			return 2;
	for (unsigned i = 0; i < nreaders; i++)
		if (pthread_create(&readers[i].thread, NULL, reader_main, &readers[i]))
			return 2;
	hung = watch(argv[1], argv[2], bound_ms) != 0;
	atomic_store(&stop, true);
	hung = hung || wait_for_readers(bound_ms) != 0;
	report(argv[2]);
	_exit(tell(bound_ms, hung)); /* a thread in a read that hangs would hold exit() */
}
