/* SPDX-License-Identifier: Apache-2.0 */
/* The filter of the worker, each time in a child, since nobody gets out of one again. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/loop.h"
#include "worker/sandbox.h"

/* What wait() says of a child that runs @fn behind the filter; its errno is the exit status. */
static int behind_filter(int (*fn)(void), bool serving)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		if (sandbox_enter(SANDBOX_START, NULL) ||
		    (serving && sandbox_enter(SANDBOX_SERVE, NULL)))
			_exit(255);
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void assert_fails_with(int (*fn)(void), int error)
{
	int status = behind_filter(fn, false);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), error);
}

static void assert_kills(int (*fn)(void))
{
	int status = behind_filter(fn, false);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

static int call(long nr, long a, long b, long c)
{
	return syscall(nr, a, b, c) < 0 ? errno : 0;
}

static int does_execve(void)
{
	return call(SYS_execve, 0, 0, 0);
}
static int does_ptrace(void)
{
	return call(SYS_ptrace, 0, 0, 0);
}
static int does_mount(void)
{
	return call(SYS_mount, 0, 0, 0);
}
static int does_unshare(void)
{
	return call(SYS_unshare, 0, 0, 0);
}
static int does_setuid(void)
{
	return call(SYS_setuid, (long)getuid(), 0, 0);
}
static int does_bpf(void)
{
	return call(SYS_bpf, -1, 0, 0);
}

static void what_only_an_attacker_calls_ends_the_process(void **state)
{
	(void)state;
	assert_kills(does_execve);
	assert_kills(does_ptrace);
	assert_kills(does_mount);
	assert_kills(does_unshare);
	assert_kills(does_setuid);
	assert_kills(does_bpf);
}

static int of_the_future(void)
{
	return call(5000, 0, 0, 0);
}
static int does_mknod(void)
{
	return call(SYS_mknodat, AT_FDCWD, (long)"/nowhere/x", 0);
}
static int forks(void)
{
	return call(SYS_clone, SIGCHLD, 0, 0);
}

/* A newer libc asks for what is newer than this list, and must be told what an old kernel says. */
static void a_call_that_is_not_on_the_list_fails_and_the_process_goes_on(void **state)
{
	(void)state;
	assert_fails_with(of_the_future, ENOSYS);
	assert_fails_with(does_mknod, ENOSYS);
	assert_fails_with(forks, ENOSYS);
}

static int writable_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0) == MAP_FAILED
		       ? errno
		       : 0;
}
static int code_that_was_data(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? 254 : mprotect(p, 4096, PROT_READ | PROT_EXEC) ? errno : 0;
}
static int raw_socket(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0) < 0 ? errno : 0;
}
static int audit_socket(void)
{
	return socket(AF_NETLINK, SOCK_RAW, 9) < 0 ? errno : 0;
}
static int terminal_input(void)
{
	return call(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, (long)"x");
}
static int kills_its_parent(void)
{
	return kill(getppid(), 0) ? errno : 0;
}
static int becomes_dumpable(void)
{
	return prctl(PR_SET_DUMPABLE, 1) ? errno : 0;
}

static void arguments_that_the_worker_never_gives_are_refused(void **state)
{
	(void)state;
	assert_fails_with(writable_code, ENOSYS);
	assert_fails_with(code_that_was_data, ENOSYS);
	assert_fails_with(raw_socket, ENOSYS);
	assert_fails_with(audit_socket, ENOSYS);
	assert_fails_with(terminal_input, ENOSYS);
	assert_fails_with(kills_its_parent, ENOSYS);
	assert_fails_with(becomes_dumpable, ENOSYS);
}

static void *thread_main(void *arg)
{
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	if (fd >= 0 || errno == EAFNOSUPPORT)
		*(int *)arg = 1;
	return NULL;
}

static int goes_on_as_ever(void)
{
	char path[] = "/tmp/cairn-unit-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC), ran = 0, pair[2];
	pthread_t t;

	if (fd < 0 || write(fd, "x", 1) != 1 || fsync(fd) || unlink(path))
		return 1;
	if (pthread_create(&t, NULL, thread_main, &ran) || pthread_join(t, NULL) || !ran)
		return 2;
	if (socket(AF_NETLINK, SOCK_RAW, 0) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return 3;
	if (!mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
		return 4;
	return kill(getpid(), 0) ? 5 : 0;
}

static void threads_files_and_sockets_work_behind_it(void **state)
{
	(void)state;
	assert_int_equal(behind_filter(goes_on_as_ever, false), 0);
	assert_int_equal(behind_filter(goes_on_as_ever, true), 0);
}

static int makes_a_ring(void)
{
	struct loop *l = loop_new(LOOP_URING, NULL);

	if (l)
		loop_free(l);
	return l ? 0 : 1;
}

static void no_ring_is_made_once_the_worker_serves(void **state)
{
	(void)state;
	if (makes_a_ring())
		skip();
	assert_int_equal(WEXITSTATUS(behind_filter(makes_a_ring, false)), 0);
	assert_int_equal(WEXITSTATUS(behind_filter(makes_a_ring, true)), 1);
}

static pthread_barrier_t both;
static int of_thread;

static void *waits_and_calls(void *arg)
{
	pthread_barrier_wait(&both);
	pthread_barrier_wait(&both);
	of_thread = does_mknod();
	return arg;
}

static void threads_that_were_there_before_are_behind_it_too(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	if (pid == 0) {
		pthread_t t;

		pthread_barrier_init(&both, NULL, 2);
		pthread_create(&t, NULL, waits_and_calls, NULL);
		pthread_barrier_wait(&both);
		if (sandbox_enter(SANDBOX_START, NULL))
			_exit(255);
		pthread_barrier_wait(&both);
		pthread_join(t, NULL);
		_exit(of_thread);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), ENOSYS);
}

/* As far as this machine can say it: the list resolves there, and the kernel's limit is kept. */
static void the_filter_can_be_made_for_each_architecture(void **state)
{
	static const uint32_t archs[] = {SCMP_ARCH_X86_64, SCMP_ARCH_AARCH64};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		for (int stage = SANDBOX_START; stage <= SANDBOX_SERVE; stage++) {
			int fd = memfd_create("filter", MFD_CLOEXEC);
			off_t len;

			assert_int_equal(sandbox_export((enum sandbox_stage)stage, archs[i], fd),
					 0);
			len = lseek(fd, 0, SEEK_END) / 8;
			assert_in_range(len, stage == SANDBOX_START ? 200 : 4, 4096);
			close(fd);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_only_an_attacker_calls_ends_the_process),
		cmocka_unit_test(a_call_that_is_not_on_the_list_fails_and_the_process_goes_on),
		cmocka_unit_test(arguments_that_the_worker_never_gives_are_refused),
		cmocka_unit_test(threads_files_and_sockets_work_behind_it),
		cmocka_unit_test(no_ring_is_made_once_the_worker_serves),
		cmocka_unit_test(threads_that_were_there_before_are_behind_it_too),
		cmocka_unit_test(the_filter_can_be_made_for_each_architecture),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
