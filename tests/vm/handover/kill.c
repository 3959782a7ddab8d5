// SPDX-License-Identifier: Apache-2.0
/* The parent holds the connected socket, the ledger and the device; its worker is killed at random
 * moments and followed by another, while readers compare every word they read. A read that fails, a
 * wrong word or a reader that stands still is what must not be.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/vm/handover/modes.h"
#include "tests/vm/handover/server.h"

#define READERS	     4
#define READ_MAX     (256U << 10)
#define STANDSTILL_S 20	   /* without any read: hung */
#define DEVICE_S     30	   /* the kernel's time-out of a request */
#define PAUSE_MAX_US 40000 /* between kills */

struct tally { /* shared by all */
	uint64_t reads, failed, wrong;
	bool stop;
};

struct kills {
	int done, lag_received, lag_sent, mid_reply;
	bool hung;
};

static void *shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE,
		       -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

/* The size shows when the kernel has started the device; reads before that are past its end. */
static void device_await(int fd)
{
	uint64_t size = 0;
	int ms;

	for (ms = 0; ms < 10000 && !ioctl(fd, BLKGETSIZE64, &size) && size != IMAGE_LEN; ms++)
		usleep(1000);
	if (size != IMAGE_LEN)
		die("the device did not start");
}

/* Connects the device with @sock as the kernel's end; the child that it returns stays in the
 * kernel. */
static pid_t device_connect(const char *path, int sock)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	pid_t pid;

	if (fd < 0 || ioctl(fd, NBD_SET_BLKSIZE, 4096UL) ||
	    ioctl(fd, NBD_SET_SIZE_BLOCKS, (unsigned long)IMAGE_LEN / 4096) ||
	    ioctl(fd, NBD_SET_TIMEOUT, (unsigned long)DEVICE_S) ||
	    ioctl(fd, NBD_SET_FLAGS, (unsigned long)(NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY)) ||
	    ioctl(fd, NBD_SET_SOCK, sock))
		die(path);
	pid = fork();
	if (pid == 0) {
		ioctl(fd, NBD_DO_IT);
		_exit(0);
	}
	device_await(fd);
	close(fd);
	return pid;
}

int mode_serve(const char *device)
{
	struct server s = {.sendfile_min = 32768};
	struct inheritance in = {0};
	int ends[2];
	pid_t doit;

	s.image = image_make(&s.image_fd);
	s.ledger = shared(sizeof(*s.ledger));
	connection_make(false, ends);
	s.sock = ends[1];
	doit = device_connect(device, ends[0]);
	close(ends[0]);
	puts("serving");
	fflush(stdout);
	server_run(&s, &in);
	waitpid(doit, NULL, 0);
	return 0;
}

static void reader(const char *path, unsigned seed, struct tally *t)
{
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	uint64_t *buf = aligned_alloc(4096, READ_MAX);

	if (fd < 0 || !buf)
		die(path);
	srand(seed);
	while (!__atomic_load_n(&t->stop, __ATOMIC_RELAXED)) {
		uint32_t len = 4096U << (rand() % 7);
		uint64_t off = (uint64_t)rand() % (IMAGE_LEN / len) * len, i;
		ssize_t n = pread(fd, buf, len, (off_t)off);

		for (i = 0; n == (ssize_t)len && i < len / 8 && buf[i] == image_word(off + i * 8);)
			i++;
		if (n != (ssize_t)len)
			__atomic_fetch_add(&t->failed, 1, __ATOMIC_RELAXED);
		else if (i < len / 8)
			__atomic_fetch_add(&t->wrong, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&t->reads, 1, __ATOMIC_RELAXED);
	}
	_exit(0);
}

static pid_t reader_start(const char *path, unsigned seed, struct tally *t)
{
	pid_t pid = fork();

	if (pid == 0)
		reader(path, seed, t);
	return pid;
}

static pid_t worker_start(const struct server *s, const struct inheritance *in)
{
	pid_t pid = fork();

	if (pid == 0) {
		srand((unsigned)getpid());
		server_run(s, in);
		_exit(0);
	}
	return pid;
}

/* true as soon as reads are answered again */
static bool reads_go_on(const struct tally *t, uint64_t since)
{
	time_t end = time(NULL) + STANDSTILL_S;

	while (__atomic_load_n(&t->reads, __ATOMIC_RELAXED) < since + 2) {
		if (time(NULL) > end)
			return false;
		usleep(1000);
	}
	return true;
}

static void kill_workers(const struct server *s, const struct tally *t, int wanted, struct kills *k)
{
	struct inheritance in = {0};

	while (k->done < wanted && !t->failed && !t->wrong) {
		uint64_t reads = t->reads;
		pid_t pid = worker_start(s, &in);
		int status;

		k->hung = !reads_go_on(t, reads);
		usleep((unsigned)rand() % PAUSE_MAX_US);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		if (k->hung)
			return;
		server_inherit(s, &in);
		k->done++;
		k->lag_received += in.lag_received;
		k->lag_sent += in.lag_sent;
		k->mid_reply += in.mid_reply;
	}
}

int mode_kill(bool tcp, const char *device, int wanted)
{
	struct server s = {.tcp = tcp, .shuffle = true, .sendfile_min = 32768};
	struct tally *t = shared(sizeof(*t));
	struct kills k = {0};
	pid_t doit, readers[READERS], last;
	struct inheritance in;
	int ends[2], fd, i;

	s.image = image_make(&s.image_fd);
	s.ledger = shared(sizeof(*s.ledger));
	connection_make(tcp, ends);
	s.sock = ends[1];
	if (tcp)
		counters_read(s.sock, &s.base);
	doit = device_connect(device, ends[0]);
	close(ends[0]);
	for (i = 0; i < READERS; i++)
		readers[i] = reader_start(device, (unsigned)i + 1, t);
	kill_workers(&s, t, wanted, &k);

	t->stop = true; /* a last worker lets them end, then the device goes */
	server_inherit(&s, &in);
	last = worker_start(&s, &in);
	if (k.hung)
		sleep(DEVICE_S + 5);
	fd = open(device, O_RDWR | O_CLOEXEC);
	for (i = 0; i < READERS && !k.hung && !t->failed; i++)
		waitpid(readers[i], NULL, 0);
	ioctl(fd, NBD_DISCONNECT);
	ioctl(fd, NBD_CLEAR_SOCK);
	close(fd);
	close(s.sock);
	kill(last, SIGKILL);
	kill(doit, SIGKILL);
	printf("handover %s: %d kills, %lu reads: %lu failed, %lu wrong, %s; the ledger lagged %d "
	       "times "
	       "with requests, %d times with replies; %d times inside of a reply\n",
	       tcp ? "tcp" : "unix", k.done, t->reads, t->failed, t->wrong,
	       k.hung ? "HUNG" : "none hung", k.lag_received, k.lag_sent, k.mid_reply);
	return k.done == wanted && !t->failed && !t->wrong && !k.hung ? 0 : 1;
}
