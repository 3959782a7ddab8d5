/* SPDX-License-Identifier: Apache-2.0 */
/* Reads whole files below a folder, and prints one line of JSON.
 *
 *	filesread order FOLDER THREADS SECONDS
 *	filesread random FOLDER THREADS SECONDS LIST SEED
 *
 * order takes them as the directories list them, and lists them on the way; random takes each file
 * that LIST names once, in an order made from SEED, and lists nothing. It stops after SECONDS or
 * the last file. "unique_bytes" are those read, in whole pages.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "latency.h"

#define READ_LEN    (1U << 20)
#define PAGE	    4096U
#define FOLDERS_MAX 16
#define THREADS_MAX 256

struct walk {
	DIR *dirs[FOLDERS_MAX]; /* the one being listed last */
	char *paths[FOLDERS_MAX];
	unsigned depth;
};

struct reader {
	pthread_t thread;
	uint64_t files, bytes, pages;
	struct latency latency;
};

static struct walk walk;
static char **list; /* random: every file, shuffled */
static size_t list_len;
static size_t list_next;
static uint64_t end_ns;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "filesread: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	exit(1);
}

static void walk_into(char *path)
{
	if (walk.depth == FOLDERS_MAX)
		die("%s: too deep", path);
	walk.paths[walk.depth] = path;
	walk.dirs[walk.depth] = opendir(path);
	if (!walk.dirs[walk.depth])
		die("%s: %s", path, strerror(errno));
	walk.depth++;
}

/* The next file in directory order, which the caller frees; NULL after the last. */
static char *walk_next(void)
{
	while (walk.depth > 0) {
		struct dirent *e = readdir(walk.dirs[walk.depth - 1]);
		char *path;

		if (!e) {
			closedir(walk.dirs[--walk.depth]);
			free(walk.paths[walk.depth]);
			continue;
		}
		if (e->d_name[0] == '.' || (e->d_type != DT_DIR && e->d_type != DT_REG))
			continue;
		if (asprintf(&path, "%s/%s", walk.paths[walk.depth - 1], e->d_name) < 0)
			die("no memory");
		if (e->d_type == DT_REG)
			return path;
		walk_into(path);
	}
	return NULL;
}

/* The paths of @file, which are below @folder, shuffled. */
static void read_list(const char *folder, const char *file, uint64_t seed)
{
	FILE *f = fopen(file, "re");
	char line[4096];
	size_t room = 0;

	if (!f)
		die("%s: %s", file, strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		if (list_len == room)
			list = realloc(list, (room = 2 * room + 1024) * sizeof(*list));
		if (!list || asprintf(&list[list_len++], "%s/%s", folder, line) < 0)
			die("no memory");
	}
	fclose(f);
	for (size_t i = list_len; i > 1; i--) {
		char *path = list[i - 1];
		size_t j;

		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		j = (size_t)((seed >> 33) % i);
		list[i - 1] = list[j];
		list[j] = path;
	}
}

static char *next_file(void)
{
	char *path = NULL;

	pthread_mutex_lock(&lock);
	if (clock_now_ns() < end_ns) {
		if (!list)
			path = walk_next();
		else if (list_next < list_len)
			path = list[list_next++];
	}
	pthread_mutex_unlock(&lock);
	return path;
}

static void read_one(struct reader *r, const char *path, char *buf)
{
	uint64_t t0 = clock_now_ns(), len = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	while (fd >= 0 && (n = read(fd, buf, READ_LEN)) > 0)
		len += (uint64_t)n;
	if (n < 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
	latency_add(&r->latency, clock_now_ns() - t0);
	r->files++;
	r->bytes += len;
	r->pages += (len + PAGE - 1) / PAGE;
}

static void *reader_main(void *arg)
{
	char *buf = malloc(READ_LEN), *path;

	while (buf && (path = next_file())) {
		read_one(arg, path, buf);
		free(path);
	}
	free(buf);
	return NULL;
}

static void report(struct reader **readers, unsigned n, double seconds)
{
	static struct latency all;
	uint64_t files = 0, bytes = 0, pages = 0;

	for (unsigned i = 0; i < n; i++) {
		files += readers[i]->files;
		bytes += readers[i]->bytes;
		pages += readers[i]->pages;
		latency_merge(&all, &readers[i]->latency);
	}
	printf("{\"files\":%ju,\"bytes\":%ju,\"unique_bytes\":%ju,\"seconds\":%.4f,"
	       "\"MBps\":%.2f,\"files_a_thread\":%.2f,\"p50_us\":%.1f,"
	       "\"p99_us\":%.1f}\n",
	       (uintmax_t)files, (uintmax_t)bytes, (uintmax_t)pages * PAGE, seconds,
	       (double)bytes / 1e6 / seconds, (double)files / seconds / n, latency_us(&all, 0.5),
	       latency_us(&all, 0.99));
}

int main(int argc, char **argv)
{
	struct reader *readers[THREADS_MAX];
	int n = argc > 3 ? atoi(argv[3]) : 0;
	uint64_t t0;

	if (argc == 7 && strcmp(argv[1], "random") == 0)
		read_list(argv[2], argv[5], strtoull(argv[6], NULL, 10));
	else if (argc == 5 && strcmp(argv[1], "order") == 0)
		walk_into(strdup(argv[2]));
	else
		n = 0;
	if (n < 1 || n > THREADS_MAX)
		die("usage: filesread order FOLDER THREADS SECONDS, or "
		    "filesread random FOLDER THREADS SECONDS LIST SEED");
	t0 = clock_now_ns();
	end_ns = t0 + (uint64_t)(atof(argv[4]) * 1e9);
	for (int i = 0; i < n; i++) {
		readers[i] = calloc(1, sizeof(*readers[i]));
		if (!readers[i] ||
		    pthread_create(&readers[i]->thread, NULL, reader_main, readers[i]))
			die("cannot start a thread");
	}
	for (int i = 0; i < n; i++)
		pthread_join(readers[i]->thread, NULL);
	report(readers, (unsigned)n, (double)(clock_now_ns() - t0) / 1e9);
	return 0;
}
