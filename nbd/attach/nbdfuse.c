/* SPDX-License-Identifier: Apache-2.0 */
/* Attach without nbd.ko: nbdfuse shows the export as a file, a loop device with direct I/O makes a
 * device of the file.
 *
 * In runtime_dir/attach/NAME/: nbdfuse.pid (written by nbdfuse when its mount is up), device.json,
 * and one mount point a generation, mnt.N/img. A revival mounts the next generation beside the dead
 * one, swaps it under the loop device, then removes the old.
 *
 * nbdfuse is given a connected socket, whose other end goes from worker to worker with its ledger:
 * nbdfuse never reconnects (1.14 aborts at the first read after its server went), and so need not.
 *
 * This process never looks into the mount: loopdev_*() do in children with a bound.
 */
#include "nbd/attach/attach.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mounts.h"
#include "base/process.h"
#include "nbd/attach/kernel_impl.h"
#include "nbd/attach/nbdfuse_impl.h"
#include "nbd/attach/fusectl.h"
#include "nbd/attach/loopdev.h"
#include "nbd/attach/tcp_pair.h"

#define MOUNT_WAIT_MS 10000
#define END_WAIT_MS   1000
#define READS_MAX     64 /* in flight at nbdfuse, which has 10 threads for them */

#define MOUNT_FORMAT "%s/mnt.%u"

struct paths {
	char dir[PATH_MAX - 64]; /* runtime_dir/attach/NAME */
	char pid_file[PATH_MAX], mount[PATH_MAX - 8], image[PATH_MAX];
};

static int paths_make(const struct attach_env *env, const struct attachment *a, bool make,
		      struct paths *p, struct err *err)
{
	int rc = attach_dir(env, a->name, make, p->dir, sizeof(p->dir), err);

	if (rc)
		return rc;
	snprintf(p->pid_file, sizeof(p->pid_file), "%s/nbdfuse.pid", p->dir);
	snprintf(p->mount, sizeof(p->mount), MOUNT_FORMAT, p->dir, a->generation);
	snprintf(p->image, sizeof(p->image), "%s/img", p->mount);
	return 0;
}

static bool program_is_in_path(const char *name)
{
	const char *path = getenv("PATH");
	char *copy = strdup(path ? path : "/usr/sbin:/usr/bin:/sbin:/bin"), *save, *dir;
	char full[PATH_MAX];
	bool found = false;

	for (dir = strtok_r(copy, ":", &save); dir && !found; dir = strtok_r(NULL, ":", &save)) {
		snprintf(full, sizeof(full), "%s/%s", dir, name);
		found = access(full, X_OK) == 0;
	}
	free(copy);
	return found;
}

static int nbdfuse_available(const struct attach_env *env, struct err *err)
{
	(void)env;
	if (!program_is_in_path("nbdfuse"))
		return err_set(err, -ENOTSUP,
			       "nbdfuse is not installed (Debian and Ubuntu: apt-get install "
			       "libnbd-bin)");
	if (access("/dev/fuse", R_OK | W_OK))
		return err_set(err, -ENOTSUP,
			       "/dev/fuse: %s; load the fuse module (modprobe fuse) or pass "
			       "the device into the container",
			       strerror(errno));
	return loopdev_available(err);
}

static void sleep_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* ---- nbdfuse ---- */

static void nbdfuse_exec(const struct paths *p, int fd)
{
	const char *path = getenv("PATH");
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	clearenv(); /* ours has secrets in it */
	if (path)
		setenv("PATH", path, 1);
	if (dup2(fd, 3) != 3)
		_exit(127);
	fcntl(3, F_SETFD, 0); /* it was 3 already, perhaps */
	close_range(4, ~0U, 0);
	/* LOOP_CHANGE_FD compares lengths, and asks the old file's server for one unless the kernel
	 * still holds it: a length never changes, and that server may be dead by then. */
	execlp("nbdfuse", "nbdfuse", "-r", "-o", "attr_timeout=1000000000", "--pidfile",
	       p->pid_file, p->image, "--fd", "3", (char *)NULL);
	_exit(127);
}

static void unmount(const char *point)
{
	umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW);
	rmdir(point);
}

/* It ends by itself when its mount goes and nobody holds the file. */
static void nbdfuse_end(const struct process *p, const char *mount)
{
	static const int signals[] = {0, SIGTERM, SIGKILL};

	unmount(mount);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		if (signals[i] && process_is(p))
			kill(p->pid, signals[i]);
		if (process_ends(p, END_WAIT_MS))
			return;
	}
}

