/* SPDX-License-Identifier: Apache-2.0 */
/* For test_observe.sh: patterns of reads, and a look at the observer's maps past the daemon.
 *
 *	observe_tool read sequential|backwards|stride|random|direct FILE
 *	observe_tool read cold|warm FILE SECONDS	again and again, with an empty page cache or
 *not observe_tool willneed FILE N			N windows of pages that are there already
 *	observe_tool stats PID				"NAME VALUE" summed over all devices
 *	observe_tool streams PID INO			"VERDICT RUN STRIDE WINDOWS", a line a
 *stream observe_tool heat PID FIRST LAST		"HEAT INSIDE|outside IDX", the hottest first
 *	observe_tool ring PID				bytes produced and not yet taken
 *	observe_tool nonsense PID BYTE			the policy array, all of it
 *	observe_tool policy PID cgroup|device ID MIN_RUN FLAGS	one entry; device: the slot, or all
 *	observe_tool without-bpf COMMAND...		bpf(2) says EPERM
 * PID is the supervisor's: its descriptors name the maps.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include <heat.h>
#include <observe.h>
#include <policy.h>
#include <stream.h>

#include "base/clock.h"

#define PIECE (64U * 1024)

static void die(const char *what)
{
	fprintf(stderr, "observe_tool: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- reading ---- */

static void read_at(int fd, uint64_t off, uint32_t len)
{
	static char buf[PIECE] __attribute__((aligned(4096)));

	if (pread(fd, buf, len, (off_t)off) < 0)
		die("read");
}

static void read_through(int fd, uint64_t size)
{
	for (uint64_t off = 0; off < size; off += PIECE)
		read_at(fd, off, PIECE);
}

static void read_for(int fd, uint64_t size, double secs, bool cold)
{
	uint64_t end = clock_now_ns() + (uint64_t)(secs * 1e9);

	while (clock_now_ns() < end) {
		if (cold)
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		read_through(fd, size);
	}
}

static void read_pattern(const char *pattern, const char *path, double secs)
{
	bool direct = strcmp(pattern, "direct") == 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
	struct stat st;
	uint64_t size;

	if (fd < 0 || fstat(fd, &st))
		die(path);
	size = (uint64_t)st.st_size;
	srandom(7);
	if (strcmp(pattern, "sequential") == 0 || direct)
		read_through(fd, size);
	else if (strcmp(pattern, "backwards") == 0)
		for (uint64_t off = size - size % 4096; off >= 4096; off -= 4096)
			read_at(fd, off - 4096, 4096);
	else if (strcmp(pattern, "stride") == 0)
		for (uint64_t off = 0; off < size; off += 256 * 1024)
			read_at(fd, off, 4096);
	else if (strcmp(pattern, "random") == 0)
		for (int i = 0; i < 200; i++)
			read_at(fd, (uint64_t)random() % (size / 4096) * 4096, 4096);
	else
		read_for(fd, size, secs, strcmp(pattern, "cold") == 0);
	close(fd);
}

static void willneed(const char *path, int n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die(path);
	for (int i = 0; i < n; i++)
		posix_fadvise(fd, i % 512 * 8192, 4096, POSIX_FADV_WILLNEED);
}

/* ---- maps ---- */

static unsigned map_id_of(const char *dir, const char *fd)
{
	char path[300], line[128];
	unsigned id = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "map_id: %u", &id) == 1)
			break;
	if (f)
		fclose(f);
	return id;
}

static int map_open(const char *pid, const char *name)
{
	char dir[64];
	struct dirent *e;
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%s/fdinfo", pid);
	d = opendir(dir);
	while (d && (e = readdir(d))) {
		unsigned id = map_id_of(dir, e->d_name);
		struct bpf_map_info info = {0};
		unsigned len = sizeof(info);
		int fd = id ? bpf_map_get_fd_by_id(id) : -1;

		if (fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &len) &&
		    strcmp(info.name, name) == 0) {
			closedir(d);
			return fd;
		}
		if (fd >= 0)
			close(fd);
	}
	errno = ENOENT;
	die(name);
	return -1;
}

