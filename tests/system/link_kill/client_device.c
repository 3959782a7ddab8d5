// SPDX-License-Identifier: Apache-2.0
/* The kernel's own client: a device, and readers of it past the page cache. */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/nbd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/system/link_kill/link_kill.h"

#define READERS	 4
#define DEVICE_S 30 /* the kernel's time-out of a request; then the read fails */

static pid_t fork_bound(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

/* The size shows when the kernel has started the device; reads before that are past its end. */
static void device_await(int fd)
{
	uint64_t size = 0;

	for (int ms = 0; ms < 20000 && !ioctl(fd, BLKGETSIZE64, &size) && size != IMAGE_LEN; ms++)
		usleep(1000);
	if (size != IMAGE_LEN)
		die("the device did not start");
}

/* The open device; the child that it returns stays in the kernel. */
static int device_connect(const char *path, int sock, pid_t *in_kernel)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, NBD_SET_BLKSIZE, 4096UL) ||
	    ioctl(fd, NBD_SET_SIZE_BLOCKS, (unsigned long)IMAGE_LEN / 4096) ||
	    ioctl(fd, NBD_SET_TIMEOUT, (unsigned long)DEVICE_S) ||
	    ioctl(fd, NBD_SET_FLAGS, (unsigned long)(NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY)) ||
	    ioctl(fd, NBD_SET_SOCK, sock))
		die(path);
	*in_kernel = fork_bound();
	if (*in_kernel == 0) {
		ioctl(fd, NBD_DO_IT);
		_exit(0);
	}
	device_await(fd);
	return fd;
}

static void reader_run(const char *path, uint64_t seed)
{
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	uint8_t *data = aligned_alloc(4096, READ_MAX);
	struct rnd r = {seed * 0x9e3779b97f4a7c15ULL};

	if (fd < 0 || !data)
		die(path);
	while (!atomic_load(&tally->stop)) {
		uint32_t len = 4096U << rnd_below(&r, 7);
		uint64_t off = (uint64_t)rnd_below(&r, IMAGE_LEN / len) * len;
		uint64_t began_ns = clock_now_ns(), ns;

		memset(data, 0xa5, len);
		if (pread(fd, data, len, (off_t)off) != (ssize_t)len) {
			atomic_fetch_add(&tally->failed, 1);
			die("a read of the device");
		}
		if (memcmp(data, image + off, len) != 0) {
			atomic_fetch_add(&tally->wrong, 1);
			fprintf(stderr, "client: wrong bytes\n");
			_exit(1);
		}
		ns = clock_now_ns() - began_ns;
		if (ns > atomic_load(&tally->longest_ns))
			atomic_store(&tally->longest_ns, ns);
		atomic_fetch_add(&tally->reads, 1);
	}
	_exit(0);
}

void client_run_device(int sock, const char *path)
{
	pid_t in_kernel, readers[READERS];
	int fd = device_connect(path, sock, &in_kernel), status;
	bool bad = false;

	close(sock);
	for (uint64_t i = 0; i < READERS; i++) {
		readers[i] = fork_bound();
		if (readers[i] == 0)
			reader_run(path, i + 1);
	}
	atomic_store(&tally->ready, true);
	/* One that fails ends it at once, and the connection's end the others. */
	for (int i = 0; i < READERS && !bad; i++)
		bad = waitpid(-1, &status, 0) < 0 || status;
	ioctl(fd, NBD_DISCONNECT);
	ioctl(fd, NBD_CLEAR_SOCK);
	if (bad)
		_exit(1);
	waitpid(in_kernel, NULL, 0);
	_exit(0);
}
