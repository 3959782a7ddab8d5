/* SPDX-License-Identifier: Apache-2.0 */
/* An upgrade: another program in the same process, with all that this one holds. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "supervisor/continuity_impl.h"

#define EXECVE_ENV "CAIRN_EXECVE"

/* $CAIRN_EXECVE: "PID LOCK LAST SETTINGS", of this process, and the numbers of its lock, of the
 * last descriptor that was passed, and of a file with the settings that it had. */
static bool is_after_execve(int *lock, int *last, int *settings)
{
	const char *text = getenv(EXECVE_ENV);
	int pid;

	return text && sscanf(text, "%d %d %d %d", &pid, lock, last, settings) == 4 &&
	       pid == getpid();
}

void continuity_settings(struct config *cfg)
{
	struct config *was = malloc(sizeof(*was));
	int lock, last, fd;
	struct err err;
	char path[48];

	if (was && is_after_execve(&lock, &last, &fd)) {
		config_defaults(was);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (!config_load(path, was, &err))
			*cfg = *was;
		else /* a key that this program has no more */
			log_warn("supervisor", "the settings from before are not understood",
				 "why=\"%s\"", err.text);
		close(fd);
	}
	free(was);
}

/* For continuity_settings(), not close-on-exec; -1: none. */
static int settings_pass(const struct config *cfg)
{
	int fd = memfd_create("cairn-settings", 0), copy = fd < 0 ? -1 : dup(fd);
	FILE *f = copy < 0 ? NULL : fdopen(copy, "w");

	if (f) {
		config_print(cfg, f);
		fclose(f);
	}
	return fd;
}

int continuity_lock(void)
{
	int fd, last, settings;

	if (!is_after_execve(&fd, &last, &settings) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		return -1;
	return fd;
}

bool continuity_after_execve(struct inherited *pool)
{
	int lock, last, settings;

	if (!is_after_execve(&lock, &last, &settings))
		return false;
	unsetenv(EXECVE_ENV);
	inherited_add_open(pool, 3, last);
	return true;
}

/* The highest of them. */
static int fds_pass(const int *fds, size_t n, int lock, bool pass)
{
	int flag = pass ? 0 : FD_CLOEXEC, last = lock;

	fcntl(lock, F_SETFD, flag);
	for (size_t i = 0; i < n; i++) {
		if (fds[i] >= 0)
			fcntl(fds[i], F_SETFD, flag);
		if (fds[i] > last)
			last = fds[i];
	}
	return last;
}

int continuity_execve(struct continuity *c, const struct continuity_now *now, int lock,
		      const char *program, const char *file, struct err *err)
{
	char *with[] = {"cairnd", "-c", (char *)file, NULL}, *without[] = {"cairnd", NULL};
	char env[64];
	size_t n;
	int *fds = continuity_fds(now, &n), rc, settings;

	if (!fds)
		return err_set(err, -ENOMEM, "out of memory");
	settings = settings_pass(now->cfg);
	continuity_save(c, now);
	snprintf(env, sizeof(env), "%d %d %d %d", getpid(), lock, fds_pass(fds, n, lock, true),
		 settings);
	setenv(EXECVE_ENV, env, 1);
	execv(program, file ? with : without);
	rc = err_set(err, -errno, "%s: %s", program, strerror(errno));
	fds_pass(fds, n, lock, false);
	unsetenv(EXECVE_ENV);
	free(fds);
	if (settings >= 0)
		close(settings);
	return rc;
}
