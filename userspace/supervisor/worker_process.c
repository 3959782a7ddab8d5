/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/worker_process.h"

#include <errno.h>
#include <fcntl.h>
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
#include "worker/sandbox.h"
#include "worker/secrets.h"
#include "worker/worker.h"

enum { FD_NBD = 3, FD_CONTROL, FD_SUPERVISOR, FD_EXPORTS, FD_CRASH, FD_SECRETS, FD_CONFIG, FD_END };

/* The settings as they were read once: the file may have changed since. */
static int config_pass(const struct config *cfg, struct err *err)
{
	int fd = memfd_create("cairn-config", MFD_CLOEXEC);
	int rc = fd < 0 ? -errno : pwrite_all(fd, cfg, sizeof(*cfg), 0);

	if (rc && fd >= 0)
		close(fd);
	return rc ? err_set(err, rc, "memfd: %s", strerror(-rc)) : fd;
}

/* In the child. Descriptors go far away first, since a source may sit on another's target. */
static void worker_exec(const struct config *cfg, const struct worker_inheritance *in, int channel,
			int secrets, int config)
{
	int from[] = {in->nbd_listen,  in->control_listen,
		      channel,	       in->exports_memfd,
		      in->crash_memfd, secrets,
		      config};
	char restarts[16];
	sigset_t none;
	int rc;

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
	rc = worker_user_become(&in->user);
	if (rc) {
		log_error("supervisor", "the worker can't become its user", "uid=%u why=\"%s\"",
			  in->user.uid, strerror(-rc));
		_exit(1);
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* the folder: for whoever looks at the process, which may outlive us */
	execl(in->program && in->program[0] ? in->program : "/proc/self/exe", "cairnd", "--worker",
	      cfg->runtime_dir, (char *)NULL);
	_exit(127);
}

int worker_spawn(const struct config *cfg, const struct worker_inheritance *in,
		 struct worker_process *out, struct err *err)
{
	int pair[2], config = config_pass(cfg, err), secrets;
	pid_t pid;

	if (config < 0)
		return config;
	secrets = secrets_pass(cfg);
	if (secrets < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		int rc = secrets < 0 ? secrets : -errno;

		close(config);
		if (secrets >= 0)
			close(secrets);
		return err_set(err, rc, "%s: %s", secrets < 0 ? "memfd" : "socketpair",
			       strerror(-rc));
	}
	pid = fork();
	if (pid == 0)
		worker_exec(cfg, in, pair[1], secrets, config);
	close(config);
	close(secrets);
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
				 .crash_memfd = FD_CRASH,
				 .secrets_memfd = FD_SECRETS};
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
	sandbox_hide(strcmp(cfg.core_dumps, "on") == 0);
	if (!log_level_parse(cfg.log_level, &level))
		log_set_level(level);
	rc = crash_begin(FD_CRASH);
	if (rc)
		log_warn("worker", "no record of crashes is kept", "why=\"%s\"", strerror(-rc));
	return worker_main(&cfg, &fds);
}
