/* SPDX-License-Identifier: Apache-2.0 */
#include "base/process.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STARTED_AT 20 /* fields after the name in /proc/PID/stat: starttime is the 22nd */

static int look(pid_t pid, uint64_t *started, char *state)
{
	char path[48], text[1024], *p;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = 0;
	p = strrchr(text, ')'); /* the name may hold anything */
	*state = p && p[1] ? p[2] : 'X';
	for (int i = 0; p && i < STARTED_AT; i++)
		p = strchr(p + 1, ' ');
	if (!p)
		return -EBADMSG;
	*started = strtoull(p + 1, NULL, 10);
	return 0;
}

int process_started(pid_t pid, uint64_t *started)
{
	char state;

	return look(pid, started, &state);
}

int boot_id(char out[BOOT_ID_LEN])
{
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	int rc = 0;

	if (!f)
		return -errno;
	if (!fgets(out, BOOT_ID_LEN, f))
		rc = -EIO;
	fclose(f);
	out[rc ? 0 : strcspn(out, "\n")] = 0;
	return rc;
}

struct process process_of(pid_t pid)
{
	struct process p = {.pid = pid};

	if (pid <= 0 || process_started(pid, &p.started))
		return (struct process){0};
	return p;
}

bool process_is(const struct process *p)
{
	uint64_t started;
	char state;

	return p->pid > 0 && !look(p->pid, &started, &state) && started == p->started &&
	       state != 'Z' && state != 'X';
}

static bool has_its_pid(const struct process *p)
{
	uint64_t started;

	return !process_started(p->pid, &started) && started == p->started;
}

int process_open(const struct process *p)
{
	int fd = p->pid > 0 ? (int)syscall(SYS_pidfd_open, p->pid, 0) : -1;

	/* looked at after the open: from then on the pid is not given to another */
	if (fd >= 0 && has_its_pid(p))
		return fd;
	if (fd >= 0)
		close(fd);
	return -ESRCH;
}

bool process_is_child(pid_t pid)
{
	siginfo_t info;

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

bool process_ends(const struct process *p, int ms)
{
	struct pollfd poller = {.events = POLLIN};
	bool ended;

	poller.fd = process_open(p);
	if (poller.fd < 0)
		return true;
	ended = poll(&poller, 1, ms) > 0;
	close(poller.fd);
	if (ended)
		waitpid(p->pid, NULL, WNOHANG);
	return ended;
}
