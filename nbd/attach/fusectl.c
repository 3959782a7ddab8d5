/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/attach/fusectl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mounts.h"

#define FUSECTL "/sys/fs/fuse/connections"

/* <linux/mount.h> and <sys/mount.h> do not go together everywhere. */
#define FSOPEN_CLOEXEC_	 1
#define FSMOUNT_CLOEXEC_ 1
#define FSCONFIG_CREATE_ 6

/* A container has the file system mounted nowhere: then a mount of our own, which nobody sees and
 * which goes with its descriptor (5.2 and later). */
static int fusectl_mount(void)
{
	int fs = (int)syscall(SYS_fsopen, "fusectl", FSOPEN_CLOEXEC_), fd;

	if (fs < 0)
		return -errno;
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CREATE_, NULL, NULL, 0) < 0)
		fd = -errno;
	else
		fd = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC_, 0);
	if (fd == -1)
		fd = -errno;
	close(fs);
	return fd;
}

static int connection_open(unsigned id)
{
	char name[32];
	int top = open(FUSECTL, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd;

	snprintf(name, sizeof(name), "%u", id);
	fd = top < 0 ? -1 : openat(top, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top >= 0)
		close(top);
	if (fd >= 0)
		return fd;
	top = fusectl_mount();
	if (top < 0)
		return top;
	fd = openat(top, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	close(top);
	return fd;
}

static int number_write(int dir, const char *file, unsigned n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n), rc = 0;
	int fd = openat(dir, file, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (write(fd, text, (size_t)len) != len)
		rc = -errno;
	close(fd);
	return rc;
}

void fusectl_wish_background(const char *point, unsigned reads)
{
	struct mount_entry m;
	int dir = -ENOENT, rc;

	if (mounts_find_point("/proc/self/mountinfo", point, &m) && m.major == 0)
		dir = connection_open(m.minor);
	rc = dir < 0 ? dir : number_write(dir, "max_background", reads);
	if (!rc) /* from there on the mount counts as congested */
		rc = number_write(dir, "congestion_threshold", reads);
	if (dir >= 0)
		close(dir);
	if (rc)
		log_debug("attach", "reads in flight stay limited", "mount=%s why=\"%s\"", point,
			  strerror(-rc));
}
