/* SPDX-License-Identifier: Apache-2.0 */
/* States: starting (a worker runs, not ready) -> serving -> [worker died: waiting -> starting]* ->
 * stopping. The sockets listen through all of them, so clients of a restart wait in the backlog.
 *
 * A worker that exits by itself before any was ever ready (no store, bad credentials file) ends
 * cairnd: trying again would only hide the reason.
 */
#include "supervisor/supervisor_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "supervisor/listen.h"
#include "worker/sandbox.h"

#define STOP_WAIT_MS 10000

/* ---- the worker's life ---- */

static void worker_start(struct supervisor *s)
{
	struct err err;

	s->restart_ns = 0;
	s->started_ns = clock_now_ns();
	deaths_worker_starts(&s->deaths);
	if (!worker_spawn(&s->cfg, &s->in, &s->worker, &err))
		return;
	log_error("supervisor", "can't start a worker", "why=\"%s\"", err.text);
	s->restart_ns = s->started_ns + crash_backoff_ms(&s->deaths.in_a_row, 0) * NSEC_PER_MSEC;
}

static void on_worker_death(struct supervisor *s, int status)
{
	struct crash_end e = {
		.pid = s->worker.pid, .status = status, .status_is_guess = s->worker_is_stranger};
	uint64_t now = clock_now_ns();
	unsigned ms;

	e.ran_ms = (now - s->started_ns) / NSEC_PER_MSEC;
	close(s->worker.channel);
	s->left_pid = s->worker.pid;
	s->left_ns = now;
	s->worker = (struct worker_process){.channel = -1};
	s->ready = false;
	if (s->stopping)
		return;
	devices_worker_died(&s->devices);
	if (upgrade_follows(s, status))
		return;
	ms = deaths_note(&s->deaths, &e);
	if (upgrade_steps_in(s))
		return;
	if (!s->ever_ready && WIFEXITED(status)) {
		s->status = 1;
		s->stopping = true;
		return;
	}
	s->restart_ns = now + ms * NSEC_PER_MSEC;
	s->in.restarts++;
	deaths_tell(&s->deaths, s->in.restarts, ms);
	s->worker_is_stranger = false;
}

/* What status it ended with only its parent is told. */
static int stranger_status(const struct supervisor *s)
{
	return s->replacement.state == REPLACEMENT_RELEASING ? 0 : SIGKILL;
}

static void on_stranger_end(struct supervisor *s, pid_t pid)
{
	if (s->worker_is_stranger && pid == s->worker.pid)
		on_worker_death(s, stranger_status(s));
	else
		devices_child_died(&s->devices, pid);
}

static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = watch_next(&s->strangers)) > 0)
		on_stranger_end(s, pid);
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == s->worker.pid)
			on_worker_death(s, status);
		else if (pid == s->replacement.next.pid)
			upgrade_next_died(s, status);
		else
			devices_child_died(&s->devices, pid);
	}
}

static void stop(struct supervisor *s, int signo)
{
	if (s->stopping)
		return;
	log_info("supervisor", "stopping", "signal=%d", signo);
	sd_notify(0, "STOPPING=1\nSTATUS=detaching devices");
	s->stopping = true;
	s->restart_ns = 0;
	if (s->replacement.next.pid)
		kill(s->replacement.next.pid, SIGKILL);
	devices_detach_all(&s->devices); /* while the worker still answers their last reads */
	if (s->worker.pid)
		kill(s->worker.pid, SIGTERM);
	s->deadline_ns = clock_now_ns() + STOP_WAIT_MS * NSEC_PER_MSEC;
}

/* ---- what is written down and told ---- */

static struct continuity_now now_of(const struct supervisor *s)
{
	return (struct continuity_now){.cfg = &s->cfg,
				       .devices = &s->devices,
				       .worker = &s->worker,
				       .in = &s->in,
				       .ready = s->ready};
}

void supervisor_save(struct supervisor *s)
{
	struct continuity_now now = now_of(s);

	continuity_save(&s->continuity, &now);
}

int supervisor_execve(struct supervisor *s, const char *program, uint32_t pending, struct err *err)
{
	struct continuity_now now = now_of(s);

	now.pending = pending;
	return continuity_execve(&s->continuity, &now, s->lock, program, s->settings_file, err);
}

