/* SPDX-License-Identifier: Apache-2.0 */
/* At start: loop devices, mounts and nbdfuse processes of a supervisor that was killed. What was
 * restored is kept; of the rest only what a folder of ours names is ours. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/mounts.h"
#include "base/process.h"
#include "nbd/attach/nbdfuse_impl.h"
#include "nbd/attach/loopdev.h"

#define END_WAIT_MS 1000

/* Files of ours first, then the folder: nothing that someone else put there is lost. */
void attach_nbdfuse_dir_remove(const char *dir)
{
	static const char *const files[] = {"nbdfuse.pid", "device.json", "device.new"};
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), "%.*s/%s", PATH_MAX - 32, dir, files[i]);
		unlink(path);
	}
	if (rmdir(dir) && errno != ENOENT)
		log_warn("attach", "can't remove a folder", "path=%s why=\"%s\"", dir,
			 strerror(errno));
}

static bool keeps_loop(const struct attach_env *env, int index)
{
	for (size_t i = 0; i < env->nkept; i++)
		if (env->kept[i].way == &attach_nbdfuse && env->kept[i].index == index)
			return true;
	return false;
}

static void sweep_loops(const struct attach_env *env, const char *base)
{
	size_t len = strlen(base);
	char backing[PATH_MAX];
	struct dirent *d;
	int index;
	DIR *dir = opendir("/sys/block");

	while (dir && (d = readdir(dir))) {
		struct err err = {0};

		if (sscanf(d->d_name, "loop%d", &index) != 1 || !loopdev_backing(index, backing) ||
		    strncmp(backing, base, len) != 0 || backing[len] != '/' ||
		    keeps_loop(env, index))
			continue;
		if (loopdev_in_use(index, &err))
			log_warn("attach", "a device of an earlier run is in use; its reads fail",
				 "device=/dev/%s why=\"%s\"", d->d_name, err.text);
		if (loopdev_clear(index, &err))
			log_warn("attach", "a loop device is left over", "why=\"%s\"", err.text);
		else
			log_info("attach", "removed a device of an earlier run", "device=/dev/%s",
				 d->d_name);
	}
	if (dir)
		closedir(dir);
}

/* A pid may be anyone's by now: only an nbdfuse that names our folder is ours. */
static void sweep_nbdfuse(const struct attach_env *env, const char *dir)
{
	char path[PATH_MAX], cmdline[PATH_MAX], *text;
	struct process helper;
	size_t len;
	pid_t pid;
	int fd;
	ssize_t n;

	(void)env;
	snprintf(path, sizeof(path), "%.*s/nbdfuse.pid", PATH_MAX - 32, dir);
	if (file_read_all(path, 64, &text, &len))
		return;
	pid = atoi(text);
	free(text);
	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	fd = pid > 1 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	n = read(fd, cmdline, sizeof(cmdline) - 1);
	close(fd);
	if (n <= 0)
		return;
	cmdline[n] = 0;
	if (!strstr(cmdline, "nbdfuse") || !memmem(cmdline, (size_t)n, dir, strlen(dir)))
		return;
	helper = process_of(pid);
	kill(pid, SIGTERM);
	if (!process_ends(&helper, END_WAIT_MS))
		kill(pid, SIGKILL);
}

struct leftovers {
	const struct attach_env *env;
	const char *base;
	char (*points)[PATH_MAX];
	size_t n;
};

/* BASE/DIR/mnt.N: is DIR kept? */
static bool keeps_mount(const struct leftovers *l, const char *below)
{
	char dir[NAME_MAX + 1];

	snprintf(dir, sizeof(dir), "%.*s", (int)strcspn(below, "/"), below);
	return attach_keeps(l->env, dir);
}

static bool collect_mount(void *arg, const struct mount_entry *m)
{
	struct leftovers *l = arg;
	size_t len = strlen(l->base);
	void *more;

	if (strncmp(m->point, l->base, len) != 0 || m->point[len] != '/' ||
	    keeps_mount(l, m->point + len + 1))
		return true;
	more = realloc(l->points, (l->n + 1) * sizeof(*l->points));
	if (!more)
		return false;
	l->points = more;
	strcpy(l->points[l->n++], m->point);
	return true;
}

static void sweep_mounts(const struct attach_env *env, const char *base)
{
	struct leftovers l = {.env = env, .base = base};

	mounts_each("/proc/self/mountinfo", collect_mount, &l);
	for (size_t i = l.n; i-- > 0;)
		if (umount2(l.points[i], MNT_DETACH | UMOUNT_NOFOLLOW))
			log_warn("attach", "can't unmount", "path=%s why=\"%s\"", l.points[i],
				 strerror(errno));
	free(l.points);
}

static void sweep_folder(const struct attach_env *env, const char *dir)
{
	char path[PATH_MAX];
	struct dirent *d;
	DIR *folder = opendir(dir);

	(void)env;
	while (folder && (d = readdir(folder))) {
		snprintf(path, sizeof(path), "%.*s/%s", PATH_MAX - 300, dir, d->d_name);
		if (strncmp(d->d_name, "mnt.", 4) == 0)
			rmdir(path);
	}
	if (folder)
		closedir(folder);
	attach_nbdfuse_dir_remove(dir);
}

/* First loops, by a path that only the mount gives; then nbdfuse, mounts and folders. */
void attach_nbdfuse_sweep(const struct attach_env *env)
{
	char base[PATH_MAX];

	snprintf(base, sizeof(base), "%s/attach", env->runtime_dir);
	if (access(base, F_OK))
		return;
	sweep_loops(env, base);
	attach_leftovers_each(env, sweep_nbdfuse);
	sweep_mounts(env, base);
	attach_leftovers_each(env, sweep_folder);
}
