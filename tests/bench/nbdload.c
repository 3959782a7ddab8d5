/* SPDX-License-Identifier: Apache-2.0 */
/* Reads an NBD export over a unix socket as hard as asked, and prints one line of JSON.
 *
 *	nbdload [--pid PID] [--verify FILE] [--span BYTES] [--ops N] [--seed N] [--stall SECONDS]
 *		[--stride BYTES [--strip BYTES]] [--exports N] [--link]
 *		SOCKET EXPORT rnd|seq|once SIZE DEPTH CONNECTIONS SECONDS
 *
 * rnd reads at random multiples of SIZE, seq from one cursor that all connections share and that
 * wraps, once the same up to the end. It stops after SECONDS or N reads, or fails when no byte came
 * for the stall time (30 s). --pid: the server, whose CPU time (with its children's) is divided by
 * the reads. --verify compares every byte with FILE, and with zeros past its end. --stride: only
 * the first 64 KiB (--strip) of each so many bytes are read. --exports: connection i reads EXPORT
 * with i mod N after its name; all are as long as the first. --link: SOCKET is linkserver's, which
 * sends the connection.
 *
 * Raw on purpose: libnbd and fio's nbd engine are limits themselves. A thread serves a connection;
 * requests that follow from one recv leave in one send.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/clock.h"
#include "cpu.h"
#include "latency.h"
#include "wire.h"

#define RECV_LEN  (1U << 20)
#define BLOCK	  4096U /* the grain of "unique bytes" */
#define DEPTH_MAX 1024
#define CONNS_MAX 256

enum mode { RND, SEQ, ONCE };

static struct {
	const char *socket, *export, *verify;
	enum mode mode;
	uint32_t len, depth, conns, exports;
	double seconds;
	uint64_t span, stride, strip, ops, seed;
	int pid, stall_s;
	bool link;
} opt = {.seed = 1, .stall_s = 30, .strip = 65536};

static uint64_t size; /* of the export */
static uint64_t end_ns;
static const uint8_t *image; /* --verify: the file, mapped */
static uint64_t image_len;
static uint8_t *touched; /* a byte for each block of the export */
static _Atomic uint64_t cursor, issued, error_replies, wrong_reads;

struct flight { /* one request */
	uint64_t off, at_ns;
	uint32_t len;
	bool wrong;
};

struct conn {
	pthread_t thread;
	int fd;
	uint64_t random;
	struct flight flights[DEPTH_MAX];
	struct wire_request out[DEPTH_MAX]; /* to be sent together */
	uint32_t out_count, in_flight;
	struct wire_reply head; /* being received */
	uint32_t head_have;
	struct flight *now; /* whose payload is being received */
	uint32_t left;
	uint64_t reads, bytes;
	struct latency latency;
	uint8_t buf[RECV_LEN];
};

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "nbdload: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	exit(1);
}

/* Handshake. */

/* The connection that comes over @fd, which is closed. */
static int receive_link(int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	int link;

	if (recvmsg(fd, &m, MSG_CMSG_CLOEXEC) < 0 || !(c = CMSG_FIRSTHDR(&m)) ||
	    c->cmsg_type != SCM_RIGHTS)
		die("%s: no link came", opt.socket);
	memcpy(&link, CMSG_DATA(c), sizeof(link));
	close(fd);
	return link;
}

static int dial(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval stall = {.tv_sec = opt.stall_s};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(opt.socket) >= sizeof(a.sun_path))
		die("%s: the path is too long for a socket", opt.socket);
	strcpy(a.sun_path, opt.socket);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		die("%s: %s", opt.socket, strerror(errno));
	if (opt.link)
		fd = receive_link(fd);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &stall, sizeof(stall));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &stall, sizeof(stall));
	return fd;
}

static void send_go(int fd, const char *name)
{
	struct {
		uint32_t client_flags;
		struct wire_option head;
		uint32_t name_len;
		char rest[WIRE_NAME_MAX + 2]; /* the name and "no information wanted" */
	} __attribute__((packed)) m = {.client_flags = htobe32(WIRE_FIXED_NO_ZEROES)};
	uint32_t n = (uint32_t)strlen(name);

	if (n > WIRE_NAME_MAX)
		die("the export's name is too long");
	m.head = (struct wire_option){htobe64(WIRE_OPTION), htobe32(OPT_GO), htobe32(4 + n + 2)};
	m.name_len = htobe32(n);
	memcpy(m.rest, name, n);
	if (wire_send(fd, &m, sizeof(m) - sizeof(m.rest) + n + 2) < 0)
		die("the server hung up before GO");
}

