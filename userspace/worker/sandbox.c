/* SPDX-License-Identifier: Apache-2.0 */
/* The list is what the worker, glibc's threads and resolver, libcurl, OpenSSL, libmicrohttpd and
 * liburing call. A name that this libseccomp or this architecture does not know is passed over.
 *
 * clone3() is left out although glibc tries it: a filter can't look at its flags, and clone() with
 * CLONE_THREAD is what glibc does next. For that reason refusals are not logged, either: each new
 * thread would write a line.
 */
#include "worker/sandbox.h"

#include <errno.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/io_uring.h>
#include <linux/sockios.h>

#include "base/log.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

static const char *const allowed[] = {
	/* descriptors */
	"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2",
	"pwritev2", "sendfile", "lseek", "close", "close_range", "dup", "dup2", "dup3", "fcntl",
	"pipe", "pipe2", "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1",
	"epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "signalfd4",
	"timerfd_create", "timerfd_settime", "timerfd_gettime", "memfd_create", "io_uring_enter",
	/* files */
	"open", "openat", "openat2", "stat", "fstat", "lstat", "newfstatat", "statx", "access",
	"faccessat", "faccessat2", "readlink", "readlinkat", "getdents", "getdents64", "mkdir",
	"mkdirat", "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2", "link",
	"linkat", "fchmod", "fchmodat", "statfs", "fstatfs", "umask", "getcwd", "truncate",
	"ftruncate", "fallocate", "fadvise64", "readahead", "flock", "fsync", "fdatasync",
	"sync_file_range", "utimensat",
	/* sockets */
	"socketpair", "connect", "bind", "listen", "accept", "accept4", "getsockname",
	"getpeername", "getsockopt", "setsockopt", "sendto", "sendmsg", "sendmmsg", "recvfrom",
	"recvmsg", "recvmmsg", "shutdown",
	/* memory */
	"munmap", "mremap", "madvise", "brk", "mincore", "msync", "mlock", "mlock2", "munlock",
	"membarrier",
	/* threads */
	"futex", "futex_waitv", "futex_wake", "futex_wait", "futex_requeue", "set_robust_list",
	"get_robust_list", "rseq", "set_tid_address", "exit", "exit_group", "gettid", "getpid",
	"getppid", "sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getparam",
	"sched_getscheduler", "sched_setscheduler", "sched_getattr", "sched_setattr",
	"sched_get_priority_max", "sched_get_priority_min", "getcpu", "getpriority", "setpriority",
	"ioprio_get", "ioprio_set", "arch_prctl",
	/* signals */
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "rt_sigpending",
	"rt_sigsuspend", "sigaltstack", "restart_syscall",
	/* time */
	"clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time",
	"times",
	/* the rest */
	"uname", "sysinfo", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid",
	"getgroups", "getrlimit", "getrusage", "getrandom", "getpgrp", "seccomp"};

/* No library and no libc of any version makes these for a program like this one. */
static const char *const hostile[] = {"execve",
				      "execveat",
				      "ptrace",
				      "process_vm_readv",
				      "process_vm_writev",
				      "pidfd_getfd",
				      "mount",
				      "umount2",
				      "move_mount",
				      "fsopen",
				      "fsmount",
				      "fsconfig",
				      "fspick",
				      "open_tree",
				      "mount_setattr",
				      "pivot_root",
				      "chroot",
				      "setns",
				      "unshare",
				      "kexec_load",
				      "kexec_file_load",
				      "init_module",
				      "finit_module",
				      "delete_module",
				      "bpf",
				      "perf_event_open",
				      "open_by_handle_at",
				      "setuid",
				      "setgid",
				      "setreuid",
				      "setregid",
				      "setresuid",
				      "setresgid",
				      "setfsuid",
				      "setfsgid",
				      "setgroups",
				      "capset",
				      "reboot",
				      "swapon",
				      "swapoff",
				      "iopl",
				      "ioperm",
				      "settimeofday",
				      "clock_settime",
				      "sethostname",
				      "setdomainname",
				      "acct",
				      "quotactl",
				      "userfaultfd"};

