/* SPDX-License-Identifier: Apache-2.0 */
#include "observe/cgroup.h"

#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/mounts.h"

struct search {
	const char *path;
	struct mount_entry
		under; /* what @path is in: the longest mount point, the newest of equals */
	char cgroup2[PATH_MAX]; /* a place where that is mounted, "" = nowhere */
};

static bool is_within(const char *path, const char *point)
{
	size_t len = strlen(point);

	if (len == 1) /* "/" */
		return true;
	return strncmp(path, point, len) == 0 && (!path[len] || path[len] == '/');
}

static bool on_mount(void *arg, const struct mount_entry *m)
{
	struct search *s = arg;

	if (strcmp(m->type, "cgroup2") == 0 && !s->cgroup2[0])
		strcpy(s->cgroup2, m->point);
	if (is_within(s->path, m->point) && strlen(m->point) >= strlen(s->under.point))
		s->under = *m;
	return true;
}

static bool goes_up(const char *path)
{
	for (const char *p = strstr(path, "/.."); p; p = strstr(p + 1, "/.."))
		if (!p[3] || p[3] == '/')
			return true;
	return false;
}

static int refuse(const struct search *s, const char *is, struct err *err)
{
	if (!s->cgroup2[0])
		return err_set(err, -EINVAL, "%s %s, and cgroup2 is not mounted here", s->path, is);
	return err_set(err, -EINVAL, "%s %s; name a cgroup by its folder under %s (cgroup2)",
		       s->path, is, s->cgroup2);
}

int cgroup_find(const char *mountinfo, const char *path, uint64_t *id, struct err *err)
{
	struct search s = {.path = path};
	struct statfs fs;
	struct stat st;

	mounts_each(mountinfo, on_mount, &s);
	if (path[0] != '/' || goes_up(path))
		return refuse(&s, "is no absolute path without ..", err);
	if (strcmp(s.under.type, "cgroup") == 0)
		return refuse(&s, "is a cgroup of version 1, which has no id to go by", err);
	if (strcmp(s.under.type, "cgroup2") != 0)
		return refuse(&s, "is no cgroup", err);
	if (stat(path, &st))
		return err_set(err, -errno, "there is no cgroup %s: %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode) || statfs(path, &fs) || fs.f_type != CGROUP2_SUPER_MAGIC)
		return refuse(&s, "is no cgroup", err);
	*id = st.st_ino;
	return 0;
}
