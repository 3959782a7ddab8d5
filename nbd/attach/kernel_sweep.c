/* SPDX-License-Identifier: Apache-2.0 */
/* At start: kernel devices of a supervisor that was killed. Only what a note of ours names and the
 * kernel confirms (same boot, same identity, same pid) and whose connections are all dead is taken
 * away; everything else is left as it is. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "nbd/attach/kernel_impl.h"
#include "nbd/attach/device_note.h"
#include "nbd/attach/in_use.h"
#include "nbd/attach/kernel_device.h"

#define WORKER_END_MS 5000 /* how long the worker of a dead supervisor may take to end */
#define LOOPBACK      0x0100007f
#define ESTABLISHED   1

/* Has the kernel's end of one of the note's connections an other end still? */
static bool connections_stand(const struct device_note *n)
{
	FILE *f = fopen("/proc/net/tcp", "re");
	unsigned address, port, state;
	char line[256];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, " %*u: %x:%x %*x:%*x %x", &address, &port, &state) != 3 ||
		    address != LOOPBACK || state != ESTABLISHED)
			continue;
		for (uint32_t i = 0; i < n->nports && !found; i++)
			found = n->ports[i] == port;
	}
	if (f)
		fclose(f);
	return found;
}

static bool connections_end(const struct device_note *n)
{
	uint64_t end = clock_now_ns() + WORKER_END_MS * NSEC_PER_MSEC;

	while (connections_stand(n)) {
		if (clock_now_ns() > end)
			return false;
		nanosleep(&(struct timespec){.tv_nsec = 20 * NSEC_PER_MSEC}, NULL);
	}
	return true;
}

static bool is_the_notes(int index, const struct device_note *n)
{
	char identity[KERNEL_IDENTITY_MAX];
	pid_t pid;

	return kernel_device_owner(index, &pid, identity) && pid == n->pid && identity[0] &&
	       strncmp(identity, n->identity, sizeof(identity) - 1) == 0;
}

/* Killed between the connect and the second writing of the note: it names no index. */
static int index_find(const struct device_note *n)
{
	DIR *dir = opendir("/sys/block");
	int index, found = -1;
	struct dirent *d;

	while (dir && found < 0 && (d = readdir(dir)))
		if (sscanf(d->d_name, "nbd%d", &index) == 1 && is_the_notes(index, n))
			found = index;
	if (dir)
		closedir(dir);
	return found;
}

static bool is_this_boots(const struct device_note *n)
{
	struct device_note now = {0};

	return !device_note_sign(&now) && strcmp(now.boot, n->boot) == 0;
}

/* False: leave the note, for the next start. */
static bool sweep_device(const struct attach_env *env, struct device_note *n)
{
	struct err err = {0};
	char name[32];

	if (!is_this_boots(n))
		return true;
	if (n->index < 0)
		n->index = index_find(n);
	if (n->index < 0 || !is_the_notes(n->index, n))
		return true;
	snprintf(name, sizeof(name), "nbd%d", n->index);
	if (device_note_writer_lives(n) || !connections_end(n)) {
		log_warn("attach", "a device of an earlier run is still served; left alone",
			 "device=/dev/%s", name);
		return false;
	}
	if (device_in_use(name, &err))
		log_warn("attach", "a device of an earlier run is in use; its reads fail",
			 "device=/dev/%s why=\"%s\"", name, err.text);
	if (attach_kernel_ready(env->kernel, &err) ||
	    nbd_netlink_disconnect(env->kernel->netlink, n->index, &err)) {
		log_warn("attach", "a device is left over", "device=/dev/%s why=\"%s\"", name,
			 err.text);
		return false;
	}
	log_info("attach", "removed a device of an earlier run", "device=/dev/%s", name);
	return true;
}

static void sweep_folder(const struct attach_env *env, const char *dir)
{
	char path[PATH_MAX];
	struct device_note n;
	int rc;

	snprintf(path, sizeof(path), "%.*s/" KERNEL_NOTE ".new", PATH_MAX - 32, dir);
	unlink(path);
	path[strlen(path) - 4] = 0;
	rc = device_note_load(path, &n);
	if (rc == -ENOENT)
		return;
	if (rc)
		log_warn("attach", "a note of a device is damaged", "path=%s", path);
	else if (!sweep_device(env, &n))
		return;
	unlink(path);
	rmdir(dir);
}

void attach_kernel_sweep(const struct attach_env *env)
{
	attach_leftovers_each(env, sweep_folder);
}
