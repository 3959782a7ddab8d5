/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/attach/loopdev.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/bounded.h"
#include "base/bytes.h"
#include "base/log.h"
#include "nbd/attach/in_use.h"
#include "nbd/attach/sysfs.h"

#define LOOP_MAJOR_   7
#define OPEN_WAIT_MS  10000
#define CLEAR_WAIT_MS 5000

int loopdev_available(struct err *err)
{
	if (access("/dev/loop-control", R_OK | W_OK) == 0)
		return 0;
	if (errno == ENOENT)
		return err_set(err, -ENOTSUP,
			       "no /dev/loop-control: load the loop module (modprobe loop) "
			       "or pass the device into the container");
	return err_set(err, -ENOTSUP,
		       "/dev/loop-control: %s; cairnd must run as root to attach devices",
		       strerror(errno));
}

/* Containers often lack the node of a device made after they started. */
static int loopdev_open(int index, int flags)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/loop%d", index);
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT &&
	    !mknod(path, S_IFBLK | 0600, makedev(LOOP_MAJOR_, (unsigned)index)))
		fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int sys_read(int index, const char *file, char *buf, size_t len)
{
	char name[16];

	snprintf(name, sizeof(name), "loop%d", index);
	return sysfs_read(name, file, buf, len);
}

static bool has_direct_io(int index)
{
	char dio[8];

	return sys_read(index, "loop/dio", dio, sizeof(dio)) == 0 && dio[0] == '1';
}

bool loopdev_backing(int index, char path[PATH_MAX])
{
	return sys_read(index, "loop/backing_file", path, PATH_MAX) == 0;
}

/* Before LOOP_CONFIGURE (5.8) it took three calls, with a writable, buffered device in between. */
static int configure_in_steps(int dev, int backing, const struct loop_info64 *info)
{
	if (ioctl(dev, LOOP_SET_FD, backing))
		return -errno;
	if (ioctl(dev, LOOP_SET_STATUS64, info) || ioctl(dev, LOOP_SET_DIRECT_IO, 1UL)) {
		int rc = -errno;

		ioctl(dev, LOOP_CLR_FD, 0);
		return rc;
	}
	return 0;
}

static int configure(int dev, int backing)
{
	struct loop_config c = {.fd = (uint32_t)backing};

	c.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_DIRECT_IO;
	strcpy((char *)c.info.lo_file_name, "cairn");
	if (!ioctl(dev, LOOP_CONFIGURE, &c))
		return 0;
	if (errno != ENOTTY && errno != EINVAL)
		return -errno;
	c.info.lo_flags = 0;
	return configure_in_steps(dev, backing, &c.info);
}

