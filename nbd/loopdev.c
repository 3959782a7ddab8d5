/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/loopdev.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/bounded.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/mounts.h"

#define LOOP_MAJOR_    7
#define READ_AHEAD_KB  "1024" /* a sequential reader asks for a quarter extent at a time */
#define OPEN_WAIT_MS   10000
#define CLEAR_WAIT_MS  5000
#define IN_USE_WAIT_MS 5000
#define OPENER_TRIES   10 /* of 50 ms: how long udev may look at a new device */

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

static void sleep_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
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
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/block/loop%d/%s", index, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, buf, len - 1);
	close(fd);
	if (n < 0)
		return -EIO;
	buf[n] = 0;
	buf[strcspn(buf, "\n")] = 0;
	return 0;
}

static void sys_write(int index, const char *file, const char *text)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/block/loop%d/%s", index, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		log_warn("attach", "can't set a queue parameter", "file=%s why=\"%s\"", path,
			 strerror(errno));
	if (fd >= 0)
		close(fd);
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
	sys_write(res.value, "queue/read_ahead_kb", READ_AHEAD_KB);
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

/* ---- who uses it ---- */

static bool find_holder(int index, char *text, size_t len)
{
	struct dirent *d;
	char path[64];
	DIR *dir;
	bool found = false;

	snprintf(path, sizeof(path), "/sys/block/loop%d/holders", index);
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
static bool any_process(bool (*fn)(pid_t pid, int index, char *text, size_t len), int index,
			char *text, size_t len)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;
	bool found = false;

	while (proc && !found && (d = readdir(proc))) {
		pid_t pid = atoi(d->d_name);

		found = pid > 0 && pid != getpid() && fn(pid, index, text, len);
	}
	if (proc)
		closedir(proc);
	return found;
}

static bool mounts_it(pid_t pid, int index, char *text, size_t len)
{
	struct mount_entry m;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
	if (!mounts_find_device(path, LOOP_MAJOR_, (unsigned)index, &m))
		return false;
	snprintf(text, len,
		 "mounted on %.300s in the mount namespace of process %d; unmount it first",
		 m.point, pid);
	return true;
}

static bool has_it_open(pid_t pid, int index, char *text, size_t len)
{
	char dir[64], link[64], want[32], comm[64] = "?";
	struct dirent *d;
	bool found = false;
	DIR *fds;

	snprintf(want, sizeof(want), "/dev/loop%d", index);
	snprintf(dir, sizeof(dir), "/proc/%d/fd", pid);
	fds = opendir(dir);
	while (fds && !found && (d = readdir(fds))) {
		ssize_t n = readlinkat(dirfd(fds), d->d_name, link, sizeof(link) - 1);

		link[n > 0 ? n : 0] = 0;
		found = strcmp(link, want) == 0;
	}
	if (fds)
		closedir(fds);
	if (found) {
		FILE *f;

		snprintf(dir, sizeof(dir), "/proc/%d/comm", pid);
		f = fopen(dir, "re");
		if (f && fgets(comm, sizeof(comm), f))
			comm[strcspn(comm, "\n")] = 0;
		if (f)
			fclose(f);
		snprintf(text, len, "open in process %d (%s); end it first", pid, comm);
	}
	return found;
}

static int use_in_child(void *arg, struct bounded_result *res)
{
	int index = *(int *)arg;
	struct mount_entry m;

	if (mounts_find_device("/proc/self/mountinfo", LOOP_MAJOR_, (unsigned)index, &m)) {
		snprintf(res->text, sizeof(res->text), "mounted on %.400s; unmount it first",
			 m.point);
		return -EBUSY;
	}
	if (find_holder(index, res->text, sizeof(res->text)))
		return -EBUSY;
	for (int i = 0;; i++) {
		int dev = loopdev_open(index, O_RDONLY | O_EXCL);
		bool claimed = dev == -EBUSY, open_now;

		if (dev >= 0)
			close(dev);
		open_now = any_process(has_it_open, index, res->text, sizeof(res->text));
		if (!claimed && !open_now)
			return 0;
		if (i + 1 < OPENER_TRIES) {
			sleep_ms(50);
			continue;
		}
		if (!open_now && !any_process(mounts_it, index, res->text, sizeof(res->text)))
			strcpy(res->text,
			       "claimed inside the kernel (a mount that was detached lazily?)");
		return -EBUSY;
	}
}

int loopdev_in_use(int index, struct err *err)
{
	struct bounded_result res;
	int rc = bounded_call(use_in_child, &index, IN_USE_WAIT_MS, &res);

	if (rc)
		return err_set(err, rc, "/dev/loop%d is %s", index,
			       res.text[0] ? res.text : strerror(-rc));
	return 0;
}