static struct process helper_of(const struct attachment *a)
{
	return (struct process){a->pid, a->pid_started};
}

static void helper_end(struct attachment *a, const char *mount)
{
	struct process p = helper_of(a);

	nbdfuse_end(&p, mount);
	a->pid = 0;
}

/* The pid file appears when the mount is up. */
static int nbdfuse_wait(const struct attach_env *env, const struct paths *p,
			const struct process *helper, const char *name, struct err *err)
{
	uint64_t end = clock_now_ns() + MOUNT_WAIT_MS * NSEC_PER_MSEC;
	int status;

	for (;;) {
		if (access(p->pid_file, F_OK) == 0)
			return 0;
		if (waitpid(helper->pid, &status, WNOHANG) == helper->pid)
			return err_set(err, -EIO,
				       "nbdfuse ended %s %d before it had mounted export '%s'; "
				       "its own message is in cairnd's log",
				       WIFSIGNALED(status) ? "by signal" : "with status",
				       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
				       name);
		if (env->asker_is_gone && env->asker_is_gone(env->asker)) {
			nbdfuse_end(helper, p->mount);
			return err_set(err, -EPIPE, "the worker died while nbdfuse began");
		}
		if (clock_now_ns() > end) {
			nbdfuse_end(helper, p->mount);
			return err_set(err, -ETIMEDOUT,
				       "nbdfuse did not mount export '%s' within %d s", name,
				       MOUNT_WAIT_MS / 1000);
		}
		sleep_ms(1);
	}
}

/* The worker's end of a pair becomes the only link, and is given to the worker that asked. */
static int link_make(const struct attach_env *env, struct attachment *a, int *nbdfuse_end,
		     struct err *err)
{
	int ours, worker, rc = tcp_pairs_open(&ours, &worker, 1, err);

	if (rc)
		return rc;
	links_cut(env->kernel, a);
	rc = links_add(env->kernel, a, worker);
	rc = rc ? err_set(err, rc, "out of memory") : attach_give(env, a, err);
	if (rc)
		close(ours);
	else
		*nbdfuse_end = ours;
	return rc;
}

/* Mount generation a->generation; sets a->pid and the link. */
static int nbdfuse_start(const struct attach_env *env, struct attachment *a, const struct paths *p,
			 struct err *err)
{
	struct process helper;
	int fd, rc;

	if (mkdir(p->mount, 0700) && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", p->mount, strerror(errno));
	unlink(p->pid_file);
	rc = link_make(env, a, &fd, err);
	if (rc)
		goto out;
	a->pid = fork();
	if (a->pid == 0)
		nbdfuse_exec(p, fd);
	rc = a->pid < 0 ? -errno : 0;
	close(fd);
	helper = process_of(a->pid);
	a->pid_started = helper.started;
	if (rc)
		err_set(err, rc, "fork: %s", strerror(-rc));
	else
		rc = nbdfuse_wait(env, p, &helper, a->name, err);
	if (!rc)
		fusectl_wish_background(p->mount, READS_MAX);
out:
	if (rc) {
		a->pid = 0;
		links_cut(env->kernel, a);
		unmount(p->mount);
	}
	return rc;
}

/* For whoever looks at the node; nothing reads it back. */
static void device_note(const struct attachment *a, const struct paths *p)
{
	char now[PATH_MAX], next[PATH_MAX];
	FILE *f;

	snprintf(now, sizeof(now), "%s/device.json", p->dir);
	snprintf(next, sizeof(next), "%s/device.new", p->dir);
	f = fopen(next, "we");
	if (!f)
		return;
	fputs("{\"name\":\"", f);
	for (const char *s = a->name; *s; s++) {
		if (*s == '"' || *s == '\\')
			fputc('\\', f);
		if ((unsigned char)*s >= ' ')
			fputc(*s, f);
	}
	fprintf(f, "\",\"device\":\"%s\",\"way\":\"nbdfuse\",\"pid\":%d,\"state\":\"%s\"}\n",
		a->device, a->pid,
		a->dead		  ? "dead"
		: a->promoted.ino ? "promoted"
				  : "ready");
	if (fclose(f) == 0)
		rename(next, now);
}

/* ---- the way ---- */

static int nbdfuse_attach(const struct attach_env *env, struct attachment *a, struct err *err)
{
	struct paths p;
	int rc;

	a->generation = 0;
	a->pid = 0;
	a->queues = 1;
	rc = paths_make(env, a, true, &p, err);
	if (rc)
		return rc;
	rc = nbdfuse_start(env, a, &p, err);
	if (rc)
		goto remove;
	a->index = loopdev_new(p.image, err);
	if (a->index < 0) {
		rc = a->index;
		goto end;
	}
	snprintf(a->device, sizeof(a->device), "/dev/loop%d", a->index);
	a->dead = false;
	device_note(a, &p);
	return 0;
end:
	helper_end(a, p.mount);
	links_cut(env->kernel, a);
remove:
	attach_nbdfuse_dir_remove(p.dir);
	return rc;
}

/* Is the loop device still on a file of ours, and not someone else's by now? After its mount went
 * the kernel shows the path from the mount's root on. */
static bool loop_is_ours(const struct attachment *a, const struct paths *p)
{
	char backing[PATH_MAX];

	if (a->promoted.ino)
		return loopdev_shows(a->index, &a->promoted);
	return loopdev_backing(a->index, backing) &&
	       (strncmp(backing, p->dir, strlen(p->dir)) == 0 || strncmp(backing, "/img", 4) == 0);
}

static int nbdfuse_detach(const struct attach_env *env, struct attachment *a, bool force,
			  struct err *err)
{
	struct paths p;
	struct err why = {0};
	int rc = paths_make(env, a, false, &p, err);

