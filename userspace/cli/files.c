/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/files.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mounts.h"

#define MOUNTINFO  "/proc/self/mountinfo"
#define RANGES_MAX (1U << 20)
#define TEXT_MAX   (32U << 20)
#define LOST_TRIES 20  /* of 5 ms */
#define ASK_RANGES 32U /* of a file, in one FIEMAP */

struct named {
	uint64_t ino;
	uint32_t name; /* in text */
};

struct range {
	uint64_t off, len;
	uint32_t file;
};

/* Written by the child, read by us; a count is moved on when what it counts is whole. Pages that
 * are not touched cost nothing. */
struct shared {
	_Atomic uint32_t files, ranges;
	uint32_t text_used;
	struct named file[FILES_MAX];
	struct range range[RANGES_MAX];
	char text[TEXT_MAX];
};

struct files {
	struct mount_entry mount;
	struct shared *shared;
	pid_t child; /* 0 = it ended */
	uint64_t deadline_ns;
};

/* ---- the child ---- */

/* False: no room for another. */
static bool range_add(struct shared *s, uint64_t off, uint64_t len, uint32_t file)
{
	uint32_t n = atomic_load(&s->ranges);

	if (n == RANGES_MAX)
		return false;
	s->range[n] = (struct range){off, len, file};
	atomic_store(&s->ranges, n + 1);
	return true;
}

static bool file_add(struct shared *s, const char *name, uint64_t ino)
{
	uint32_t n = atomic_load(&s->files), len = (uint32_t)strlen(name) + 1;

	if (n == FILES_MAX || TEXT_MAX - s->text_used < len)
		return false;
	memcpy(s->text + s->text_used, name, len);
	s->file[n] = (struct named){ino, s->text_used};
	s->text_used += len;
	atomic_store(&s->files, n + 1);
	return true;
}

static void ranges_ask(struct shared *s, int fd, uint32_t file)
{
	union {
		struct fiemap map;
		char room[sizeof(struct fiemap) + ASK_RANGES * sizeof(struct fiemap_extent)];
	} ask;
	uint64_t at = 0;
	bool last = false;

	while (!last) {
		memset(&ask, 0, sizeof(ask));
		ask.map.fm_start = at;
		ask.map.fm_length = FIEMAP_MAX_OFFSET - at;
		ask.map.fm_extent_count = ASK_RANGES;
		if (ioctl(fd, FS_IOC_FIEMAP, &ask.map) || !ask.map.fm_mapped_extents)
			return;
		for (uint32_t i = 0; i < ask.map.fm_mapped_extents; i++) {
			const struct fiemap_extent *e = &ask.map.fm_extents[i];

			at = e->fe_logical + e->fe_length;
			last = last || e->fe_flags & FIEMAP_EXTENT_LAST;
			if (!(e->fe_flags & FIEMAP_EXTENT_UNKNOWN) &&
			    !range_add(s, e->fe_physical, e->fe_length, file))
				return;
		}
	}
}

static void walk(struct shared *s, const char *root)
{
	char *roots[] = {(char *)root, NULL};
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
	size_t skip = strlen(root);
	FTSENT *e;

	while (fts && (e = fts_read(fts))) {
		int fd;

		if (e->fts_info != FTS_F)
			continue;
		if (!file_add(s, e->fts_path + skip + (e->fts_path[skip] == '/'),
			      e->fts_statp->st_ino))
			break;
		fd = open(e->fts_path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOATIME | O_CLOEXEC);
		if (fd < 0)
			continue;
		ranges_ask(s, fd, atomic_load(&s->files) - 1);
		close(fd);
	}
}

static void child_run(struct files *f)
{
	struct stat st;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int sig = 1; sig < 32; sig++)
		signal(sig, SIG_DFL);
	signal(SIGINT, SIG_IGN); /* the parent ends us */
	if (!lstat(f->mount.point, &st) && major(st.st_dev) == f->mount.major &&
	    minor(st.st_dev) == f->mount.minor)
		walk(f->shared, f->mount.point);
	_exit(0);
}

/* ---- the parent ---- */

struct files *files_start(const char *device)
{
	struct files *f = calloc(1, sizeof(*f));
	struct stat st;

	if (!f)
		return NULL;
	f->shared = mmap(NULL, sizeof(*f->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (f->shared == MAP_FAILED || stat(device, &st) || !S_ISBLK(st.st_mode) ||
	    !mounts_find_device(MOUNTINFO, major(st.st_rdev), minor(st.st_rdev), &f->mount)) {
		if (f->shared != MAP_FAILED)
			munmap(f->shared, sizeof(*f->shared));
		free(f);
		return NULL;
	}
	f->deadline_ns = clock_now_ns() + FILES_WAIT_MS * NSEC_PER_MSEC;
	f->child = fork();
	if (f->child == 0)
		child_run(f);
	if (f->child < 0)
		f->child = 0;
	return f;
}

static void child_look(struct files *f)
{
	if (f->child && waitpid(f->child, NULL, WNOHANG) == f->child)
		f->child = 0;
	if (!f->child || clock_now_ns() < f->deadline_ns)
		return;
	kill(f->child, SIGKILL);
	/* so that the mount is free again; but one that hangs in there is not waited for */
	for (int i = 0; i < LOST_TRIES && waitpid(f->child, NULL, WNOHANG) != f->child; i++)
		nanosleep(&(struct timespec){.tv_nsec = 5 * NSEC_PER_MSEC}, NULL);
	f->child = 0;
}

void files_settle(struct files *f, bool patiently)
{
	child_look(f);
	while (patiently && f->child) {
		nanosleep(&(struct timespec){.tv_nsec = 10 * NSEC_PER_MSEC}, NULL);
		child_look(f);
	}
}

void files_free(struct files *f)
{
	if (!f)
		return;
	f->deadline_ns = 0;
	child_look(f);
	munmap(f->shared, sizeof(*f->shared));
	free(f);
}

bool files_stand(const struct files *f)
{
	struct mount_entry m;

	return mounts_find_device(MOUNTINFO, f->mount.major, f->mount.minor, &m) &&
	       strcmp(m.point, f->mount.point) == 0;
}

const char *files_mount_point(const struct files *f)
{
	return f->mount.point;
}

static const char *name_of(const struct files *f, uint32_t file)
{
	return f->shared->text + f->shared->file[file].name;
}

const char *files_of_range(const struct files *f, uint64_t off, uint64_t len, uint32_t *others)
{
	uint32_t n = atomic_load(&f->shared->ranges), best = UINT32_MAX, last = UINT32_MAX;
	uint64_t most = 0, sum = 0;

	*others = 0;
	for (uint32_t i = 0; i < n; i++) {
		const struct range *r = &f->shared->range[i];
		uint64_t from = r->off > off ? r->off : off;
		uint64_t to = r->off + r->len < off + len ? r->off + r->len : off + len;

		if (from >= to)
			continue;
		if (r->file != last) { /* a file's ranges stand together */
			*others += last != UINT32_MAX;
			last = r->file;
			sum = 0;
		}
		sum += to - from;
		if (sum > most) {
			most = sum;
			best = r->file;
		}
	}
	return best == UINT32_MAX ? NULL : name_of(f, best);
}

const char *files_of_inode(const struct files *f, uint64_t ino)
{
	uint32_t n = atomic_load(&f->shared->files);

	for (uint32_t i = 0; i < n; i++)
		if (f->shared->file[i].ino == ino)
			return name_of(f, i);
	return NULL;
}
