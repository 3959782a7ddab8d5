// SPDX-License-Identifier: Apache-2.0
/* link_kill simple|structured|/dev/nbdN READS KILLS
 *
 * A run of so many reads is recorded; then a server is killed at its first system call, its
 * successor at the second, and so on to the length of that run, before the call and behind it; then
 * so many at random moments. The client reads through all of it. Ends with 0 when no read failed,
 * was wrong or stood still.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "nbd/ledger.h"
#include "nbd/attach/tcp_pair.h"
#include "tests/system/link_kill/link_kill.h"

#define STANDSTILL_S 60			/* for one life: hung */
#define IDLE_NS	     (2 * NSEC_PER_SEC) /* well below the kernel's time-out of a request */
#define PLACES	     512

struct tally *tally;
const uint8_t *image;
int image_fd;

static struct nbd_link link_held;
static pid_t client;
static struct rnd chance = {0x9e3779b97f4a7c15ULL};
static bool from_link;	      /* system calls count from the first that touches the link */
static uint32_t pause_max_us; /* between a server's begin and its random end */
static struct {
	unsigned all, in_request, in_reply, answers_again;
	unsigned before[PLACES], behind[PLACES]; /* by number of the system call */
} kills;

void die(const char *what)
{
	perror(what);
	_exit(1);
}

static void *shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static void image_make(void)
{
	uint64_t *p;

	image_fd = memfd_create("image", MFD_CLOEXEC);
	if (image_fd < 0 || ftruncate(image_fd, IMAGE_LEN))
		die("memfd");
	p = mmap(NULL, IMAGE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, image_fd, 0);
	if (p == MAP_FAILED)
		die("mmap");
	for (uint64_t i = 0; i < IMAGE_LEN / 8; i++)
		p[i] = (i + 1) * 0x9e3779b97f4a7c15ULL;
	image = (const uint8_t *)p;
}

static void give_up(int sig)
{
	static const char text[] = "link_kill: stood still\n";

	(void)sig;
	if (write(2, text, sizeof(text) - 1) < 0)
		_exit(2);
	_exit(2); /* the children die with us */
}

/* --- a life ---------------------------------------------------------------------------------- */

static pid_t life_begin(bool traced)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (traced && (ptrace(PTRACE_TRACEME, 0, 0, 0) || raise(SIGSTOP)))
		die("ptrace");
	server_run(&link_held);
}

static void client_look(void)
{
	int status;

	if (client && waitpid(client, &status, WNOHANG) == client) {
		fprintf(stderr, "link_kill: the client gave up after %u kills\n", kills.all);
		_exit(1);
	}
}

/* What the dead server left, as its successor will see it. */
static void life_examine(void)
{
	static struct ledger copy;
	struct ledger *l = ledger_map(link_held.ledger);
	struct ledger_writer w;
	struct ledger_cut cut;
	struct tcp_count now;

	kills.all++;
	if (!l || tcp_count(link_held.fd, &now))
		die("the ledger or the socket");
	memcpy(&copy, l, sizeof(copy));
	ledger_unmap(l);
	if (copy.phase != LEDGER_TRANSMISSION)
		return;
	if (ledger_take_up(&w, &copy, &now, IMAGE_LEN, &cut)) {
		fprintf(stderr, "link_kill: ledger and socket do not agree after kill %u\n",
			kills.all);
		_exit(1);
	}
	kills.in_reply += cut.is;
	kills.in_request += w.received % LEDGER_REQUEST_LEN != 0;
	kills.answers_again += w.unserved.n != 0;
}