/* -1: unknown here. Pseudo numbers of other architectures are negative, too. */
static int number_of(uint32_t arch, const char *name)
{
	int nr = seccomp_syscall_resolve_name_arch(arch, name);

	return nr < 0 ? -1 : nr;
}

static int add_names(scmp_filter_ctx f, uint32_t arch, uint32_t action, const char *const *names,
		     size_t n)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < n; i++) {
		int nr = number_of(arch, names[i]);

		if (nr >= 0)
			rc = seccomp_rule_add(f, action, nr, 0);
	}
	return rc;
}

static int allow_if(scmp_filter_ctx f, uint32_t arch, const char *name, struct scmp_arg_cmp a)
{
	int nr = number_of(arch, name);

	return nr < 0 ? 0 : seccomp_rule_add_array(f, SCMP_ACT_ALLOW, nr, 1, &a);
}

static int allow_each(scmp_filter_ctx f, uint32_t arch, const char *name, unsigned arg,
		      const uint64_t *values, size_t n)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < n; i++) /* 32 bits: what the kernel looks at */
		rc = allow_if(f, arch, name,
			      SCMP_CMP64(arg, SCMP_CMP_MASKED_EQ, UINT32_MAX, values[i]));
	return rc;
}

/* Sockets of the families that are used, and of netlink only what the resolver asks: the routes. */
static int allow_sockets(scmp_filter_ctx f, uint32_t arch)
{
	static const uint64_t families[] = {AF_UNIX, AF_INET, AF_INET6};
	struct scmp_arg_cmp routes[] = {SCMP_A0_64(SCMP_CMP_EQ, AF_NETLINK),
					SCMP_A2_64(SCMP_CMP_EQ, 0)};
	int rc = allow_each(f, arch, "socket", 0, families, 3), nr = number_of(arch, "socket");

	return rc || nr < 0 ? rc : seccomp_rule_add_array(f, SCMP_ACT_ALLOW, nr, 2, routes);
}

/* Memory is never writable and executable, nor made executable after it was written. */
static int allow_memory(scmp_filter_ctx f, uint32_t arch)
{
	static const uint64_t both = PROT_WRITE | PROT_EXEC;
	int rc = allow_if(f, arch, "mprotect", SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));

	if (!rc)
		rc = allow_if(f, arch, "mmap", SCMP_A2_64(SCMP_CMP_MASKED_EQ, both, 0));
	if (!rc)
		rc = allow_if(f, arch, "mmap", SCMP_A2_64(SCMP_CMP_MASKED_EQ, both, PROT_WRITE));
	if (!rc)
		rc = allow_if(f, arch, "mmap", SCMP_A2_64(SCMP_CMP_MASKED_EQ, both, PROT_EXEC));
	return rc;
}

/* Threads, not processes and not namespaces; signals and limits of this process only. */
static int allow_threads(scmp_filter_ctx f, uint32_t arch)
{
	static const uint64_t bad = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET |
				    CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP;
	uint64_t self = (uint64_t)getpid(), zero = 0;
	int rc = allow_if(f, arch, "clone",
			  SCMP_A0_64(SCMP_CMP_MASKED_EQ, bad | CLONE_THREAD, CLONE_THREAD));

	if (!rc)
		rc = allow_each(f, arch, "tgkill", 0, &self, 1);
	if (!rc)
		rc = allow_each(f, arch, "kill", 0, &self, 1);
	if (!rc)
		rc = allow_each(f, arch, "prlimit64", 0, &zero, 1);
	return rc;
}

static int allow_arguments(scmp_filter_ctx f, uint32_t arch)
{
	static const uint64_t ioctls[] = {FIONREAD, SIOCOUTQ, FIONBIO, TCGETS, TIOCGWINSZ};
	static const uint64_t prctls[] = {
		PR_SET_NAME, PR_GET_NAME, PR_SET_TIMERSLACK,
		PR_SET_NO_NEW_PRIVS,	      /* the second stage asks for it again */
		0x53564d41 /* PR_SET_VMA */}; /* glibc names its arenas */
	static const uint64_t registers[] = {IORING_REGISTER_RESTRICTIONS,
					     IORING_REGISTER_ENABLE_RINGS};
	int rc = allow_each(f, arch, "ioctl", 1, ioctls, sizeof(ioctls) / sizeof(*ioctls));

	if (!rc)
		rc = allow_each(f, arch, "prctl", 0, prctls, sizeof(prctls) / sizeof(*prctls));
	if (!rc)
		rc = allow_each(f, arch, "io_uring_register", 1, registers, 2);
	return rc;
}

