/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, owning and closing the store. */
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "store/store_impl.h"

/* mkdir -p, 0700 for what is new. */
static int make_dirs(const char *path)
{
	char part[1024];

	for (size_t i = 1; path[i - 1] && i < sizeof(part); i++) {
		if (path[i] != '/' && path[i] != 0)
			continue;
		memcpy(part, path, i);
		part[i] = 0;
		if (mkdir(part, 0700) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

static int open_subdir(struct store *s, const char *name, int *fd)
{
	if (mkdirat(s->dir_fd, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	*fd = openat(s->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *fd < 0 ? -errno : 0;
}

/* The flock is the ownership; the pid in the file is for the error text. */
static int take_lock(struct store *s, struct err *err)
{
	char pid[32] = "";
	int taken = -1;

	s->lock_fd = openat(s->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock_fd < 0)
		return err_set(err, -errno, "store %s: can't open its lock: %s", s->path,
			       strerror(errno));
	/* A worker that was killed holds it until the last of its threads is gone. */
	for (int i = 0; i < 50 && (taken = flock(s->lock_fd, LOCK_EX | LOCK_NB)) < 0; i++)
		usleep(20000);
	if (taken < 0) {
		ssize_t n = pread(s->lock_fd, pid, sizeof(pid) - 1, 0);

		pid[n > 0 ? strcspn(pid, "\n") : 0] = 0;
		return err_set(
			err, -EBUSY,
			"store %s belongs to another cairnd (pid %s): stop it, or give this one "
			"its own [store] path",
			s->path, pid[0] ? pid : "unknown");
	}
	snprintf(pid, sizeof(pid), "%d\n", getpid());
	if (ftruncate(s->lock_fd, 0) < 0 || pwrite_all(s->lock_fd, pid, strlen(pid), 0) < 0)
		log_warn("store", "can't note the pid in the lock", "path=%s", s->path);
	return 0;
}

static int check_version(struct store *s, struct err *err)
{
	char *have;
	size_t len;
	int rc = attr_read(s->dir_fd, "version", 256, &have, &len);

	if (rc == -ENOENT)
		rc = attr_write(s->dir_fd, "version", STORE_FORMAT, strlen(STORE_FORMAT));
	else if (!rc) {
		if (strcmp(have, STORE_FORMAT) != 0) {
			have[strcspn(have, "\n")] = 0;
			rc = err_set(err, -ENOTSUP,
				     "store %s is of format \"%.40s\", which this cairnd can't "
				     "read: use "
				     "the cairnd that made it, or an empty directory",
				     s->path, have);
		}
		free(have);
	} else if (rc) {
		err_set(err, rc, "store %s: can't read its version: %s", s->path, strerror(-rc));
	}
	if (rc && rc != -ENOTSUP)
		err_set(err, rc, "store %s: version file: %s", s->path, strerror(-rc));
	return rc;
}

static int decide_size(struct store *s, uint64_t size, struct err *err)
{
	struct statvfs v;

	if (size) {
		s->size = size;
		return 0;
	}
	if (fstatvfs(s->dir_fd, &v) < 0)
		return err_set(err, -errno, "store %s: statvfs: %s", s->path, strerror(errno));
	s->size = (uint64_t)v.f_blocks * v.f_frsize / 10 * 8;
	return 0;
}

static int load_objects(struct store *s, struct err *err)
{
	struct clean *clean = clean_take(s);
	int fd = openat(s->dir_fd, "objects", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;

	if (!d)
		rc = err_set(err, -errno, "store %s: objects: %s", s->path, strerror(errno));
	while (!rc && (e = readdir(d))) {
		struct object *o;
		struct err why = {0};

		if (e->d_name[0] == '.')
			continue;
		if (object_load(s, e->d_name, clean, &o, &why) < 0) {
			/* What can't be understood is left alone: it may be evidence. */
			log_warn("store", "object skipped", "name=%s why=\"%s\"", e->d_name,
				 why.text);
			continue;
		}
		rc = store_add(s, o);
	}
	if (d)
		closedir(d);
	log_info("store", "opened",
		 "path=%s objects=%" PRIu64 " used=%" PRIu64 " size=%" PRIu64 " stop=%s", s->path,
		 s->nobjects, (uint64_t)s->counters.used, s->size, clean ? "clean" : "unclean");
	clean_free(clean);
	return rc;
}

static int store_init(struct store *s, uint64_t size, struct err *err)
{
	int rc = make_dirs(s->path);

	if (!rc) {
		s->dir_fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = s->dir_fd < 0 ? -errno : 0;
	}
	if (rc)
		return err_set(err, rc,
			       "store %s: %s; set [store] path to a directory that can be written",
			       s->path, strerror(-rc));
	rc = take_lock(s, err);
	if (!rc)
		rc = check_version(s, err);
	if (rc)
		return rc;
	rc = open_subdir(s, "objects", &s->objects_fd);
	if (!rc)
		rc = open_subdir(s, "urls", &s->urls_fd);
	if (rc)
		return err_set(err, rc, "store %s: %s", s->path, strerror(-rc));
	rc = decide_size(s, size, err);
	return rc ? rc : load_objects(s, err);
}

static void store_free(struct store *s)
{
	pages_stop(s);
	evict_free(&s->evict);
	for (uint64_t i = 0; i < s->nobjects; i++)
		object_free(s->objects[i]);
	free(s->objects);
	free(s->buckets);
	pthread_mutex_destroy(&s->evict_lock);
	for (int *fd = (int[]){s->urls_fd, s->objects_fd, s->lock_fd, s->dir_fd, -2}; *fd != -2;
	     fd++)
		if (*fd >= 0)
			close(*fd);
	pthread_mutex_destroy(&s->opening);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int store_open(const char *path, uint64_t size, struct store **out, struct err *err)
{
	struct store *s = calloc(1, sizeof(*s));
	int rc;

	if (!s || strlen(path) >= sizeof(s->path)) {
		free(s);
		return err_set(err, s ? -ENAMETOOLONG : -ENOMEM, "store %.200s: can't be opened",
			       path);
	}
	strcpy(s->path, path);
	s->dir_fd = s->objects_fd = s->urls_fd = s->lock_fd = -1;
	pthread_mutex_init(&s->opening, NULL);
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->evict_lock, NULL);
	evict_init(&s->evict);
	quiesce_init(&s->quiesce);
	rc = store_init(s, size, err);
	if (rc) {
		store_free(s);
		return rc;
	}
	if (s->counters.used > s->size) /* the limit was lowered */
		store_evict(s, s->counters.used - s->size);
	*out = s;
	return 0;
}

void store_leave(struct store *s)
{
	int rc;

	pthread_mutex_lock(&s->lock); /* objects that are added */
	rc = clean_leave(s);
	pthread_mutex_unlock(&s->lock);
	if (rc)
		log_warn("store", "no clean mark: blocks are rechecked at next use",
			 "path=%s why=\"%s\"", s->path, strerror(-rc));
}

void store_close(struct store *s)
{
	store_leave(s);
	store_free(s);
}

uint64_t store_size(const struct store *s)
{
	return s->size;
}

uint64_t store_objects(struct store *s)
{
	uint64_t n;

	pthread_mutex_lock(&s->lock);
	n = s->nobjects;
	pthread_mutex_unlock(&s->lock);
	return n;
}

uint64_t store_wanted(struct store *s)
{
	uint64_t stored = 0, wanted = 0, from = 0, step;

	pthread_mutex_lock(&s->lock);
	pthread_mutex_lock(&s->evict_lock);
	step = s->evict.nlisted / 4096 + 1;
	for (uint64_t i = 0; i < s->nobjects; i++) {
		const struct object *o = s->objects[i];

		for (; from < o->set.nlisted; from += step) {
			uint64_t mask = atomic_load(&o->stored[o->set.listed[from]]);

			stored += (uint64_t)__builtin_popcountll(mask);
			mask &= atomic_load(&o->wanted[o->set.listed[from]]);
			wanted += (uint64_t)__builtin_popcountll(mask);
		}
		from -= o->set.nlisted;
	}
	pthread_mutex_unlock(&s->evict_lock);
	pthread_mutex_unlock(&s->lock);
	return stored ? (uint64_t)((double)atomic_load(&s->counters.used) * (double)wanted /
				   (double)stored)
		      : 0;
}

const char *store_path(const struct store *s)
{
	return s->path;
}

struct store_counters *store_counters(struct store *s)
{
	return &s->counters;
}

struct quiesce *store_quiesce(struct store *s)
{
	return &s->quiesce;
}