	if (rc)
		return rc;
	if (loop_is_ours(a, &p)) {
		rc = force ? 0 : loopdev_in_use(a->index, err);
		if (rc)
			return rc;
		rc = loopdev_clear(a->index, &why);
		if (rc) /* drained for too long: its server is stuck, and ending that fails the
			   reads */
			log_warn("attach", "ending nbdfuse first", "device=%s why=\"%s\"",
				 a->device, why.text);
	}
	helper_end(a, p.mount);
	links_cut(env->kernel, a);
	if (rc)
		rc = loopdev_clear(a->index, err);
	attach_nbdfuse_dir_remove(p.dir);
	return rc;
}

static int nbdfuse_revive(const struct attach_env *env, struct attachment *a, struct err *err)
{
	struct attachment next = *a;
	struct paths old, p;
	int rc = paths_make(env, a, false, &old, err);

	if (rc)
		return rc;
	next.generation++;
	next.promoted = (struct attach_file){0};
	paths_make(env, &next, false, &p, err);
	rc = nbdfuse_start(env, &next, &p, err);
	if (!rc) {
		rc = loopdev_change(a->index, p.image, err);
		if (rc) {
			helper_end(&next, p.mount);
			links_cut(env->kernel, &next);
		}
	}
	if (rc) {
		a->nlinks = a->fresh = 0; /* the old one was cut */
		return rc;
	}
	helper_end(a, old.mount);
	*a = next;
	a->dead = false;
	device_note(a, &p);
	return 0;
}

/* ---- past the worker ---- */

static int nbdfuse_promote(const struct attach_env *env, struct attachment *a, int fd,
			   struct err *err)
{
	struct paths p;
	int rc = paths_make(env, a, false, &p, err);

	if (rc)
		return rc;
	if (!loop_is_ours(a, &p))
		return err_set(err, -ENODEV, "%s shows another file by now", a->device);
	rc = loopdev_promote(a->index, fd, a->size, env->store_path, &a->promoted, err);
	if (rc)
		return rc;
	helper_end(a, p.mount);
	links_cut(env->kernel, a);
	a->dead = false;
	device_note(a, &p);
	return 0;
}

/* ---- after another supervisor ---- */

static int nbdfuse_restore(const struct attach_env *env, struct attachment *a, struct err *err)
{
	struct process helper = helper_of(a);
	struct paths p;
	int rc = paths_make(env, a, false, &p, err);

	if (rc)
		return rc;
	if (!loop_is_ours(a, &p))
		return err_set(err, -ENODEV, "%s shows another file by now", a->device);
	if (a->promoted.ino || process_is(&helper))
		return 0;
	a->pid = 0;
	a->dead = true;
	return 0;
}

const struct attach_way attach_nbdfuse = {
	.name = "nbdfuse",
	.handshake = true,
	.available = nbdfuse_available,
	.attach = nbdfuse_attach,
	.detach = nbdfuse_detach,
	.revive = nbdfuse_revive,
	.promote = nbdfuse_promote,
	.restore = nbdfuse_restore,
	.sweep = attach_nbdfuse_sweep,
};