static void *map_view(int fd, size_t len, int prot)
{
	void *p = mmap(NULL, len, prot, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static void stats(const char *pid)
{
	static const char *const names[] = {"requests",	    "request_bytes", "windows",
					    "window_bytes", "asked_pages",   "missed_pages",
					    "faults",	    "sequential",    "stride",
					    "random",	    "lost"};
	size_t n = OBSERVE_DEVICES * OBSERVE_STRIPES, words = sizeof(struct observe_stats) / 8;
	const uint64_t *s = map_view(map_open(pid, "cairn_stats"), n * words * 8, PROT_READ);

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		uint64_t sum = 0;

		for (size_t j = 0; j < n; j++)
			sum += s[j * words + i];
		printf("%s %" PRIu64 "\n", names[i], sum);
	}
}

static void streams(const char *pid, uint64_t ino)
{
	static const char *const verdicts[] = {"new", "sequential", "stride", "random"};
	int fd = map_open(pid, "cairn_streams");
	struct stream s;

	for (uint32_t i = 0; bpf_map_lookup_elem(fd, &i, &s) == 0; i++)
		if (s.windows && s.ino == ino)
			printf("%s %u %lld %u\n", verdicts[s.verdict & 3], stream_run(&s),
			       (long long)(s.verdict == STREAM_STRIDE ? s.stride : 0), s.windows);
}

struct place {
	uint32_t heat, idx;
};

static int hotter(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return x->heat < y->heat ? 1 : x->heat > y->heat ? -1 : (int)x->idx - (int)y->idx;
}

/* Of the one device that is watched. */
static void heat(const char *pid, uint32_t first, uint32_t last)
{
	int fd = map_open(pid, "cairn_cells");
	struct bpf_map_info info = {0};
	unsigned len = sizeof(info);
	const uint32_t *cells;
	struct place *p;
	uint32_t epoch = heat_epoch(clock_now_ns(), POLICY_HALF_LIFE_DEFAULT_MS);

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		die("cairn_cells");
	cells = map_view(fd, info.max_entries * 8UL, PROT_READ);
	p = calloc(info.max_entries * 2UL, sizeof(*p));
	for (uint32_t i = 0; p && i < info.max_entries * 2; i++)
		p[i] = (struct place){heat_now(cells[i], epoch), i};
	if (p)
		qsort(p, info.max_entries * 2UL, sizeof(*p), hotter);
	for (uint32_t i = 0; p && i < info.max_entries * 2 && p[i].heat; i++)
		printf("%u %s %u\n", p[i].heat,
		       p[i].idx >= first && p[i].idx <= last ? "INSIDE" : "outside", p[i].idx);
	free(p);
}

static void ring(const char *pid)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int fd = map_open(pid, "cairn_events");
	const uint64_t *consumer = map_view(fd, page, PROT_READ);
	const uint64_t *producer = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, (off_t)page);

	if (producer == MAP_FAILED)
		die("cairn_events");
	printf("%" PRIu64 " %" PRIu64 "\n", *producer, *producer - *consumer);
}

static void nonsense(const char *pid, int byte)
{
	int fd = map_open(pid, "cairn_policy");
	struct policy p;

	memset(&p, byte, sizeof(p));
	for (uint32_t i = 0; i < POLICY_ENTRIES; i++)
		if (bpf_map_update_elem(fd, &i, &p, BPF_ANY))
			die("cairn_policy");
}

static void policy(const char *pid, char **argv)
{
	int fd = map_open(pid, "cairn_policy");
	uint64_t id = strtoull(argv[1], NULL, 0);
	bool cgroup = strcmp(argv[0], "cgroup") == 0;
	uint32_t head = POLICY_HEAD, at = cgroup ? policy_cgroup_entry(id, 0) : (uint32_t)id;
	struct policy one = {.cgroup = 1}, p = {.cgroup = cgroup ? id : 0,
						.flags = POLICY_SET | (uint32_t)atoi(argv[3]),
						.half_life_ms = POLICY_HALF_LIFE_DEFAULT_MS,
						.min_run = (uint32_t)atoi(argv[2]),
						.ring_sampling = 1};

	for (uint32_t i = 0; strcmp(argv[1], "all") == 0 && i < OBSERVE_DEVICES; i++)
		if (bpf_map_update_elem(fd, &i, &p, BPF_ANY))
			die("cairn_policy");
	if (bpf_map_update_elem(fd, &at, &p, BPF_ANY) ||
	    (cgroup && bpf_map_update_elem(fd, &head, &one, BPF_ANY)))
		die("cairn_policy");
}

/* ---- without the right ---- */

static void without_bpf(char **argv)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {.len = 4, .filter = code};

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
		die("seccomp");
	execvp(argv[0], argv);
	die(argv[0]);
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	if (strcmp(what, "without-bpf") == 0)
		without_bpf(argv + 2);
	else if (strcmp(what, "read") == 0 && argc > 3)
		read_pattern(argv[2], argv[3], argc > 4 ? atof(argv[4]) : 0);
	else if (strcmp(what, "willneed") == 0 && argc > 3)
		willneed(argv[2], atoi(argv[3]));
	else if (strcmp(what, "stats") == 0)
		stats(argv[2]);
	else if (strcmp(what, "streams") == 0 && argc > 3)
		streams(argv[2], strtoull(argv[3], NULL, 0));
	else if (strcmp(what, "heat") == 0 && argc > 4)
		heat(argv[2], (uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]));
	else if (strcmp(what, "ring") == 0)
		ring(argv[2]);
	else if (strcmp(what, "nonsense") == 0 && argc > 3)
		nonsense(argv[2], atoi(argv[3]));
	else if (strcmp(what, "policy") == 0 && argc > 6)
		policy(argv[2], argv + 3);
	else
		return fprintf(stderr, "observe_tool: what? see its source\n"), 2;
	return 0;
}