/* In a child: the open may wait for the mount's server. */
static int new_in_child(void *arg, struct bounded_result *res)
{
	int backing, control, rc = -EBUSY;

	backing = open(arg, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (backing < 0)
		return -errno;
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return -errno;
	for (int i = 0; i < 64 && rc == -EBUSY; i++) { /* others take free devices too */
		int dev;

		res->value = ioctl(control, LOOP_CTL_GET_FREE);
		if (res->value < 0)
			return -errno;
		dev = loopdev_open(res->value, O_RDONLY);
		if (dev < 0)
			return dev;
		rc = configure(dev, backing);
		close(dev);
	}
	return rc;
}

int loopdev_new(const char *path, struct err *err)
{
	struct bounded_result res;
	char name[16];
	int rc = bounded_call(new_in_child, (void *)path, OPEN_WAIT_MS, &res);

	if (rc)
		return err_set(err, rc, "no loop device on %s: %s", path, strerror(-rc));
	if (!has_direct_io(res.value)) {
		loopdev_clear(res.value, NULL);
		return err_set(err, -ENOTSUP,
			       "loop%d refuses direct I/O on %s: each page would be cached "
			       "twice",
			       res.value, path);
	}
	snprintf(name, sizeof(name), "loop%d", res.value);
	sysfs_wish(name, "queue/read_ahead_kb", DEVICE_READ_AHEAD_KB);
	return res.value;
}

struct change {
	int index;
	const char *path;
};

static int change_in_child(void *arg, struct bounded_result *res)
{
	struct change *c = arg;
	int backing, dev;

	(void)res;
	backing = open(c->path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (backing < 0)
		return -errno;
	dev = loopdev_open(c->index, O_RDONLY);
	if (dev < 0)
		return dev;
	return ioctl(dev, LOOP_CHANGE_FD, backing) ? -errno : 0;
}

int loopdev_change(int index, const char *path, struct err *err)
{
	struct change c = {.index = index, .path = path};
	struct bounded_result res;
	int rc = bounded_call(change_in_child, &c, OPEN_WAIT_MS, &res);

	if (rc)
		return err_set(err, rc, "can't put %s under loop%d: %s", path, index,
			       strerror(-rc));
	if (!has_direct_io(index))
		log_warn("attach", "direct I/O is off", "device=/dev/loop%d", index);
	return 0;
}

struct promotion {
	int index, fd;
	uint64_t size;
	const char *folder;
};

/* The worker may pass anything: a file whose server hangs, one that it can write to, a socket. */
static int promotion_check(const struct promotion *p, struct stat *st)
{
	struct stat folder;
	int flags = fcntl(p->fd, F_GETFL);

	if (fstat(p->fd, st) || stat(p->folder, &folder))
		return -errno;
	if (!S_ISREG(st->st_mode) || (uint64_t)st->st_size != p->size ||
	    st->st_dev != folder.st_dev || flags < 0 || (flags & O_PATH) ||
	    (flags & O_ACCMODE) != O_RDONLY)
		return -EINVAL;
	return 0;
}

/* By an open file of our own: flags of the worker's are the worker's to change. */
static int promote_in_child(void *arg, struct bounded_result *res)
{
	struct promotion *p = arg;
	char path[32];
	struct stat st;
	int backing, dev, rc = promotion_check(p, &st);

	if (rc)
		return rc;
	snprintf(res->text, sizeof(res->text), "%llu %llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", p->fd);
	backing = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (backing < 0)
		return -errno;
	dev = loopdev_open(p->index, O_RDONLY);
	if (dev < 0)
		return dev;
	return ioctl(dev, LOOP_CHANGE_FD, backing) ? -errno : 0;
}

int loopdev_promote(int index, int fd, uint64_t size, const char *folder, struct attach_file *out,
		    struct err *err)
{
	struct promotion p = {.index = index, .fd = fd, .size = size, .folder = folder};
	struct bounded_result res;
	unsigned long long dev, ino;
	int rc = bounded_call(promote_in_child, &p, OPEN_WAIT_MS, &res);

	if (!rc && sscanf(res.text, "%llu %llu", &dev, &ino) != 2)
		rc = -EIO;
	if (rc)
		return err_set(err, rc, "can't put the store's file under /dev/loop%d: %s", index,
			       strerror(-rc));
	*out = (struct attach_file){dev, ino};
	if (!has_direct_io(index))
		log_warn("attach", "direct I/O is off", "device=/dev/loop%d", index);
	return 0;
}

struct shown {
	int index;
	const struct attach_file *file;
};

static int shows_in_child(void *arg, struct bounded_result *res)
{
	struct shown *s = arg;
	struct loop_info64 info;
	int dev = loopdev_open(s->index, O_RDONLY);

	(void)res;
	if (dev < 0)
		return dev;
	if (ioctl(dev, LOOP_GET_STATUS64, &info))
		return -errno;
	return info.lo_inode == s->file->ino && info.lo_device == s->file->dev ? 0 : -ENOENT;
}

bool loopdev_shows(int index, const struct attach_file *file)
{
	struct shown s = {index, file};
	struct bounded_result res;

	return file->ino && !bounded_call(shows_in_child, &s, OPEN_WAIT_MS, &res);
}

static int clear_in_child(void *arg, struct bounded_result *res)
{
	int dev = loopdev_open(*(int *)arg, O_RDONLY);

	(void)res;
	if (dev < 0)
		return dev;
	if (ioctl(dev, LOOP_CLR_FD, 0) && errno != ENXIO) /* ENXIO: empty already */
		return -errno;
	return 0;
}

int loopdev_clear(int index, struct err *err)
{
	struct bounded_result res;
	int rc = bounded_call(clear_in_child, &index, CLEAR_WAIT_MS, &res);

	if (rc)
		return err_set(err, rc, "can't empty /dev/loop%d: %s", index, strerror(-rc));
	return 0;
}

int loopdev_in_use(int index, struct err *err)
{
	char name[16];

	snprintf(name, sizeof(name), "loop%d", index);
	return device_in_use(name, err);
}
