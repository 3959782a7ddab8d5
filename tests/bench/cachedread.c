/* SPDX-License-Identifier: Apache-2.0 */
/* Reads 4 KiB pieces of a file that is in the page cache, in an order that looks random, and prints
 * one line of JSON for each second.
 *
 *	cachedread FILE SECONDS
 *
 * Reads per second of CPU time beside those per second: the former is the figure on a machine that
 * others use too, and what hooks cost is CPU time of this thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECE 4096
#define BATCH 1024

static double seconds(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* All of the file once, so that what follows is in the page cache. */
static int warm(int fd)
{
	static char buf[1 << 20];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		;
	return n ? -errno : 0;
}

/* One second. */
static int measure(int fd, uint64_t pieces)
{
	double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_THREAD_CPUTIME_ID), end;
	uint64_t reads = 0, at = 1;
	char buf[PIECE];

	do {
		for (int i = 0; i < BATCH; i++) {
			at = at * 6364136223846793005ULL + 1442695040888963407ULL;
			if (pread(fd, buf, PIECE, (off_t)((at >> 33) % pieces * PIECE)) != PIECE)
				return -EIO;
		}
		reads += BATCH;
		end = seconds(CLOCK_MONOTONIC);
	} while (end - wall < 1);
	cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
	printf("{\"reads\": %llu, \"per_second\": %.0f, \"per_cpu_second\": %.0f}\n",
	       (unsigned long long)reads, (double)reads / (end - wall), (double)reads / cpu);
	return 0;
}

int main(int argc, char **argv)
{
	struct stat st;
	int fd, rc;

	if (argc != 3)
		return fputs("usage: cachedread FILE SECONDS\n", stderr), 2;
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) || st.st_size < PIECE)
		return fprintf(stderr, "%s: %s\n", argv[1], strerror(errno)), 1;
	rc = warm(fd);
	for (int i = 0; !rc && i < atoi(argv[2]); i++)
		rc = measure(fd, (uint64_t)st.st_size / PIECE);
	if (rc)
		fprintf(stderr, "%s: %s\n", argv[1], strerror(-rc));
	return rc ? 1 : 0;
}
