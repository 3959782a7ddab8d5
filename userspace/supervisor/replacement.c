/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/replacement.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define CHECK_MS 10000

/* ---- the check ---- */

static void check_exec(const char *program, const char *file, int out)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
		_exit(127);
	close_range(3, ~0U, 0);
	if (file)
		execl(program, "cairnd", "-c", file, "--check-upgrade", (char *)NULL);
	else
		execl(program, "cairnd", "--check-upgrade", (char *)NULL);
	dprintf(STDERR_FILENO, "%s: %s\n", program, strerror(errno));
	_exit(127);
}

/* What comes from @fd until its end or the time is over; false: over. */
static bool read_said(int fd, char *said, size_t room)
{
	uint64_t end = clock_now_ns() + CHECK_MS * NSEC_PER_MSEC, now;
	size_t n = 0;

	said[0] = 0;
	while ((now = clock_now_ns()) < end) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		char scrap[256];
		ssize_t got;

		if (poll(&p, 1, (int)((end - now) / NSEC_PER_MSEC) + 1) <= 0)
			continue;
		got = read(fd, scrap, sizeof(scrap));
		if (got <= 0)
			return true;
		if ((size_t)got > room - 1 - n)
			got = (ssize_t)(room - 1 - n);
		memcpy(said + n, scrap, (size_t)got);
		n += (size_t)got;
		said[n] = 0;
	}
	return false;
}

/* @program's own word on @file. */
static int ask_program(const char *program, const char *file, struct err *err)
{
	char said[512];
	int pipes[2], status = 0;
	bool in_time;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC))
		return err_set(err, -errno, "pipe: %s", strerror(errno));
	pid = fork();
	if (pid == 0)
		check_exec(program, file, pipes[1]);
	close(pipes[1]);
	in_time = pid > 0 && read_said(pipes[0], said, sizeof(said));
	close(pipes[0]);
	if (pid < 0)
		return err_set(err, -EAGAIN, "can't start %s", program);
	if (!in_time)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	if (!in_time)
		return err_set(err, -ETIMEDOUT, "%s --check-upgrade does not end", program);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	said[strcspn(said, "\n")] = 0;
	return err_set(err, -EINVAL, "%s", said[0] ? said : "cairnd --check-upgrade failed");
}

/* Only the supervisor's start can change these. */
static int fixed_check(const struct config *now, const struct config *next, struct err *err)
{
	const struct {
		const char *key, *now, *next;
	} fixed[] = {
		{"[daemon] control_socket", now->control_socket, next->control_socket},
		{"[daemon] control_group", now->control_group, next->control_group},
		{"[daemon] runtime_dir", now->runtime_dir, next->runtime_dir},
		{"[nbd] socket", now->nbd_socket, next->nbd_socket},
		{"[observe] enable", now->observe, next->observe},
	};

	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
		if (strcmp(fixed[i].now, fixed[i].next) != 0)
			return err_set(err, -EINVAL,
				       "%s = %.200s can't be changed by an upgrade (it is %.200s): "
				       "restart cairnd",
				       fixed[i].key, fixed[i].next, fixed[i].now);
	return 0;
}

int replacement_check(const struct config *now, const char *program, const char *file,
		      struct config *out, struct err *err)
{
	struct config *c = calloc(1, sizeof(*c));
	char *real;
	int rc;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	rc = ask_program(program ? program : "/proc/self/exe", file, err);
	config_defaults(c);
	if (!rc && file)
		rc = config_load(file, c, err);
	real = rc ? NULL : realpath(c->runtime_dir, NULL); /* as the supervisor has it */
	if (real && strlen(real) < sizeof(c->runtime_dir))
		strcpy(c->runtime_dir, real);
	free(real);
	if (!rc)
		rc = fixed_check(now, c, err);
	if (!rc)
		*out = *c;
	free(c);
	return rc;
}

/* ---- the machine ---- */

int replacement_start(struct replacement *r, const struct config *cfg, const char *program,
		      const struct worker_inheritance *in, struct err *err)
{
	struct worker_inheritance next = *in;
	int rc;

	if (r->state != REPLACEMENT_NONE)
		return err_set(err, -EBUSY, "the worker is being replaced already");
	snprintf(r->program, sizeof(r->program), "%s", program ? program : "");
	next.program = r->program;
	rc = worker_spawn(cfg, &next, &r->next, err);
	if (rc)
		return rc;
	r->cfg = *cfg;
	r->asked = r->begin = 0;
	r->released_ns = 0;
	r->deadline_ns = clock_now_ns() + REPLACEMENT_START_MS * NSEC_PER_MSEC;
	r->state = REPLACEMENT_STARTING;
	log_info("supervisor", "replacing the worker", "next=%d program=%s", r->next.pid,
		 program ? program : "(the same)");
	return 0;
}

void replacement_release(struct replacement *r, pid_t old, uint32_t id)
{
	r->begin = id;
	r->released_ns = clock_now_ns();
	r->deadline_ns = r->released_ns + REPLACEMENT_RELEASE_MS * NSEC_PER_MSEC;
	r->state = REPLACEMENT_RELEASING;
	kill(old, SIGUSR1);
}

void replacement_follow(struct replacement *r, struct worker_process *out)
{
	*out = r->next;
	r->next = (struct worker_process){.channel = -1};
	r->state = REPLACEMENT_SETTLING;
}

void replacement_on_time(struct replacement *r, uint64_t now, pid_t old)
{
	if ((r->state != REPLACEMENT_STARTING && r->state != REPLACEMENT_RELEASING) ||
	    now < r->deadline_ns)
		return;
	if (r->state == REPLACEMENT_STARTING) {
		log_error("supervisor", "the new worker does not begin; killing it", "pid=%d",
			  r->next.pid);
		kill(r->next.pid, SIGKILL);
	} else if (old) {
		log_warn("supervisor", "the old worker does not let go; killing it", "pid=%d", old);
		kill(old, SIGKILL);
	}
	r->deadline_ns = now + REPLACEMENT_RELEASE_MS * NSEC_PER_MSEC;
}
