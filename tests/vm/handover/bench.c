// SPDX-License-Identifier: Apache-2.0
/* One server, one client, each a process, over either kind of connection, by turns; the median of
 * the pairs counts. The client keeps DEPTH requests in flight and reads the replies away.
 */
#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/vm/handover/modes.h"
#include "tests/vm/handover/server.h"

#define PAIRS 5

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void ask(int sock, uint64_t n, uint32_t len, unsigned count)
{
	uint8_t out[64 * REQUEST_LEN];
	unsigned i;

	for (i = 0; i < count; i++) {
		struct nbd_request r = {.magic = htobe32(NBD_REQUEST_MAGIC),
					.type = htobe32(NBD_CMD_READ),
					.from = htobe64((n + i) * 7919 % (IMAGE_LEN / len) * len),
					.len = htobe32(len)};
		uint64_t handle = n + i + 1;

		memcpy(r.handle, &handle, sizeof(handle));
		memcpy(out + i * REQUEST_LEN, &r, REQUEST_LEN);
	}
	if (send(sock, out, count * REQUEST_LEN, MSG_NOSIGNAL) != (ssize_t)(count * REQUEST_LEN))
		die("send");
}

/* Reads a second. */
static double client(int sock, uint32_t len, unsigned depth, double seconds)
{
	uint64_t asked = depth, reply = REPLY_LEN + len, got = 0;
	size_t room = 1 << 20;
	char *buf = malloc(room);
	double start = now_s(), end = start + seconds, now = start;

	ask(sock, 0, len, depth);
	while (now < end) {
		ssize_t n = recv(sock, buf, room, 0);
		uint64_t done;

		if (n <= 0)
			die("recv");
		got += (uint64_t)n;
		done = got / reply;
		if (asked - done < depth) {
			unsigned more = depth - (unsigned)(asked - done);

			ask(sock, asked, len, more);
			asked += more;
		}
		now = now_s();
	}
	free(buf);
	return (double)(got / reply) / (now - start);
}

static double measure(const struct server *like, bool tcp, uint32_t len, unsigned depth,
		      double seconds)
{
	struct server s = *like;
	struct inheritance in = {0};
	int ends[2];
	double rate;
	pid_t pid;

	memset(s.ledger, 0, sizeof(*s.ledger));
	connection_make(tcp, ends);
	s.sock = ends[1];
	s.tcp = tcp;
	pid = fork();
	if (pid == 0) {
		close(ends[0]);
		server_run(&s, &in);
		_exit(0);
	}
	close(ends[1]);
	rate = client(ends[0], len, depth, seconds);
	close(ends[0]);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return rate;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *v)
{
	qsort(v, PAIRS, sizeof(*v), by_value);
	return v[PAIRS / 2];
}

static void compare(const struct server *s, uint32_t len, unsigned depth, double seconds)
{
	double tcp[PAIRS], local[PAIRS], ratio[PAIRS];
	int i;

	for (i = 0; i < PAIRS; i++) {
		local[i] = measure(s, false, len, depth, seconds);
		tcp[i] = measure(s, true, len, depth, seconds);
		ratio[i] = tcp[i] / local[i];
	}
	printf("%7u bytes %s, %2u in flight: unix %9.0f reads/s %6.2f GB/s, tcp %9.0f reads/s "
	       "%6.2f "
	       "GB/s, "
	       "tcp/unix %.2f\n",
	       len, len >= s->sendfile_min ? "by sendfile" : "copied", depth, median(local),
	       median(local) * len / 1e9, median(tcp), median(tcp) * len / 1e9, median(ratio));
}

int mode_bench(double seconds)
{
	struct server s = {0};

	s.image = image_make(&s.image_fd);
	s.ledger = mmap(NULL, sizeof(*s.ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (s.ledger == MAP_FAILED)
		die("mmap");
	s.sendfile_min = UINT32_MAX;
	compare(&s, 4096, 32, seconds);
	compare(&s, 16384, 32, seconds);
	compare(&s, 131072, 8, seconds);
	compare(&s, 1048576, 4, seconds);
	s.sendfile_min = 32768;
	compare(&s, 131072, 8, seconds);
	compare(&s, 1048576, 4, seconds);
	return 0;
}