/* Younger than some libseccomp that are about; the same number on every architecture. */
#define NR_CACHESTAT 451

/* The first stage: a list. */
static int fill_list(scmp_filter_ctx f, uint32_t arch)
{
	int rc = add_names(f, arch, SCMP_ACT_ALLOW, allowed, sizeof(allowed) / sizeof(*allowed));

	if (!rc)
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, NR_CACHESTAT, 0);
	if (!rc)
		rc = add_names(f, arch, SCMP_ACT_KILL_PROCESS, hostile,
			       sizeof(hostile) / sizeof(*hostile));
	if (!rc)
		rc = allow_sockets(f, arch);
	if (!rc)
		rc = allow_memory(f, arch);
	if (!rc)
		rc = allow_threads(f, arch);
	if (!rc)
		rc = allow_arguments(f, arch);
	if (!rc)
		rc = add_names(f, arch, SCMP_ACT_ALLOW, (const char *[]){"io_uring_setup"}, 1);
	return rc;
}

/* The second only takes away: a ring of the worker's later making would have no restrictions. */
static int fill_taken(scmp_filter_ctx f, uint32_t arch)
{
	return add_names(f, arch, SCMP_ACT_ERRNO(EPERM), (const char *[]){"io_uring_setup"}, 1);
}

static int filter_new(enum sandbox_stage stage, uint32_t arch, scmp_filter_ctx *out)
{
	bool list = stage == SANDBOX_START;
	scmp_filter_ctx f = seccomp_init(list ? SCMP_ACT_ERRNO(ENOSYS) : SCMP_ACT_ALLOW);
	int rc = f ? 0 : -ENOMEM;

	if (!rc && arch != seccomp_arch_native()) {
		rc = seccomp_arch_add(f, arch);
		if (!rc)
			rc = seccomp_arch_remove(f, SCMP_ARCH_NATIVE);
	}
	if (!rc)
		rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!rc)
		rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, not a line */
	if (!rc)
		rc = list ? fill_list(f, arch) : fill_taken(f, arch);
	if (!rc)
		*out = f;
	else
		seccomp_release(f);
	return rc;
}

int sandbox_export(enum sandbox_stage stage, uint32_t arch, int fd)
{
	scmp_filter_ctx f;
	int rc = filter_new(stage, arch, &f);

	if (rc)
		return rc;
	rc = seccomp_export_bpf(f, fd);
	seccomp_release(f);
	return rc;
}

int sandbox_enter(enum sandbox_stage stage, struct err *err)
{
	scmp_filter_ctx f;
	int rc = filter_new(stage, seccomp_arch_native(), &f);

	if (!rc) {
		rc = seccomp_load(f);
		seccomp_release(f);
	}
	return rc ? err_set(err, rc, "no seccomp filter: %s", strerror(-rc)) : 0;
}

void sandbox_worker(enum sandbox_stage stage, bool wanted)
{
	struct err err;

	if (!wanted || SANITIZED) {
		if (stage == SANDBOX_START)
			log_warn("worker", "no seccomp filter", "why=\"%s\"",
				 wanted ? "built with a sanitizer" : "[daemon] seccomp = off");
		return;
	}
	if (sandbox_enter(stage, &err))
		log_warn("worker", "no seccomp filter", "why=\"%s\"", err.text);
}

void sandbox_hide(bool core_dumps)
{
	struct rlimit r = {0, 0};

	if (core_dumps) {
		if (getrlimit(RLIMIT_CORE, &r) == 0) {
			r.rlim_cur = r.rlim_max;
			setrlimit(RLIMIT_CORE, &r);
		}
		return;
	}
	setrlimit(RLIMIT_CORE, &r);
	if (!SANITIZED) /* the leak checker traces its own process */
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}