void supervisor_tell_serving(struct supervisor *s)
{
	log_info("supervisor", "serving", "nbd=%s control=%s restarts=%u", s->cfg.nbd_socket,
		 s->cfg.control_socket, s->in.restarts);
	sd_notifyf(0,
		   "READY=1\nSTATUS=serving; the worker was restarted %u times, the supervisor "
		   "replaced %u times",
		   s->in.restarts, s->continuity.takeovers);
}

/* ---- the loop ---- */

/* Hung up, or not our protocol: either way this worker is no use. */
static void on_nonsense(struct supervisor *s, struct worker_process *w, int rc, ssize_t len)
{
	struct process process;
	int status = SIGKILL;

	if (rc != -EPIPE)
		log_error("supervisor", "the worker sent what is no request", "len=%zd", len);
	shutdown(w->channel, SHUT_RDWR);
	if (rc != -EPIPE || w == &s->worker)
		kill(w->pid, SIGKILL);
	if (waitpid(w->pid, &status, 0) != w->pid) { /* no child of ours */
		process = process_of(w->pid);
		process_ends(&process, STOP_WAIT_MS);
		status = stranger_status(s);
	}
	if (w == &s->worker)
		on_worker_death(s, status);
	else
		upgrade_next_died(s, status);
}

static void on_channel(struct supervisor *s, struct worker_process *w)
{
	ssize_t len = 0;
	int rc = request_serve(s, w, &len);

	if (rc)
		on_nonsense(s, w, rc, len);
}

/* The same as `cairn upgrade`; how it went is in the log. */
static void upgrade_by_signal(struct supervisor *s)
{
	struct supervisor_reply r = {0};

	if (!s->stopping && !upgrade_ask(s, 0, &r))
		log_error("supervisor", "no upgrade", "why=\"%s\"", r.text);
}

static void on_signal(struct supervisor *s)
{
	struct signalfd_siginfo si;

	while (read(s->signals, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT)
			stop(s, (int)si.ssi_signo);
		else if (si.ssi_signo == SIGHUP)
			upgrade_by_signal(s);
	}
	reap(s);
}