static void life_check_alive(pid_t pid)
{
	int status;

	client_look();
	if (waitpid(pid, &status, WNOHANG) != pid)
		return;
	fprintf(stderr, "link_kill: server ended by itself after %u kills: %s %d\n", kills.all,
		WIFEXITED(status) ? "exit" : "signal",
		WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	_exit(1);
}

static void life_at_random(void)
{
	pid_t pid = life_begin(false);

	alarm(STANDSTILL_S);
	usleep(rnd_below(&chance, pause_max_us));
	life_check_alive(pid);
	kill(pid, SIGKILL);
	if (waitpid(pid, NULL, 0) != pid)
		die("waitpid");
	life_examine();
}

static void reads_await(uint64_t n, pid_t server)
{
	uint64_t goal = atomic_load(&tally->reads) + n;

	alarm(STANDSTILL_S);
	while (!atomic_load(&tally->ready) || atomic_load(&tally->reads) < goal) {
		usleep(1000);
		life_check_alive(server);
	}
}

/* A life in which the client gets something. */
static void life_with_reads(uint64_t n)
{
	pid_t pid = life_begin(false);

	reads_await(n, pid);
	kill(pid, SIGKILL);
	if (waitpid(pid, NULL, 0) != pid)
		die("waitpid");
	life_examine();
}

/* Those that are killed before they serve give it nothing, and its reads have a time-out. */
static void client_feed(void)
{
	static uint64_t reads, since_ns;

	if (reads != atomic_load(&tally->reads) || !since_ns) {
		reads = atomic_load(&tally->reads);
		since_ns = clock_now_ns();
	} else if (clock_now_ns() - since_ns > IDLE_NS) {
		life_with_reads(WINDOW);
	}
}

/* --- traced lives ---------------------------------------------------------------------------- */

/* At which call @tid stands, and on which side of it. */
static void note_place(pid_t tid)
{
	struct __ptrace_syscall_info i = {0};
	char path[64];
	long nr = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/syscall", tid);
	f = fopen(path, "r");
	if (f && fscanf(f, "%ld", &nr) != 1)
		nr = -1;
	if (f)
		fclose(f);
	if (nr < 0 || nr >= PLACES || ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(i), &i) <= 0)
		return;
	if (i.op == PTRACE_SYSCALL_INFO_ENTRY)
		kills.before[nr]++;
	else
		kills.behind[nr]++;
}

/* The first that a server does with a link that was served before is to ask for its counters. */
static bool touches_link(pid_t tid)
{
	struct __ptrace_syscall_info i = {0};

	return ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(i), &i) > 0 &&
	       i.op == PTRACE_SYSCALL_INFO_ENTRY && i.entry.nr == SYS_getsockopt;
}

static void life_trace_to_end(pid_t pid, unsigned until, uint64_t reads, unsigned *stops)
{
	bool counts = !from_link;
	int status;
	pid_t tid;

	for (*stops = 0;;) {
		int sig = 0;

		tid = waitpid(-1, &status, __WALL);
		if (tid < 0)
			die("waitpid");
		if (tid == client || WIFEXITED(status) || WIFSIGNALED(status)) {
			fprintf(stderr, "link_kill: %s ended after %u kills, status %x\n",
				tid == client ? "the client" : "a server", kills.all, status);
			_exit(1);
		}
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			counts = counts || touches_link(tid);
			*stops += counts;
			if (until ? *stops == until : atomic_load(&tally->reads) >= reads)
				break;
		} else if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSTOP) {
			sig = WSTOPSIG(status);
		}
		ptrace(PTRACE_SYSCALL, tid, 0, sig);
	}
	note_place(tid);
	kill(pid, SIGKILL);
	do
		tid = waitpid(-1, &status, __WALL);
	while (tid != pid || !WIFSIGNALED(status));
}

/* Killed at its system call number @until (entry and exit count apart), or, 0, after @reads more.
 */
static unsigned life_traced(unsigned until, uint64_t reads)
{
	pid_t pid = life_begin(true);
	unsigned stops;
	int status;

	alarm(STANDSTILL_S);
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) ||
	    ptrace(PTRACE_SETOPTIONS, pid, 0,
		   PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL) ||
	    ptrace(PTRACE_SYSCALL, pid, 0, 0))
		die("ptrace");
	life_trace_to_end(pid, until, atomic_load(&tally->reads) + reads, &stops);
	life_examine();
	return stops;
}