/* True when the export is open; its size is kept on the way. */
static bool receive_go_reply(int fd)
{
	struct wire_option_reply r;
	struct wire_info_export info;
	uint8_t body[4096];
	uint32_t len;

	if (wire_recv(fd, &r, sizeof(r)) < 0 || be64toh(r.magic) != WIRE_OPTION_REPLY)
		die("no reply to GO");
	len = be32toh(r.len);
	if (len > sizeof(body) || wire_recv(fd, body, len) < 0)
		die("a broken reply to GO");
	if (be32toh(r.type) & REP_ERR)
		die("export \"%s\" is refused: %.*s", opt.export, (int)len, (char *)body);
	if (be32toh(r.type) == REP_INFO && len >= sizeof(info)) {
		memcpy(&info, body, sizeof(info));
		if (info.type == 0)
			size = be64toh(info.size);
	}
	return be32toh(r.type) == REP_ACK;
}

static int open_export(uint32_t conn)
{
	struct wire_greeting g;
	char name[WIRE_NAME_MAX + 16];
	int fd = dial();

	if (opt.exports)
		snprintf(name, sizeof(name), "%s%u", opt.export, conn % opt.exports);
	else
		snprintf(name, sizeof(name), "%s", opt.export);

	if (wire_recv(fd, &g, sizeof(g)) < 0 || be64toh(g.magic) != WIRE_GREETING ||
	    be64toh(g.option) != WIRE_OPTION)
		die("%s: not an NBD server of this century", opt.socket);
	send_go(fd, name);
	while (!receive_go_reply(fd))
		;
	return fd;
}

/* Requests. */

static uint64_t random_next(uint64_t *x) /* xorshift64* */
{
	*x ^= *x >> 12;
	*x ^= *x << 25;
	*x ^= *x >> 27;
	return *x * 2685821657736338717ULL;
}

static uint64_t strips(void)
{
	return opt.span / opt.stride;
}

/* The @nth read of the strips; false beyond the last. */
static bool strip_read(uint64_t nth, uint64_t *off)
{
	uint64_t each = opt.strip / opt.len;

	*off = nth / each * opt.stride + nth % each * opt.len;
	return nth < strips() * each;
}

static bool next_in_strips(struct conn *c, uint64_t *off)
{
	uint64_t all = strips() * (opt.strip / opt.len), nth;

	if (opt.mode == RND)
		nth = random_next(&c->random) % all;
	else
		nth = atomic_fetch_add(&cursor, 1);
	return strip_read(opt.mode == SEQ ? nth % all : nth, off);
}

/* Where the next read goes; false when there is no next one. */
static bool next_read(struct conn *c, uint64_t now, struct flight *f)
{
	uint64_t at;

	if (now >= end_ns || (opt.ops && atomic_fetch_add(&issued, 1) >= opt.ops))
		return false;
	f->len = opt.len;
	f->at_ns = now;
	f->wrong = false;
	if (opt.stride)
		return next_in_strips(c, &f->off);
	if (opt.mode == RND) {
		f->off = random_next(&c->random) % (opt.span / opt.len) * opt.len;
		return true;
	}
	at = atomic_fetch_add(&cursor, opt.len);
	if (opt.mode == ONCE && at >= opt.span)
		return false;
	if (opt.mode == SEQ)
		at %= opt.span / opt.len * opt.len;
	if (at + f->len > opt.span)
		f->len = (uint32_t)(opt.span - at);
	f->off = at;
	return true;
}

static void queue_read(struct conn *c, struct flight *f, uint64_t now)
{
	if (!next_read(c, now, f))
		return;
	c->out[c->out_count++] = (struct wire_request){
		.magic = htobe32(WIRE_REQUEST),
		.type = htobe16(CMD_READ),
		.cookie = (uint64_t)(f - c->flights),
		.off = htobe64(f->off),
		.len = htobe32(f->len),
	};
	c->in_flight++;
}

static void send_queued(struct conn *c)
{
	if (wire_send(c->fd, c->out, c->out_count * sizeof(c->out[0])) < 0)
		die("the server hung up");
	c->out_count = 0;
}

/* Replies. */

static bool differs(uint64_t off, const uint8_t *p, size_t len)
{
	size_t known = off >= image_len ? 0 : image_len - off < len ? image_len - off : len;

	if (memcmp(image + off, p, known) != 0)
		return true;
	for (size_t i = known; i < len; i++)
		if (p[i])
			return true;
	return false;
}

