/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/worker_process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "crash/doing.h"
#include "worker/worker.h"

enum { FD_NBD = 3, FD_CONTROL, FD_SUPERVISOR, FD_EXPORTS, FD_CRASH, FD_CONFIG, FD_END };

/* The settings as they were read once: the file may have changed since. */
static int config_pass(const struct config *cfg, struct err *err)
{
	int fd = memfd_create("cairn-config", MFD_CLOEXEC);
	int rc = fd < 0 ? -errno : pwrite_all(fd, cfg, sizeof(*cfg), 0);

	if (rc && fd >= 0)
		close(fd);
	return rc ? err_set(err, rc, "memfd: %s", strerror(-rc)) : fd;
}

/* What reading any origin file and a store of any owner needs; no mounts, devices or raw sockets.
 */
static void capabilities_drop(void)
{
	static const int kept[] = {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_IPC_LOCK};

	for (int cap = 0; cap <= CAP_LAST_CAP; cap++) {
		bool keep = false;

		for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
			keep = keep || kept[i] == cap;
		if (!keep)
			prctl(PR_CAPBSET_DROP, cap); /* EPERM without root: nothing to drop then */
	}
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* In the child. Descriptors go far away first, since a source may sit on another's target. */
static void worker_exec(const struct config *cfg, const struct worker_inheritance *in, int channel,
			int config)
{
	int from[] = {in->nbd_listen,	 in->control_listen, channel,
		      in->exports_memfd, in->crash_memfd,    config};
	char restarts[16];
	sigset_t none;

	for (int i = 0; i < FD_END - FD_NBD; i++)
		from[i] = fcntl(from[i], F_DUPFD, 64);
	for (int i = 0; i < FD_END - FD_NBD; i++)
		if (from[i] < 0 || dup2(from[i], FD_NBD + i) < 0)
			_exit(1);
	close_range(FD_END, ~0U, 0);
	snprintf(restarts, sizeof(restarts), "%u", in->restarts);
	setenv("CAIRN_WORKER_RESTARTS", restarts, 1);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	capabilities_drop();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* the folder: for whoever looks at the process, which may outlive us */
	execl("/proc/self/exe", "cairnd", "--worker", cfg->runtime_dir, (char *)NULL);
	_exit(127);
}

int worker_spawn(const struct config *cfg, const struct worker_inheritance *in,
		 struct worker_process *out, struct err *err)
{
	int pair[2], config = config_pass(cfg, err);
	pid_t pid;

	if (config < 0)
		return config;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		int rc = -errno;

		close(config);
		return err_set(err, rc, "socketpair: %s", strerror(-rc));
	}
	pid = fork();
	if (pid == 0)
		worker_exec(cfg, in, pair[1], config);
	close(config);
	close(pair[1]);
	if (pid < 0) {
		int rc = -errno;

		close(pair[0]);
		return err_set(err, rc, "fork: %s", strerror(-rc));
	}
	*out = (struct worker_process){.pid = pid, .channel = pair[0]};
	return 0;
}

int worker_enter(void)
{
	static struct config cfg;
	struct worker_fds fds = {.nbd_listen = FD_NBD,
				 .control_listen = FD_CONTROL,
				 .supervisor = FD_SUPERVISOR,
				 .exports_memfd = FD_EXPORTS,
				 .crash_memfd = FD_CRASH};
	enum log_level level;
	struct stat st;
	int rc;

	log_set_name("worker");
	if (fstat(FD_CONFIG, &st) || st.st_size != sizeof(cfg) ||
	    pread_all(FD_CONFIG, &cfg, sizeof(cfg), 0)) {
		fprintf(stderr,
			"cairnd: --worker is for the supervisor's use; start plain cairnd\n");
		return 2;
	}
	close(FD_CONFIG);
	for (int fd = FD_NBD; fd < FD_CONFIG; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (!log_level_parse(cfg.log_level, &level))
		log_set_level(level);
	rc = crash_begin(FD_CRASH);
	if (rc)
		log_warn("worker", "no record of crashes is kept", "why=\"%s\"", strerror(-rc));
	return worker_main(&cfg, &fds);
}
