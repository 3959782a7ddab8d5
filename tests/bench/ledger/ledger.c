// SPDX-License-Identifier: Apache-2.0
/* What a ledger costs: the product's NBD server over memory, one data thread, and a client over an
 * adopted loopback TCP link, with and without a ledger in turns.
 *
 *	ledger [SECONDS [PAIRS]]	of each run; pairs of runs for a line of the table
 */
#include <endian.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "nbd/ledger.h"
#include "nbd/protocol.h"
#include "nbd/server.h"
#include "nbd/attach/tcp_pair.h"
#include "tests/bench/resident_export.h"

#define SIZE	  (64U << 20)
#define DEPTH_MAX 64
#define PAIRS_MAX 101

static struct nbd_server *server;

static void no_read(struct nbd_export *e, struct nbd_read *r, struct loop *l)
{
	(void)e;
	(void)r;
	(void)l;
	abort(); /* all is resident */
}

static const struct nbd_export_ops ops = {RESIDENT_EXPORT_OPS, .read = no_read};

static struct nbd_export export = {.ops = &ops, .size = SIZE};

static struct nbd_export *find(struct nbd_directory *d, const char *name)
{
	(void)d;
	(void)name;
	return NULL;
}

struct load {
	int fd;
	uint32_t len, depth;
	uint64_t end_ns;
	uint64_t reads, cpu_ns; /* result; of the client */
};

static void ask(const struct load *l, uint32_t n)
{
	struct nbd_wire_request r[DEPTH_MAX];

	for (uint32_t i = 0; i < n; i++)
		r[i] = (struct nbd_wire_request){
			.magic = htobe32(NBD_REQUEST_MAGIC),
			.off = htobe64((uint64_t)rand() % (SIZE / l->len) * l->len),
			.len = htobe32(l->len)};
	if (send(l->fd, r, n * sizeof(r[0]), MSG_NOSIGNAL) != (ssize_t)(n * sizeof(r[0])))
		die("send");
}

/* Whole replies that came are asked for anew in one call, as a kernel's queue does. */
static void *client_run(void *arg)
{
	struct load *l = arg;
	size_t reply = sizeof(struct nbd_wire_simple_reply) + l->len, got = 0, room = 4 << 20;
	uint8_t *in = malloc(room);
	struct timespec cpu;
	uint32_t open = l->depth;

	if (!in)
		die("malloc");
	ask(l, l->depth);
	while (open) {
		ssize_t n = recv(l->fd, in, room, 0);
		uint32_t whole;

		if (n <= 0)
			die("recv");
		got += (size_t)n;
		whole = (uint32_t)(got / reply);
		got %= reply;
		l->reads += whole;
		if (clock_now_ns() >= l->end_ns)
			open -= whole;
		else if (whole)
			ask(l, whole);
	}
	free(in);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
	l->cpu_ns = (uint64_t)cpu.tv_sec * NSEC_PER_SEC + (uint64_t)cpu.tv_nsec;
	return NULL;
}

struct figure {
	double reads, cpu_us; /* a second; of the server, a read */
};

static uint64_t process_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static struct figure run(bool with_ledger, uint32_t len, uint32_t depth, double seconds)
{
	struct load l = {.len = len, .depth = depth};
	struct nbd_link link = {.ledger = -1};
	uint64_t began, cpu;
	pthread_t thread;
	struct err err;

	if (tcp_pairs_open(&l.fd, &link.fd, 1, &err) ||
	    (with_ledger && (link.ledger = ledger_new(&err)) < 0) ||
	    nbd_server_adopt(server, &link, &export))
		die("a link");
	began = clock_now_ns();
	cpu = process_cpu_ns();
	l.end_ns = began + (uint64_t)(seconds * (double)NSEC_PER_SEC);
	if (pthread_create(&thread, NULL, client_run, &l))
		die("pthread_create");
	pthread_join(thread, NULL);
	cpu = process_cpu_ns() - cpu - l.cpu_ns;
	began = clock_now_ns() - began;
	close(l.fd);
	return (struct figure){(double)l.reads * 1e9 / (double)began,
			       (double)cpu / 1e3 / (double)l.reads};
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(v[0]), by_value);
	return v[n / 2];
}