/* Strips are counted one after another, so that a huge export needs no huge array. */
static uint64_t place(uint64_t off)
{
	return opt.stride ? off / opt.stride * opt.strip + off % opt.stride : off;
}

static void touch(const struct flight *f)
{
	uint64_t at = place(f->off);

	for (uint64_t b = at / BLOCK; b * BLOCK < at + f->len; b++)
		touched[b] = 1;
}

static void finish_read(struct conn *c, uint64_t now)
{
	struct flight *f = c->now;

	touch(f);
	latency_add(&c->latency, now - f->at_ns);
	c->reads++;
	c->bytes += f->len;
	wrong_reads += f->wrong;
	c->in_flight--;
	c->now = NULL;
	queue_read(c, f, now);
}

static void start_payload(struct conn *c)
{
	if (be32toh(c->head.magic) != WIRE_REPLY || c->head.cookie >= opt.depth)
		die("a broken reply");
	c->head_have = 0;
	c->now = &c->flights[c->head.cookie];
	c->left = c->head.error ? 0 : c->now->len;
	error_replies += c->head.error != 0;
}

/* Take what is a reply's head or payload from @p; returns how much that was. */
static size_t take(struct conn *c, const uint8_t *p, size_t len, uint64_t now)
{
	size_t n;

	if (!c->now) {
		n = sizeof(c->head) - c->head_have;
		n = n < len ? n : len;
		memcpy((char *)&c->head + c->head_have, p, n);
		c->head_have += (uint32_t)n;
		if (c->head_have == sizeof(c->head))
			start_payload(c);
	} else {
		n = c->left < len ? c->left : len;
		if (image && differs(c->now->off + c->now->len - c->left, p, n))
			c->now->wrong = true;
		c->left -= (uint32_t)n;
	}
	if (c->now && c->left == 0)
		finish_read(c, now);
	return n;
}

