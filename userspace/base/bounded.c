/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bounded.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

static void child_run(int (*fn)(void *arg, struct bounded_result *res), void *arg, int fd)
{
	struct bounded_result res;
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	memset(&res, 0, sizeof(res));
	res.rc = fn(arg, &res);
	_exit(write(fd, &res, sizeof(res)) == sizeof(res) ? 0 : 1);
}

/* The child's record, or an error when it did not come in time. */
static int result_wait(int fd, int timeout_ms, struct bounded_result *res)
{
	uint64_t end = clock_now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = clock_now_ns();

		if (now >= end)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)((end - now) / NSEC_PER_MSEC) + 1) > 0)
			/* smaller than PIPE_BUF: whole or not at all */
			return read(fd, res, sizeof(*res)) == sizeof(*res) ? 0 : -EIO;
	}
}

int bounded_call(int (*fn)(void *arg, struct bounded_result *res), void *arg, int timeout_ms,
		 struct bounded_result *out)
{
	int fds[2], rc;
	pid_t pid;

	memset(out, 0, sizeof(*out));
	if (pipe2(fds, O_CLOEXEC))
		return out->rc = -errno;
	pid = fork();
	if (pid == 0)
		child_run(fn, arg, fds[1]);
	rc = pid < 0 ? -errno : 0;
	close(fds[1]);
	if (!rc) {
		rc = result_wait(fds[0], timeout_ms, out);
		if (rc)
			kill(pid, SIGKILL);
		waitpid(pid, NULL, rc == -ETIMEDOUT ? WNOHANG : 0); /* else the SIGCHLD loop's */
	}
	close(fds[0]);
	if (rc) {
		memset(out, 0, sizeof(*out));
		out->rc = rc;
	}
	return out->rc;
}