static void line(uint32_t len, uint32_t depth, double seconds, unsigned pairs)
{
	double reads[2][PAIRS_MAX], cpu[2][PAIRS_MAX], ratio[2][PAIRS_MAX];

	for (unsigned i = 0; i < pairs; i++) {
		for (unsigned k = 0; k < 2; k++) {
			unsigned with = (i + k) % 2; /* who is first takes turns */
			struct figure f = run(with, len, depth, seconds);

			reads[with][i] = f.reads;
			cpu[with][i] = f.cpu_us;
		}
		ratio[0][i] = reads[1][i] / reads[0][i];
		ratio[1][i] = cpu[1][i] / cpu[0][i];
	}
	printf("| %u KiB, %u in flight | %.0f | %.0f | %.3f | %.2f | %.2f | %.3f |\n", len >> 10,
	       depth, median(reads[0], pairs), median(reads[1], pairs), median(ratio[0], pairs),
	       median(cpu[0], pairs), median(cpu[1], pairs), median(ratio[1], pairs));
	fflush(stdout);
}

/* What the ledger itself takes for a request, in batches of 32: into a slot, answered, settled. */
static double alone_ns(void)
{
	enum { BATCHES = 100000, BATCH = 32 };
	int fd = ledger_new(NULL);
	struct ledger *l = ledger_map(fd);
	struct nbd_wire_request in[LEDGER_RING_REQUESTS];
	struct ledger_writer w;
	struct nbd_request r;
	struct timespec began, end;
	uint8_t *at;

	for (uint32_t i = 0; i < LEDGER_RING_REQUESTS; i++)
		in[i] = (struct nbd_wire_request){.magic = htobe32(NBD_REQUEST_MAGIC),
						  .len = htobe32(4096)};
	if (!l || ledger_begin(&w, l, &(struct nbd_terms){false, false}, &(struct tcp_count){0, 0},
			       (uint8_t *)in, LEDGER_RING_LEN - LEDGER_REQUEST_LEN * BATCH))
		die("a ledger");
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &began);
	for (uint32_t i = 0; i < BATCHES; i++) {
		for (uint32_t k = 0; k < BATCH && !ledger_next(&w, &r); k++) {
			ledger_served(&w);
			ledger_answer(&w, &r, NBD_OK);
		}
		ledger_settle(&w, w.end);
		for (size_t n = BATCH * LEDGER_REQUEST_LEN, got; n; n -= got) {
			got = ledger_room(&w, &at);
			got = got < n ? got : n;
			memcpy(at, (uint8_t *)in, got); /* what recv() would have done */
			ledger_received(&w, got);
		}
	}
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	ledger_unmap(l);
	close(fd);
	return ((double)(end.tv_sec - began.tv_sec) * 1e9 + (double)(end.tv_nsec - began.tv_nsec)) /
	       (BATCHES * BATCH);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 0.5;
	unsigned pairs = argc > 2 ? (unsigned)atoi(argv[2]) : 11;
	struct nbd_directory directory = {.find = find};
	struct nbd_server_config cfg = {
		.threads = 1, .max_connections = 1, .miss_memory = MIB, .directory = &directory};
	struct err err;
	void *p;

	if (seconds <= 0 || pairs < 1 || pairs > PAIRS_MAX) {
		fprintf(stderr, "usage: ledger [SECONDS [PAIRS]]\n");
		return 2;
	}
	image_fd = memfd_create("image", MFD_CLOEXEC);
	if (image_fd < 0 || ftruncate(image_fd, SIZE))
		die("memfd");
	p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, image_fd, 0);
	if (p == MAP_FAILED)
		die("mmap");
	memset(p, 0x5a, SIZE);
	cfg.listen_fd = listen_at(NULL);
	if (nbd_server_start(&cfg, &server, &err))
		die("the server");
	printf("| reads | without, reads/s | with | ratio | without, server us/read | with | ratio "
	       "|\n"
	       "|---|---|---|---|---|---|---|\n");
	line(4 << 10, 1, seconds, pairs);
	line(4 << 10, 32, seconds, pairs);
	line(128 << 10, 8, seconds, pairs);
	printf("\nthe ledger alone, with its requests copied in: %.1f ns a request\n", alone_ns());
	nbd_server_stop(server);
	return 0;
}