static void *conn_main(void *arg)
{
	struct conn *c = arg;

	for (uint32_t i = 0; i < opt.depth; i++)
		queue_read(c, &c->flights[i], clock_now_ns());
	while (c->in_flight > 0) {
		uint64_t now;
		ssize_t n;

		send_queued(c);
		n = recv(c->fd, c->buf, RECV_LEN, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("%s", n == 0 ? "the server hung up" : "the server stalls");
		now = clock_now_ns();
		for (size_t at = 0; at < (size_t)n;)
			at += take(c, c->buf + at, (size_t)n - at, now);
	}
	return NULL;
}

/* The run. */

static void map_image(void)
{
	int fd = open(opt.verify, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st) < 0)
		die("%s: %s", opt.verify, strerror(errno));
	image_len = (uint64_t)st.st_size;
	p = mmap(NULL, image_len, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die("%s: %s", opt.verify, strerror(errno));
	image = p;
	close(fd);
}

static struct conn **open_conns(void)
{
	struct conn **conns = calloc(opt.conns, sizeof(struct conn *));

	for (uint32_t i = 0; i < opt.conns; i++) {
		conns[i] = calloc(1, sizeof(struct conn));
		conns[i]->fd = open_export(i);
		conns[i]->random = (opt.seed * 131 + i + 1) * 0x9e3779b97f4a7c15ULL;
	}
	if (opt.span == 0 || opt.span > size)
		opt.span = size;
	if (opt.span < opt.len)
		die("the export is smaller than one read");
	if (opt.stride && (opt.stride < opt.strip || opt.strip % opt.len || strips() == 0))
		die("the stride does not fit");
	touched = calloc(1, place(opt.stride ? strips() * opt.stride : size) / BLOCK + 1);
	if (!touched)
		die("no memory to count what is read");
	return conns;
}

static void report(struct conn **conns, double seconds, double cpu)
{
	static struct latency all;
	uint64_t reads = 0, bytes = 0, unique = 0;

	for (uint32_t i = 0; i < opt.conns; i++) {
		reads += conns[i]->reads;
		bytes += conns[i]->bytes;
		latency_merge(&all, &conns[i]->latency);
	}
	for (uint64_t b = 0; b <= place(opt.stride ? strips() * opt.stride : size) / BLOCK; b++)
		unique += touched[b] ? BLOCK : 0;
	printf("{\"reads\":%ju,\"bytes\":%ju,\"seconds\":%.4f,\"MBps\":%.2f,\"iops\":%.1f,"
	       "\"p50_us\":%.1f,\"p99_us\":%.1f,\"server_cpu_s\":%.3f,\"server_us_per_read\":%.2f,"
	       "\"unique_bytes\":%ju,\"errors\":%ju,\"wrong\":%ju}\n",
	       (uintmax_t)reads, (uintmax_t)bytes, seconds, (double)bytes / 1e6 / seconds,
	       (double)reads / seconds, latency_us(&all, 0.5), latency_us(&all, 0.99), cpu,
	       reads ? cpu * 1e6 / (double)reads : 0, (uintmax_t)unique, (uintmax_t)error_replies,
	       (uintmax_t)wrong_reads);
}

static void run(struct conn **conns)
{
	double cpu = cpu_of(opt.pid);
	uint64_t t0 = clock_now_ns(), t1;

	end_ns = t0 + (uint64_t)(opt.seconds * 1e9);
	for (uint32_t i = 0; i < opt.conns; i++)
		if (pthread_create(&conns[i]->thread, NULL, conn_main, conns[i]) != 0)
			die("cannot start a thread");
	for (uint32_t i = 0; i < opt.conns; i++)
		pthread_join(conns[i]->thread, NULL);
	t1 = clock_now_ns();
	cpu = cpu_of(opt.pid) -
	      cpu; /* before the connections close: their children may end with them */
	report(conns, (double)(t1 - t0) / 1e9, cpu);
}

static void disconnect(struct conn **conns)
{
	struct wire_request bye = {.magic = htobe32(WIRE_REQUEST), .type = htobe16(CMD_DISC)};

	for (uint32_t i = 0; i < opt.conns; i++) {
		wire_send(conns[i]->fd, &bye, sizeof(bye));
		close(conns[i]->fd);
		free(conns[i]);
	}
	free(conns);
}

__attribute__((noreturn)) static void usage(void)
{
	fprintf(stderr,
		"usage: nbdload [--pid PID] [--verify FILE] [--span BYTES] [--ops N] "
		"[--seed N] [--stall SECONDS]\n"
		"               [--stride BYTES [--strip BYTES]] [--exports N] [--link]\n"
		"               SOCKET EXPORT rnd|seq|once SIZE DEPTH CONNECTIONS SECONDS\n");
	exit(2);
}

static void parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{"pid", 1, NULL, 'p'},	  {"verify", 1, NULL, 'v'},  {"span", 1, NULL, 's'},
		{"ops", 1, NULL, 'n'},	  {"seed", 1, NULL, 'r'},    {"stall", 1, NULL, 't'},
		{"stride", 1, NULL, 'd'}, {"exports", 1, NULL, 'e'}, {"strip", 1, NULL, 'w'},
		{"link", 0, NULL, 'l'},	  {NULL, 0, NULL, 0}};
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'p':
			opt.pid = atoi(optarg);
			break;
		case 'v':
			opt.verify = optarg;
			break;
		case 's':
			opt.span = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			opt.ops = strtoull(optarg, NULL, 0);
			break;
		case 'r':
			opt.seed = strtoull(optarg, NULL, 0);
			break;
		case 'l':
			opt.link = true;
			break;
		case 't':
			opt.stall_s = atoi(optarg);
			break;
		case 'd':
			opt.stride = strtoull(optarg, NULL, 0);
			break;
		case 'w':
			opt.strip = strtoull(optarg, NULL, 0);
			break;
		case 'e':
			opt.exports = (uint32_t)atoi(optarg);
			break;
		default:
			usage();
		}
	}
}

static enum mode parse_mode(const char *s)
{
	static const char *const names[] = {"rnd", "seq", "once"};

	for (int i = 0; i < 3; i++)
		if (strcmp(s, names[i]) == 0)
			return (enum mode)i;
	usage();
}

static void parse_arguments(int argc, char **argv)
{
	parse_options(argc, argv);
	argv += optind;
	if (argc - optind != 7)
		usage();
	opt.socket = argv[0];
	opt.export = argv[1];
	opt.mode = parse_mode(argv[2]);
	opt.len = (uint32_t)strtoul(argv[3], NULL, 0);
	opt.depth = (uint32_t)atoi(argv[4]);
	opt.conns = (uint32_t)atoi(argv[5]);
	opt.seconds = atof(argv[6]);
	if (opt.len == 0 || opt.depth == 0 || opt.depth > DEPTH_MAX || opt.conns == 0 ||
	    opt.conns > CONNS_MAX)
		usage();
}

int main(int argc, char **argv)
{
	struct conn **conns;

	parse_arguments(argc, argv);
	if (opt.verify)
		map_image();
	conns = open_conns();
	run(conns);
	disconnect(conns);
	return error_replies || wrong_reads;
}
