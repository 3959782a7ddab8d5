/* SPDX-License-Identifier: Apache-2.0 */
/* Readers with O_DIRECT, past the page cache, that compare each read with a file that holds what it
 * must give: for tests that take servers away.
 *
 *   compare_reads STOP THREADS READ REFERENCE [READ REFERENCE]...
 *
 * until the file STOP is there, or 120 s. Each thread takes the files in turn, and reads of 4 KiB
 * to 1 MiB at random places. Then one line, and exit 0 when no read failed and no byte was wrong:
 *
 *   reads=N errors=N wrong=N longest_ms=N first_error="..."
 */
#include <errno.h>
#include <fcntl.h>
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

#define PAGE	 4096
#define READ_MAX (1 << 20)
#define FILES	 16
#define LIMIT_S	 120

struct file {
	const char *path;
	int fd;
	const uint8_t *want;
	uint64_t len;
};

static struct file files[FILES];
static unsigned nfiles;
static atomic_bool stop;
static _Atomic uint64_t reads, errors, wrong, longest_ns;
static char first_error[256];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void complain(const char *what, const struct file *f, uint64_t off)
{
	pthread_mutex_lock(&lock);
	if (!first_error[0])
		snprintf(first_error, sizeof(first_error), "%s at %llu of %s", what,
			 (unsigned long long)off, f->path);
	pthread_mutex_unlock(&lock);
}

static void note_longest(uint64_t ns)
{
	uint64_t now = atomic_load(&longest_ns);

	while (ns > now && !atomic_compare_exchange_weak(&longest_ns, &now, ns))
		;
}

static void read_once(const struct file *f, uint8_t *buf, unsigned *seed)
{
	uint64_t pages = (f->len + PAGE - 1) / PAGE, off, begun;
	size_t len = (size_t)PAGE << (rand_r(seed) % 9), n, want;
	ssize_t got;

	off = ((uint64_t)rand_r(seed) * RAND_MAX + (uint64_t)rand_r(seed)) % pages * PAGE;
	want = f->len - off < len ? f->len - off : len;
	begun = clock_now_ns();
	got = pread(f->fd, buf, len, (off_t)off);
	note_longest(clock_now_ns() - begun);
	atomic_fetch_add(&reads, 1);
	if (got < 0) {
		atomic_fetch_add(&errors, 1);
		complain(strerror(errno), f, off);
		usleep(50000);
		return;
	}
	n = (size_t)got < want ? (size_t)got : want;
	if (n < want && n % PAGE == 0 && n > 0)
		want = n; /* a short read is none that failed */
	if (n < want || memcmp(buf, f->want + off, n) != 0) {
		atomic_fetch_add(&wrong, 1);
		complain("wrong bytes", f, off);
	}
}

static void *reader(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg * 7919 + 1, turn = seed;
	uint8_t *buf =
		mmap(NULL, READ_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (buf == MAP_FAILED)
		exit(2);
	while (!atomic_load(&stop))
		read_once(&files[turn++ % nfiles], buf, &seed);
	munmap(buf, READ_MAX);
	return NULL;
}

static void file_open(struct file *f, const char *path, const char *reference)
{
	int fd = open(reference, O_RDONLY | O_CLOEXEC);
	struct stat st;

	f->path = path;
	f->fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0 || f->fd < 0 || fstat(fd, &st)) {
		fprintf(stderr, "compare_reads: %s, %s: %s\n", path, reference, strerror(errno));
		exit(2);
	}
	f->len = (uint64_t)st.st_size;
	f->want = mmap(NULL, f->len, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (f->want == MAP_FAILED)
		exit(2);
	close(fd);
}

int main(int argc, char **argv)
{
	unsigned n = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
	uint64_t end = clock_now_ns() + LIMIT_S * NSEC_PER_SEC;
	pthread_t t[64];

	if (argc < 5 || argc % 2 == 0 || !n || n > 64 || argc > 3 + 2 * FILES)
		return 2;
	for (int i = 3; i < argc; i += 2)
		file_open(&files[nfiles++], argv[i], argv[i + 1]);
	for (unsigned i = 0; i < n; i++)
		if (pthread_create(&t[i], NULL, reader, (void *)(uintptr_t)i))
			return 2;
	while (access(argv[1], F_OK) && clock_now_ns() < end)
		usleep(20000);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	printf("reads=%llu errors=%llu wrong=%llu longest_ms=%llu first_error=\"%s\"\n",
	       (unsigned long long)reads, (unsigned long long)errors, (unsigned long long)wrong,
	       (unsigned long long)(longest_ns / NSEC_PER_MSEC), first_error);
	return errors || wrong;
}
