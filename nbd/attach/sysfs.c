/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/attach/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static int sysfs_open(const char *device, const char *file, int flags)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/block/%s/%s", device, file);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int sysfs_read(const char *device, const char *file, char *buf, size_t len)
{
	int fd = sysfs_open(device, file, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = read(fd, buf, len - 1);
	close(fd);
	if (n < 0)
		return -EIO;
	buf[n] = 0;
	buf[strcspn(buf, "\n")] = 0;
	return 0;
}

int sysfs_write(const char *device, const char *file, const char *text)
{
	int fd = sysfs_open(device, file, O_WRONLY), rc;

	if (fd < 0)
		return fd;
	rc = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

void sysfs_wish(const char *device, const char *file, const char *text)
{
	int rc = sysfs_write(device, file, text);

	if (rc)
		log_warn("attach", "can't set a queue parameter",
			 "device=/dev/%s file=%s value=%s why=\"%s\"", device, file, text,
			 strerror(-rc));
}

int device_read_ahead(const char *device, uint64_t kb, uint64_t *now, struct err *err)
{
	char text[32];
	int rc = 0;

	snprintf(text, sizeof(text), "%" PRIu64, kb);
	if (kb > UINT32_MAX && kb != UINT64_MAX)
		rc = -EINVAL;
	else if (kb != UINT64_MAX)
		rc = sysfs_write(device, "queue/read_ahead_kb", text);
	if (rc)
		return err_set(err, -EINVAL, "read_ahead_kb = %s of /dev/%s: the kernel says %s",
			       text, device, strerror(-rc));
	rc = sysfs_read(device, "queue/read_ahead_kb", text, sizeof(text));
	if (rc)
		return err_set(err, rc, "/sys/block/%s/queue/read_ahead_kb: %s", device,
			       strerror(-rc));
	*now = strtoull(text, NULL, 10);
	return 0;
}