/* --- all of it ------------------------------------------------------------------------------- */

static void send_ahead(int worker, int ledger)
{
	const uint32_t magic = htobe32(NBD_SIMPLE_REPLY_MAGIC);

	if (ledger_set_ahead(ledger, sizeof(magic)) ||
	    send(worker, &magic, sizeof(magic), MSG_NOSIGNAL) != sizeof(magic))
		die("send ahead");
}

static void link_make(bool handshake, const char *device)
{
	int kernel, worker, size = SOCKET_BUFFER;
	struct err err;

	if (tcp_pairs_open(&kernel, &worker, 1, &err))
		die(err.text);
	setsockopt(worker, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(kernel, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	link_held = (struct nbd_link){worker, ledger_new(&err), handshake};
	if (link_held.ledger < 0)
		die(err.text);
	if (!handshake) /* as the supervisor does, so the first lives end ahead of a reply */
		send_ahead(worker, link_held.ledger);
	client = fork();
	if (client < 0)
		die("fork");
	if (client == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(worker);
		if (handshake)
			client_run_libnbd(kernel);
		if (device)
			client_run_device(kernel, device);
		client_run_simple(kernel);
	}
	close(kernel);
}

/* The client has all its answers and says goodbye, which the server hears. */
static void end_well(void)
{
	pid_t server = life_begin(false);
	int status;

	reads_await(20, server);
	atomic_store(&tally->stop, true);
	if (waitpid(client, &status, 0) != client || status)
		die("the client's end");
	client = 0;
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
}

static void print_places(void)
{
	static const struct {
		const char *name;
		long nr;
	} calls[] = {
		{"recvfrom", SYS_recvfrom},
		{"sendmsg", SYS_sendmsg},
		{"sendfile", SYS_sendfile},
		{"preadv2", SYS_preadv2},
		{"pread64", SYS_pread64},
		{"getsockopt", SYS_getsockopt},
		{"io_uring_enter", SYS_io_uring_enter},
		{"epoll_wait", SYS_epoll_wait},
	};

	printf("killed before and behind");
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		printf(", %s %u+%u", calls[i].name, kills.before[calls[i].nr],
		       kills.behind[calls[i].nr]);
	printf("\n");
}

int main(int argc, char **argv)
{
	const char *kind = argc == 4 ? argv[1] : "";
	bool structured = strcmp(kind, "structured") == 0, device = kind[0] == '/';
	unsigned reads, random, stops;
	uint64_t began_ns;

	if (!structured && !device && strcmp(kind, "simple") != 0) {
		fprintf(stderr, "usage: link_kill simple|structured|/dev/nbdN READS KILLS\n");
		return 2;
	}
	reads = (unsigned)atoi(argv[2]);
	random = (unsigned)atoi(argv[3]);
	signal(SIGALRM, give_up);
	from_link = device; /* a guest is slow, and all of it is done outside of one, too */
	tally = shared(sizeof(*tally));
	image_make();
	link_make(structured, device ? kind : NULL);
	life_with_reads(10); /* a handshake, if there is one, is not cut */
	began_ns = clock_now_ns();
	life_with_reads(1);
	pause_max_us = 4000 + 2 * (uint32_t)((clock_now_ns() - began_ns) / 1000);
	stops = life_traced(0, reads);
	for (unsigned i = 1; i <= stops; i++) {
		life_traced(i, 0);
		client_feed();
	}
	for (unsigned i = 0; i < random; i++) {
		life_at_random();
		client_feed();
	}
	end_well();
	printf("%u kills, at each of %u stops at system calls and at %u random moments\n",
	       kills.all, stops, random);
	print_places();
	printf("%u in a request, %u in a reply, %u with requests to answer again\n",
	       kills.in_request, kills.in_reply, kills.answers_again);
	printf("%llu reads compared, the longest took %llu ms\n", (unsigned long long)tally->reads,
	       (unsigned long long)tally->longest_ns / 1000000);
	return 0;
}
