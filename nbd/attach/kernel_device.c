/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/attach/kernel_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "nbd/attach/sysfs.h"

#define NAME_LEN 24

/* What one request may be: an extent. The kernel's default splits 4 MiB into 32. */
#define MAX_SECTORS_KB "4096"

static const char *name_of(int index, char name[NAME_LEN])
{
	snprintf(name, NAME_LEN, "nbd%d", index);
	return name;
}

int kernel_device_index(const char *path)
{
	static const char head[] = "/dev/nbd";
	const char *digits = path + sizeof(head) - 1;
	size_t n;

	if (strncmp(path, head, sizeof(head) - 1) != 0)
		return -1;
	n = strspn(digits, "0123456789");
	/* 20 bits of minors */
	if (n < 1 || n > 7 || digits[n] || (digits[0] == '0' && n > 1) || atoi(digits) >= 1 << 20)
		return -1;
	return atoi(digits);
}

bool kernel_device_owner(int index, pid_t *pid, char identity[KERNEL_IDENTITY_MAX])
{
	char name[NAME_LEN], text[32];

	if (sysfs_read(name_of(index, name), "pid", text, sizeof(text)))
		return false;
	*pid = atoi(text);
	if (sysfs_read(name, "backend", identity, KERNEL_IDENTITY_MAX))
		identity[0] = 0;
	return true;
}

void kernel_device_describe(int index, char *out, size_t len)
{
	char identity[KERNEL_IDENTITY_MAX], path[64], comm[64] = "which ended";
	pid_t pid;
	FILE *f;

	if (!kernel_device_owner(index, &pid, identity)) {
		snprintf(out, len, "/dev/nbd%d is open in some program", index);
		return;
	}
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (f && fgets(comm, sizeof(comm), f))
		comm[strcspn(comm, "\n")] = 0;
	if (f)
		fclose(f);
	snprintf(out, len, "/dev/nbd%d is in use: process %d (%s) set it up%s%.100s", index, pid,
		 comm, identity[0] ? " for " : "", identity);
}

/* devtmpfs does it, but a container may have a /dev of its own. */
static void node_make(int index)
{
	char name[NAME_LEN], path[32], text[32];
	unsigned major, minor;

	snprintf(path, sizeof(path), "/dev/nbd%d", index);
	if (access(path, F_OK) == 0 ||
	    sysfs_read(name_of(index, name), "dev", text, sizeof(text)) ||
	    sscanf(text, "%u:%u", &major, &minor) != 2)
		return;
	mknod(path, S_IFBLK | 0600, makedev(major, minor));
}

void kernel_device_tune(int index)
{
	char name[NAME_LEN], now[128];

	name_of(index, name);
	node_make(index);
	sysfs_wish(name, "queue/max_sectors_kb", MAX_SECTORS_KB);
	sysfs_wish(name, "queue/read_ahead_kb", DEVICE_READ_AHEAD_KB);
	/* Setting it freezes the queue: only where it is another one. */
	if (!sysfs_read(name, "queue/scheduler", now, sizeof(now)) && strcmp(now, "none") != 0 &&
	    !strstr(now, "[none]"))
		sysfs_wish(name, "queue/scheduler", "none");
}

bool kernel_device_wait_free(int index, int ms)
{
	uint64_t end = clock_now_ns() + (uint64_t)ms * NSEC_PER_MSEC;
	char identity[KERNEL_IDENTITY_MAX];
	pid_t pid;

	while (kernel_device_owner(index, &pid, identity)) {
		if (clock_now_ns() > end)
			return false;
		nanosleep(&(struct timespec){.tv_nsec = NSEC_PER_MSEC}, NULL);
	}
	return true;
}
