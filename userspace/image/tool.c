/* SPDX-License-Identifier: Apache-2.0 */
/* A child process that makes a file system: its output, and its end when ours is wanted. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/build.h"

#define SAID_MAX 4096

/* mke2fs is in sbin, which is not in everybody's PATH. */
static int find_tool(const char *name, char *out, size_t len)
{
	static const char *const dirs[] = {"/usr/sbin", "/usr/bin",	   "/sbin",
					   "/bin",	"/usr/local/sbin", "/usr/local/bin"};

	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		snprintf(out, len, "%s/%s", dirs[i], name);
		if (access(out, X_OK) == 0)
			return 0;
	}
	return -ENOENT;
}

/* Spawn with stdin empty and both outputs in @out; signals as a fresh process expects them. */
static int spawn(const char *path, char *const argv[], char *const env[], int out, pid_t *pid)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none;
	int rc;

	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, out, 1);
	posix_spawn_file_actions_adddup2(&files, out, 2);
	rc = posix_spawn(pid, path, &files, &attr, argv, env);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	return -rc;
}

/* Keep the last SAID_MAX bytes of what the child prints until it closes its outputs. */
static bool listen_to(int out, int signals, pid_t pid, char *said)
{
	struct pollfd fds[2] = {{.fd = out, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
	bool interrupted = false;
	size_t have = 0;

	for (;;) {
		ssize_t n;

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		if (fds[1].revents & POLLIN) {
			kill(pid, SIGTERM);
			fds[1].fd = -1; /* the signal stays pending */
			fds[1].revents = 0;
			interrupted = true;
		}
		if (!fds[0].revents)
			continue;
		if (have > SAID_MAX / 2) {
			memmove(said, said + SAID_MAX / 4, have - SAID_MAX / 4);
			have -= SAID_MAX / 4;
		}
		n = read(out, said + have, SAID_MAX - 1 - have);
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	said[have] = 0;
	return interrupted;
}

/* One line of it, for an error. */
static void flatten(char *said)
{
	char *end = said + strlen(said);

	while (end > said && (end[-1] == '\n' || end[-1] == ' '))
		*--end = 0;
	for (char *p = said; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
}

static int outcome(const char *tool, int status, char *said, struct err *err)
{
	size_t len;

	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	flatten(said);
	len = strlen(said);
	if (WIFSIGNALED(status))
		return err_set(err, -EIO, "%s was ended by signal %d (%s)", tool, WTERMSIG(status),
			       strsignal(WTERMSIG(status)));
	return err_set(err, -EIO, "%s failed: %s", tool, len > 600 ? said + len - 600 : said);
}

static int run(const char *path, char *const argv[], char *const env[], int signals, char *said,
	       struct err *err)
{
	int out[2], status = 0, rc;
	bool interrupted;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC))
		return err_set(err, -errno, "can't run %s: %s", path, strerror(errno));
	rc = spawn(path, argv, env, out[1], &pid);
	close(out[1]);
	if (rc) {
		close(out[0]);
		return err_set(err, rc, "can't run %s: %s", path, strerror(-rc));
	}
	interrupted = listen_to(out[0], signals, pid, said);
	close(out[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (interrupted)
		return err_set(err, -EINTR, "interrupted");
	return outcome(argv[0], status, said, err);
}

void tool_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

int tool_run(char *const argv[], char *const env[], const char *package, char *said,
	     size_t said_len, struct err *err)
{
	char path[PATH_MAX], text[SAID_MAX] = "";
	sigset_t deadly;
	int signals, rc;

	if (find_tool(argv[0], path, sizeof(path)))
		return err_set(err, -ENOENT, "%s is not installed: apt-get install %s", argv[0],
			       package);
	tool_signals(&deadly);
	signals = signalfd(-1, &deadly, SFD_CLOEXEC);
	rc = run(path, argv, env, signals, text, err);
	if (said)
		snprintf(said, said_len, "%s", text);
	if (signals >= 0)
		close(signals);
	return rc;
}