static uint64_t min_ns(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Milliseconds until the next thing to do by the clock; -1 = none. */
static int wait_ms(struct supervisor *s, bool reads_worker)
{
	uint64_t now = clock_now_ns(), at = UINT64_MAX;
	int tick = s->observer ? loader_tick(s->observer) : -1;

	if (tick >= 0)
		at = now + (uint64_t)tick * NSEC_PER_MSEC;
	if (s->worker.pid && !reads_worker)
		at = min_ns(at, now + (uint64_t)guard_wait_ms(&s->guard, now) * NSEC_PER_MSEC);
	if (s->restart_ns && s->restart_ns < at)
		at = s->restart_ns;
	if (s->stopping && s->deadline_ns < at)
		at = s->deadline_ns;
	if (s->replacement.next.pid && s->replacement.deadline_ns < at)
		at = s->replacement.deadline_ns;
	if (s->watchdog_ns && now + s->watchdog_ns < at)
		at = now + s->watchdog_ns;
	if (at == UINT64_MAX)
		return -1;
	return at <= now ? 0 : (int)((at - now) / NSEC_PER_MSEC) + 1;
}

static void on_time(struct supervisor *s)
{
	uint64_t now = clock_now_ns();

	if (s->watchdog_ns)
		sd_notify(0, "WATCHDOG=1");
	if (s->restart_ns && now >= s->restart_ns)
		worker_start(s);
	replacement_on_time(&s->replacement, now, s->worker.pid);
	if (s->stopping && s->worker.pid && now >= s->deadline_ns) {
		log_warn("supervisor", "the worker does not end; killing it", "pid=%d",
			 s->worker.pid);
		kill(s->worker.pid, SIGKILL);
		s->deadline_ns = now + STOP_WAIT_MS * NSEC_PER_MSEC;
	}
}

static void serve(struct supervisor *s)
{
	while (!s->stopping || s->worker.pid) {
		struct worker_process *next = &s->replacement.next;
		bool reads_worker = s->worker.pid && !guard_wait_ms(&s->guard, clock_now_ns());
		struct pollfd p[5] = {
			{.fd = s->signals, .events = POLLIN},
			{.fd = reads_worker ? s->worker.channel : -1, .events = POLLIN},
			{.fd = devices_events_fd(&s->devices), .events = POLLIN},
			{.fd = s->strangers.epoll, .events = POLLIN},
			{.fd = next->pid ? next->channel : -1, .events = POLLIN}};
		int n = poll(p, 5, wait_ms(s, reads_worker));

		if (n > 0 && (p[0].revents || p[3].revents))
			on_signal(s);
		/* the death seen above may have closed the channel */
		if (n > 0 && p[1].revents && s->worker.pid && p[1].fd == s->worker.channel)
			on_channel(s, &s->worker);
		if (n > 0 && p[4].revents && next->pid && p[4].fd == next->channel)
			on_channel(s, next);
		if (n > 0 && p[2].revents)
			devices_events(&s->devices);
		on_time(s);
		if (!s->stopping)
			supervisor_save(s);
	}
}

/* ---- start and end ---- */

static int signals_open(struct err *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_set(err, -errno, "signalfd: %s", strerror(errno)) : fd;
}

/* One cairnd a runtime folder: two would sweep each other's devices. */
static int runtime_claim(struct supervisor *s, struct err *err)
{
	char *real, path[CONFIG_PATH_MAX + 16];
	int rc = folder_make(s->cfg.runtime_dir, err);

	if (rc)
		return rc;
	real = realpath(s->cfg.runtime_dir, NULL); /* as mountinfo shows it */
	if (!real || strlen(real) >= sizeof(s->cfg.runtime_dir)) {
		free(real);
		return err_set(err, -EINVAL, "[daemon] runtime_dir = %s: %s", s->cfg.runtime_dir,
			       strerror(errno));
	}
	strcpy(s->cfg.runtime_dir, real);
	free(real);
	snprintf(path, sizeof(path), "%s/cairnd.lock", s->cfg.runtime_dir);
	s->lock = continuity_lock();
	if (s->lock >= 0)
		return 0;
	s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (flock(s->lock, LOCK_EX | LOCK_NB))
		return err_set(err, -EADDRINUSE,
			       "another cairnd runs with [daemon] runtime_dir = %s; stop it "
			       "or set another",
			       s->cfg.runtime_dir);
	return 0;
}

/* A descriptor a connection of each device. */
static void file_limit_raise(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

/* The worker and the devices of the supervisor before, or a new worker. */
static void worker_begin(struct supervisor *s)
{
	const struct state *before = &s->continuity.before;

	if (s->continuity.way != CONTINUITY_NOTHING)
		s->in.restarts = before->restarts;
	/* it served once: that it can't now is no reason to take devices away */
	s->ever_ready = s->continuity.way != CONTINUITY_NEW;
	if (!continuity_worker(&s->continuity, &s->worker)) {
		worker_start(s);
		return;
	}
	s->ready = true;
	s->started_ns = clock_now_ns();
	deaths_worker_starts(&s->deaths);
	s->worker_is_stranger = !process_is_child(s->worker.pid);
	if (s->worker_is_stranger)
		watch_add(&s->strangers, &before->worker);
	supervisor_tell_serving(s);
	upgrade_after(s, before->pending);
}

static int listeners_open(struct supervisor *s, struct err *err)
{
	s->in.control_listen = continuity_control_listen(&s->continuity, &s->cfg);
	if (s->in.control_listen < 0)
		s->in.control_listen =
			listen_unix(s->cfg.control_socket, "[daemon] control_socket", err);
	if (s->in.control_listen < 0)
		return s->in.control_listen;
	if (listen_share(s->cfg.control_socket, s->cfg.control_group))
		log_info("supervisor", "the control socket is for its owner only",
			 "control_group=%s", s->cfg.control_group);
	s->in.nbd_listen = continuity_nbd_listen(&s->continuity, &s->cfg);
	if (s->in.nbd_listen < 0)
		s->in.nbd_listen = listen_unix(s->cfg.nbd_socket, "[nbd] socket", err);
	return s->in.nbd_listen < 0 ? s->in.nbd_listen : 0;
}

/* That of the supervisor before, which its worker writes to, or a fresh one. */
static int crash_open(struct supervisor *s, struct err *err)
{
	int fd = continuity_crash(&s->continuity);

	if (fd >= 0 && !crash_record_map(fd, &s->deaths.record))
		return fd;
	if (fd >= 0)
		close(fd);
	return crash_record_new(&s->deaths.record, err);
}

static int start(struct supervisor *s, struct err *err)
{
	uint64_t usec = 0;
	int rc = runtime_claim(s, err);

	if (!rc)
		rc = worker_user_prepare(&s->cfg, &s->in.user, err);
	if (!rc)
		rc = continuity_open(&s->continuity, &s->cfg, err);
	if (!rc)
		rc = listeners_open(s, err);
	if (rc)
		return rc;
	s->in.exports_memfd = continuity_roster(&s->continuity, &s->cfg, err);
	if (s->in.exports_memfd < 0)
		return s->in.exports_memfd;
	s->in.crash_memfd = crash_open(s, err);
	if (s->in.crash_memfd < 0)
		return s->in.crash_memfd;
	rc = watch_open(&s->strangers);
	if (rc)
		return err_set(err, rc, "epoll: %s", strerror(-rc));
	s->signals = signals_open(err);
	if (s->signals < 0)
		return s->signals;
	if (sd_watchdog_enabled(0, &usec) > 0)
		s->watchdog_ns = usec * 1000 / 2;
	guard_init(&s->guard, s->cfg.control_socket, clock_now_ns());
	rc = devices_open(&s->devices, &s->cfg, err);
	if (rc)
		return rc;
	file_limit_raise();
	continuity_devices(&s->continuity, &s->devices);
	attach_sweep(&s->devices.env, s->devices.list, s->devices.n);
	for (size_t i = 0; i < s->devices.n; i++) {
		const struct attachment *a = &s->devices.list[i];

		if (a->pid && !process_is_child(a->pid))
			watch_add(&s->strangers, &(struct process){a->pid, a->pid_started});
	}
	worker_begin(s);
	continuity_begun(&s->continuity);
	supervisor_save(s);
	return 0;
}

static void finish(struct supervisor *s)
{
	bool gone;

	devices_close(&s->devices);
	continuity_close(&s->continuity, &s->cfg, s->status == 0);
	watch_close(&s->strangers);
	/* a worker that goes on without us listens still */
	gone = s->status == 0 || s->continuity.way == CONTINUITY_NEW;
	if (gone && s->in.control_listen >= 0)
		unlink(s->cfg.control_socket);
	if (gone && s->in.nbd_listen >= 0)
		unlink(s->cfg.nbd_socket);
	close(s->in.control_listen);
	close(s->in.nbd_listen);
	close(s->in.exports_memfd);
	close(s->in.crash_memfd);
	crash_record_unmap(s->deaths.record);
	close(s->signals);
	close(s->lock);
	loader_close(s->observer);
}

int supervisor_run(const struct config *cfg, const char *file)
{
	struct supervisor *s = calloc(1, sizeof(*s));
	struct err err = {0};
	int status;

	if (!s)
		return 1;
	s->cfg = *cfg;
	s->settings = cfg;
	continuity_settings(&s->cfg);
	s->in = (struct worker_inheritance){
		.nbd_listen = -1, .control_listen = -1, .exports_memfd = -1, .crash_memfd = -1};
	upgrade_init(s, file);
	s->worker.channel = s->signals = s->lock = -1;
	s->strangers.epoll = s->continuity.fd = -1;
	log_set_name("cairnd");
	sandbox_hide(strcmp(s->cfg.core_dumps, "on") == 0);
	if (start(s, &err)) {
		log_error("supervisor", "can't start", "why=\"%s\"", err.text);
		s->status = 1;
	} else {
		serve(s);
		devices_detach_all(&s->devices);
		log_info("supervisor", "stopped", "%s", "");
	}
	finish(s);
	status = s->status;
	free(s);
	return status;
}
