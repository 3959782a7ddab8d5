/* SPDX-License-Identifier: Apache-2.0 */
#include "image/build.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* mkfs.erofs sorts what it reads; the build time is the newest mtime, so no file's is cut. */
static int build_erofs(const char *dir, const char *path, const struct listing *l, struct err *err)
{
	char epoch[64];
	char *const argv[] = {"mkfs.erofs", "--quiet",	 "-U", (char *)l->uuid,
			      (char *)path, (char *)dir, NULL};
	char *const env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC", epoch,
			     NULL};

	snprintf(epoch, sizeof(epoch), "SOURCE_DATE_EPOCH=%llu", (unsigned long long)l->newest);
	return tool_run(argv, env, "erofs-utils", NULL, 0, err);
}

/* The real path of the directory that @path is in. */
static int parent_of(const char *path, char out[PATH_MAX], struct err *err)
{
	char copy[PATH_MAX];

	if (snprintf(copy, sizeof(copy), "%s", path) >= PATH_MAX - 8)
		return err_set(err, -ENAMETOOLONG, "the path %.60s... is too long", path);
	if (!realpath(dirname(copy), out))
		return err_set(err, -errno, "can't write %s: %s", path, strerror(errno));
	return 0;
}

static int check_paths(const char *dir, const char *image, bool force, struct err *err)
{
	char real_dir[PATH_MAX], parent[PATH_MAX];
	struct stat st;
	size_t n;
	int rc = parent_of(image, parent, err);

	if (rc)
		return rc;
	if (!realpath(dir, real_dir))
		return err_set(err, -errno, "can't read %s: %s", dir, strerror(errno));
	n = strcmp(real_dir, "/") == 0 ? 0 : strlen(real_dir);
	if (strncmp(parent, real_dir, n) == 0 && (parent[n] == '/' || parent[n] == 0))
		return err_set(err, -EINVAL, "%s is inside %s, so the image would hold itself",
			       image, dir);
	if (lstat(image, &st))
		return 0;
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s is there and not a regular file", image);
	if (!force)
		return err_set(err, -EEXIST, "%s exists; --force replaces it", image);
	return 0;
}

/* Durable first, then under its name: a crash leaves the old file, the new one, or IMAGE.tmp. */
static int put_in_place(const char *tmp, const char *image, bool force, struct err *err)
{
	int fd = open(tmp, O_RDWR | O_CLOEXEC), rc = 0;

	if (fd < 0 || fsync(fd))
		rc = -errno;
	if (fd >= 0)
		close(fd);
	if (!rc && renameat2(AT_FDCWD, tmp, AT_FDCWD, image, force ? 0 : RENAME_NOREPLACE))
		rc = -errno;
	if (rc == -EINVAL && !force) /* a file system without RENAME_NOREPLACE */
		rc = link(tmp, image) ? -errno : unlink(tmp) ? -errno : 0;
	return rc ? err_set(err, rc, "can't write %s: %s", image, strerror(-rc)) : 0;
}

int image_build(const char *dir, const char *image, enum build_fs fs, bool force, struct err *err)
{
	struct listing l;
	char tmp[PATH_MAX];
	sigset_t deadly, was;
	int rc = check_paths(dir, image, force, err);

	if (rc || (rc = listing_read(dir, &l, err)))
		return rc;
	snprintf(tmp, sizeof(tmp), "%s.tmp", image);
	if (unlink(tmp) && errno != ENOENT)
		return err_set(err, -errno, "can't replace %s: %s", tmp, strerror(errno));
	tool_signals(&deadly);
	sigprocmask(SIG_BLOCK, &deadly, &was);
	rc = fs == BUILD_EXT4 ? build_ext4(dir, tmp, &l, err) : build_erofs(dir, tmp, &l, err);
	if (!rc)
		rc = put_in_place(tmp, image, force, err);
	if (rc)
		unlink(tmp);
	sigprocmask(SIG_SETMASK, &was, NULL); /* a signal that came meanwhile strikes here */
	return rc;
}
