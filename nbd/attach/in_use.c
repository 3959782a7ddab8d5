/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/attach/in_use.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "base/bounded.h"
#include "base/mounts.h"

#define IN_USE_WAIT_MS 5000
#define OPENER_TRIES   10 /* of 50 ms: how long udev may look at a new device */
#define PARTS_MAX      64

/* The device and its partitions. */
struct parts {
	dev_t dev[PARTS_MAX];
	char name[PARTS_MAX][32];
	int n;
};

static void parts_add(struct parts *p, const char *dir, const char *name)
{
	char path[320], text[32];
	unsigned major, minor;
	FILE *f;

	snprintf(path, sizeof(path), "%.280s/dev", dir);
	f = fopen(path, "re");
	if (!f)
		return;
	if (p->n < PARTS_MAX && fgets(text, sizeof(text), f) &&
	    sscanf(text, "%u:%u", &major, &minor) == 2) {
		snprintf(p->name[p->n], sizeof(p->name[0]), "%s", name);
		p->dev[p->n++] = makedev(major, minor);
	}
	fclose(f);
}

static void parts_find(struct parts *p, const char *name)
{
	char dir[64], sub[320];
	struct dirent *d;
	DIR *folder;

	p->n = 0;
	snprintf(dir, sizeof(dir), "/sys/block/%s", name);
	parts_add(p, dir, name);
	folder = opendir(dir);
	while (folder && (d = readdir(folder))) {
		if (strncmp(d->d_name, name, strlen(name)) != 0)
			continue;
		snprintf(sub, sizeof(sub), "%s/%.200s", dir, d->d_name);
		parts_add(p, sub, d->d_name);
	}
	if (folder)
		closedir(folder);
}

static bool find_holder(const char *name, char *text, size_t len)
{
	struct dirent *d;
	char path[64];
	DIR *dir;
	bool found = false;

	snprintf(path, sizeof(path), "/sys/block/%s/holders", name);
	dir = opendir(path);
	while (dir && !found && (d = readdir(dir))) {
		found = d->d_name[0] != '.';
		if (found)
			snprintf(text, len, "held by %.60s; take that down first", d->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* Calls fn for each process until it says true. */
static bool any_process(bool (*fn)(pid_t pid, const struct parts *p, char *text, size_t len),
			const struct parts *p, char *text, size_t len)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;
	bool found = false;

	while (proc && !found && (d = readdir(proc))) {
		pid_t pid = atoi(d->d_name);

		found = pid > 0 && pid != getpid() && fn(pid, p, text, len);
	}
	if (proc)
		closedir(proc);
	return found;
}

static bool mount_find(const char *mountinfo, const struct parts *p, struct mount_entry *m)
{
	for (int i = 0; i < p->n; i++)
		if (mounts_find_device(mountinfo, major(p->dev[i]), minor(p->dev[i]), m))
			return true;
	return false;
}

static bool mounts_it(pid_t pid, const struct parts *p, char *text, size_t len)
{
	struct mount_entry m;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
	if (!mount_find(path, p, &m))
		return false;
	snprintf(text, len,
		 "mounted on %.300s in the mount namespace of process %d; unmount it first",
		 m.point, pid);
	return true;
}

static bool links_to(const char *link, const struct parts *p)
{
	for (int i = 0; i < p->n; i++)
		if (strncmp(link, "/dev/", 5) == 0 && strcmp(link + 5, p->name[i]) == 0)
			return true;
	return false;
}

static void opener_tell(pid_t pid, char *text, size_t len)
{
	char path[64], comm[64] = "?";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (f && fgets(comm, sizeof(comm), f))
		comm[strcspn(comm, "\n")] = 0;
	if (f)
		fclose(f);
	snprintf(text, len, "open in process %d (%s); end it first", pid, comm);
}

static bool has_it_open(pid_t pid, const struct parts *p, char *text, size_t len)
{
	char dir[64], link[64];
	struct dirent *d;
	bool found = false;
	DIR *fds;

	snprintf(dir, sizeof(dir), "/proc/%d/fd", pid);
	fds = opendir(dir);
	while (fds && !found && (d = readdir(fds))) {
		ssize_t n = readlinkat(dirfd(fds), d->d_name, link, sizeof(link) - 1);

		link[n > 0 ? n : 0] = 0;
		found = links_to(link, p);
	}
	if (fds)
		closedir(fds);
	if (found)
		opener_tell(pid, text, len);
	return found;
}

/* Does a mount or another exclusive owner have it? */
static bool is_claimed(const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (fd < 0)
		return errno == EBUSY;
	close(fd);
	return false;
}

static int use_in_child(void *arg, struct bounded_result *res)
{
	const char *name = arg;
	struct mount_entry m;
	struct parts p;

	parts_find(&p, name);
	if (mount_find("/proc/self/mountinfo", &p, &m)) {
		snprintf(res->text, sizeof(res->text), "mounted on %.400s; unmount it first",
			 m.point);
		return -EBUSY;
	}
	if (find_holder(name, res->text, sizeof(res->text)))
		return -EBUSY;
	for (int i = 0;; i++) {
		bool claimed = is_claimed(name);
		bool open_now = any_process(has_it_open, &p, res->text, sizeof(res->text));

		if (!claimed && !open_now)
			return 0;
		if (i + 1 < OPENER_TRIES) {
			nanosleep(&(struct timespec){.tv_nsec = 50 * 1000000}, NULL);
			continue;
		}
		if (!open_now && !any_process(mounts_it, &p, res->text, sizeof(res->text)))
			strcpy(res->text,
			       "claimed inside the kernel (a mount that was detached lazily?)");
		return -EBUSY;
	}
}

int device_in_use(const char *name, struct err *err)
{
	struct bounded_result res;
	int rc = bounded_call(use_in_child, (void *)name, IN_USE_WAIT_MS, &res);

	if (rc)
		return err_set(err, rc, "/dev/%s is %s", name,
			       res.text[0] ? res.text : strerror(-rc));
	return 0;
}
