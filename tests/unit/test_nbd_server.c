/* SPDX-License-Identifier: Apache-2.0 */
/* The whole server on a unix socket, over an export that misbehaves on request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "nbd/protocol.h"
#include "nbd/connection.h"
#include "nbd/server.h"

#define SIZE (48U << 20)

static enum loop_kind kind;

/* The export. */

enum residence {
	ALL,
	NOTHING,
	ODD_BLOCKS,	 /* every other 64 KiB */
	LOST_ONCE_ASKED, /* the rest of a body is gone when it is looked for again */
	ONCE_READ,	 /* what was read once, all of it, is in the store */
};

struct held_read {
	struct loop_post post; /* first */
	TAILQ_ENTRY(held_read) line;
	struct nbd_read *r;
	struct loop *loop;
	bool stalled;
};

struct bad_export {
	struct nbd_export nbd;
	int fd;
	_Atomic enum residence residence;
	_Atomic int fail;   /* errno of reads, or 0 */
	atomic_bool hold;   /* reads wait for release() */
	atomic_bool stalls; /* the next one stalls, until another release() */
	atomic_int refs;
	_Atomic uint64_t served, cached, read_bytes, bytes_in_flight, most_in_flight;
	_Atomic uint32_t in_flight;
	_Atomic uint64_t read_to;
	uint64_t asked_off;
	pthread_mutex_t lock;
	TAILQ_HEAD(held_reads, held_read) held;
};

static struct bad_export exports[2];
static uint8_t *image;

static uint32_t bad_resident(struct nbd_export *e, uint64_t off, uint32_t len, int *fd,
			     uint64_t *fd_off)
{
	struct bad_export *b = (struct bad_export *)e;
	uint32_t n = len;

	switch (atomic_load(&b->residence)) {
	case ALL:
		break;
	case NOTHING:
		n = 0;
		break;
	case ODD_BLOCKS:
		n = off / 65536 % 2 ? (uint32_t)(65536 - off % 65536) : 0;
		break;
	case LOST_ONCE_ASKED: /* a body's rest starts inside what was asked before */
		n = off > b->asked_off ? 0 : len;
		b->asked_off = off;
		break;
	case ONCE_READ:
		n = off + len <= atomic_load(&b->read_to) ? len : 0;
		break;
	}
	*fd = b->fd;
	*fd_off = off;
	return n < len ? n : len;
}

static void held_read_end(struct loop_post *p)
{
	struct held_read *h = (struct held_read *)p;
	struct bad_export *b = &exports[0];
	struct nbd_read *r = h->r;
	int rc = h->stalled ? -EAGAIN : -atomic_load(&b->fail);

	if (atomic_exchange(&b->stalls, false)) {
		h->stalled = true;
		r->stalled(r);
		pthread_mutex_lock(&b->lock);
		TAILQ_INSERT_TAIL(&b->held, h, line);
		pthread_mutex_unlock(&b->lock);
		return;
	}
	if (!rc)
		memcpy(r->dst, image + r->off, r->len);
	if (!rc && atomic_load(&b->read_to) < r->off + r->len)
		atomic_store(&b->read_to, r->off + r->len);
	atomic_fetch_sub(&b->bytes_in_flight, r->len);
	atomic_fetch_sub(&b->in_flight, 1);
	free(h);
	r->done(r, rc);
}

static void bad_read(struct nbd_export *e, struct nbd_read *r, struct loop *l)
{
	struct bad_export *b = &exports[0];
	struct held_read *h = calloc(1, sizeof(*h));
	uint64_t in_flight = atomic_fetch_add(&b->bytes_in_flight, r->len) + r->len;

	(void)e;
	assert_non_null(h);
	memset(r->dst, 0xee, r->len); /* all of it must be ours to write */
	if (in_flight > atomic_load(&b->most_in_flight))
		atomic_store(&b->most_in_flight, in_flight);
	atomic_fetch_add(&b->in_flight, 1);
	atomic_fetch_add(&b->read_bytes, r->len);
	h->post.fn = held_read_end;
	h->r = r;
	h->loop = l;
	if (!atomic_load(&b->hold)) {
		loop_post(l, &h->post);
		return;
	}
	pthread_mutex_lock(&b->lock);
	TAILQ_INSERT_TAIL(&b->held, h, line);
	pthread_mutex_unlock(&b->lock);
}

static void release(struct bad_export *b)
{
	struct held_read *h;

	pthread_mutex_lock(&b->lock);
	atomic_store(&b->hold, false);
	while ((h = TAILQ_FIRST(&b->held))) {
		TAILQ_REMOVE(&b->held, h, line);
		loop_post(h->loop, &h->post);
	}
	pthread_mutex_unlock(&b->lock);
}

static int bad_block_status(struct nbd_export *e, uint64_t off, uint32_t len,
			    struct nbd_extent *out, int max)
{
	(void)e;
	(void)off;
	out[0] = (struct nbd_extent){len < 65536 ? len : 65536, 0};
	if (max == 1 || len <= 65536)
		return 1;
	out[1] = (struct nbd_extent){len - 65536, NBD_STATE_HOLE | NBD_STATE_ZERO};
	return 2;
}

static void bad_cache(struct nbd_export *e, uint64_t off, uint32_t len)
{
	(void)off;
	atomic_fetch_add(&((struct bad_export *)e)->cached, len);
}

static void bad_served(struct nbd_export *e, uint64_t off, uint32_t len)
{
	(void)off;
	atomic_fetch_add(&((struct bad_export *)e)->served, len);
}

static struct nbd_export *bad_ref(struct nbd_export *e)
{
	atomic_fetch_add(&((struct bad_export *)e)->refs, 1);
	return e;
}

static void bad_unref(struct nbd_export *e)
{
	atomic_fetch_sub(&((struct bad_export *)e)->refs, 1);
}

static const struct nbd_export_ops bad_ops = {
	.resident = bad_resident,
	.read = bad_read,
	.block_status = bad_block_status,
	.cache = bad_cache,
	.served = bad_served,
	.ref = bad_ref,
	.unref = bad_unref,
};

static struct nbd_export *find(struct nbd_directory *d, const char *name)
{
	(void)d;
	for (int i = 0; i < 2; i++)
		if (strcmp(name, exports[i].nbd.name) == 0)
			return bad_ref(&exports[i].nbd);
	return NULL;
}

static void list(struct nbd_directory *d, bool (*fn)(void *, const char *, const char *), void *arg)
{
	(void)d;
	for (int i = 0; i < 2; i++)
		fn(arg, exports[i].nbd.name, "");
}

static struct nbd_directory directory = {find, list};

/* The bed. */

static struct bed {
	struct nbd_server *server;
	struct nbd_server_config cfg;
	char path[64];
	int listen_fd;
	atomic_int sleeps, wakes;
	struct histogram latency;
} bed;

static void count_sleep(void *arg, uint32_t thread)
{
	(void)arg;
	(void)thread;
	atomic_fetch_add(&bed.sleeps, 1);
}

static void count_wake(void *arg, uint32_t thread)
{
	(void)arg;
	(void)thread;
	atomic_fetch_add(&bed.wakes, 1);
}

static void restart(uint64_t miss_memory, uint32_t max_connections)
{
	struct err err;

	if (bed.server)
		nbd_server_stop(bed.server);
	bed.cfg = (struct nbd_server_config){
		.listen_fd = bed.listen_fd,
		.threads = 2,
		.loop_kind = kind,
		.max_connections = max_connections,
		.miss_memory = miss_memory,
		.directory = &directory,
		.resident_latency = &bed.latency,
		.before_sleep = count_sleep,
		.after_sleep = count_wake,
	};
	assert_int_equal(nbd_server_start(&bed.cfg, &bed.server, &err), 0);
}

static int make_image(void **state)
{
	uint32_t seed = 7;
	char path[] = "/tmp/test_nbd_server.XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	unlink(path);
	image = malloc(SIZE);
	for (uint32_t i = 0; i < SIZE; i += 4) {
		seed = seed * 1664525 + 1013904223;
		memcpy(image + i, &seed, 4);
	}
	assert_int_equal(pwrite_all(fd, image, SIZE, 0), 0);
	exports[0].fd = exports[1].fd = fd;
	return 0;
}

static int drop_image(void **state)
{
	(void)state;
	free(image);
	close(exports[0].fd);
	return 0;
}

static int set_up(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = exports[0].fd;

	(void)state;
	for (int i = 0; i < 2; i++) {
		memset(&exports[i], 0, sizeof(exports[i]));
		exports[i].fd = fd;
		exports[i].nbd.ops = &bad_ops;
		nbd_budget_share_init(&exports[i].nbd.budget);
		exports[i].nbd.size = SIZE;
		strcpy(exports[i].nbd.name, i ? "two" : "one");
		pthread_mutex_init(&exports[i].lock, NULL);
		TAILQ_INIT(&exports[i].held);
	}
	snprintf(bed.path, sizeof(bed.path), "/tmp/test_nbd_server.%d", getpid());
	strcpy(a.sun_path, bed.path);
	unlink(bed.path);
	bed.listen_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(bed.listen_fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(bed.listen_fd, 64), 0);
	restart(48 * MIB, 64);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	release(&exports[0]);
	if (bed.server)
		nbd_server_stop(bed.server);
	bed.server = NULL;
	close(bed.listen_fd);
	unlink(bed.path);
	/* Nothing is left behind, whatever was done. */
	assert_int_equal(atomic_load(&exports[0].refs), 0);
	assert_int_equal(atomic_load(&exports[1].refs), 0);
	assert_int_equal(atomic_load(&exports[0].nbd.connections), 0);
	assert_int_equal(atomic_load(&exports[0].in_flight), 0);
	return 0;
}

static struct nbd_server_counters count(void)
{
	struct nbd_server_counters n;

	nbd_server_count(bed.server, &n);
	return n;
}

#define eventually(condition)                                                                      \
	do {                                                                                       \
		int tries_ = 0;                                                                    \
		while (!(condition) && tries_++ < 5000)                                            \
			usleep(1000);                                                              \
		assert_true(condition);                                                            \
	} while (0)

/* The client. */

static int dial(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval patience = {20, 0};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(a.sun_path, bed.path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return fd;
}

/* False at the end of the stream. */
static bool take(int fd, void *dst, size_t len)
{
	ssize_t n = len ? recv(fd, dst, len, MSG_WAITALL) : 0; /* recv of 0 bytes waits, too */

	if (n < 0 && errno == ECONNRESET)
		n = 0;
	assert_true(n >= 0);
	return (size_t)n == len;
}

static void give(int fd, const void *src, size_t len)
{
	assert_int_equal(send(fd, src, len, MSG_NOSIGNAL), (ssize_t)len);
}

static size_t put_option(uint8_t *at, uint32_t option, const void *data, uint32_t len)
{
	struct nbd_wire_option o = {htobe64(NBD_OPTION_MAGIC), htobe32(option), htobe32(len)};

	memcpy(at, &o, sizeof(o));
	memcpy(at + sizeof(o), data, len);
	return sizeof(o) + len;
}

static void expect_ack(int fd)
{
	struct nbd_wire_option_reply r;
	uint8_t data[1024];

	do {
		assert_true(take(fd, &r, sizeof(r)));
		assert_true(take(fd, data, be32toh(r.len)));
		assert_false(be32toh(r.type) & 1U << 31);
	} while (be32toh(r.type) != NBD_REP_ACK);
}

static int open_export_with(const char *name, bool structured)
{
	uint8_t greeting[18], out[256];
	uint8_t go[] = {0, 0, 0, 3, (uint8_t)name[0], (uint8_t)name[1], (uint8_t)name[2], 0, 0};
	uint8_t set[8 + 3 + 4 + 15] = {
		0, 0, 0, 3, (uint8_t)name[0], (uint8_t)name[1], (uint8_t)name[2], 0, 0, 0, 1,
		0, 0, 0, 15};
	uint32_t flags = htobe32(3);
	size_t n = sizeof(flags);
	int fd = dial();

	memcpy(set + 15, "base:allocation", 15);
	assert_true(take(fd, greeting, sizeof(greeting)));
	memcpy(out, &flags, sizeof(flags));
	if (structured) {
		n += put_option(out + n, NBD_OPT_STRUCTURED_REPLY, "", 0);
		n += put_option(out + n, NBD_OPT_SET_META_CONTEXT, set, sizeof(set));
	}
	n += put_option(out + n, NBD_OPT_GO, go, sizeof(go));
	give(fd, out, n);
	for (int acks = structured ? 3 : 1; acks; acks--)
		expect_ack(fd);
	return fd;
}

static int open_export(const char *name)
{
	return open_export_with(name, false);
}

static struct nbd_wire_request request(uint16_t type, uint16_t flags, uint64_t cookie, uint64_t off,
				       uint32_t len)
{
	return (struct nbd_wire_request){
		.magic = htobe32(NBD_REQUEST_MAGIC),
		.flags = htobe16(flags),
		.type = htobe16(type),
		.cookie = cookie,
		.off = htobe64(off),
		.len = htobe32(len),
	};
}

static void ask(int fd, uint16_t type, uint16_t flags, uint64_t cookie, uint64_t off, uint32_t len)
{
	struct nbd_wire_request r = request(type, flags, cookie, off, len);

	give(fd, &r, sizeof(r));
}

static void ask_read(int fd, uint64_t cookie, uint64_t off, uint32_t len)
{
	ask(fd, NBD_CMD_READ, 0, cookie, off, len);
}

/* The next simple reply's error; its cookie by way of @cookie. */
static uint32_t hear(int fd, uint64_t *cookie)
{
	struct nbd_wire_simple_reply r;

	assert_true(take(fd, &r, sizeof(r)));
	assert_int_equal(be32toh(r.magic), NBD_SIMPLE_REPLY_MAGIC);
	*cookie = r.cookie;
	return be32toh(r.error);
}

static void hear_data(int fd, uint64_t off, uint32_t len)
{
	uint8_t *data = malloc(len + 1);

	assert_true(take(fd, data, len));
	assert_int_equal(memcmp(data, image + off, len), 0);
	free(data);
}

static void expect_read(int fd, uint64_t off, uint32_t len)
{
	uint64_t cookie;

	ask_read(fd, 99, off, len);
	assert_int_equal(hear(fd, &cookie), NBD_OK);
	assert_int_equal(cookie, 99);
	hear_data(fd, off, len);
}

static void expect_hang_up(int fd)
{
	uint8_t rest[4096];
	ssize_t n;

	while ((n = recv(fd, rest, sizeof(rest), 0)) > 0)
		;
	assert_true(n == 0 || errno == ECONNRESET);
	close(fd);
}

/* Sentences. */

static const uint32_t lens[] = {0,     1,      511,	16384,	 32767,	  32768,
				65536, 131072, 1000001, 4 << 20, 32 << 20};

static void expect_reads_of_all_lens(int fd)
{
	for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
		expect_read(fd, 0, lens[i]);
		expect_read(fd, 12345, lens[i]);
		expect_read(fd, SIZE - lens[i], lens[i]);
	}
}

static void resident_reads_bring_their_bytes(void **state)
{
	int fd = open_export("one");

	(void)state;
	expect_reads_of_all_lens(fd);
	assert_true(atomic_load(&exports[0].served) > 0);
	assert_int_equal(atomic_load(&exports[0].read_bytes), 0);
	close(fd);
}

static void missing_reads_bring_their_bytes(void **state)
{
	int fd = open_export("one");

	(void)state;
	atomic_store(&exports[0].residence, NOTHING);
	expect_reads_of_all_lens(fd);
	assert_int_equal(atomic_load(&exports[0].served), 0);
	close(fd);
}

static uint64_t latencies_noted(void)
{
	struct histogram_view v = {0};

	histogram_merge(&bed.latency, &v);
	return v.count;
}

static void latency_is_noted_for_each_resident_read_and_for_no_miss(void **state)
{
	int fd = open_export("one");

	(void)state;
	memset(&bed.latency, 0, sizeof(bed.latency));
	for (int i = 0; i < 5; i++)
		expect_read(fd, i * 4096, 4096);
	expect_read(fd, 0, 1 << 20);
	eventually(latencies_noted() == 6);
	atomic_store(&exports[0].residence, NOTHING);
	expect_read(fd, 0, 4096);
	expect_read(fd, 4096, 4096); /* the turn of the one before has ended */
	assert_int_equal(latencies_noted(), 6);
	close(fd);
}

static void structured_reads_bring_their_bytes(void **state)
{
	int fd = open_export_with("one", true);

	(void)state;
	for (int miss = 0; miss < 2; miss++) {
		atomic_store(&exports[0].residence, miss ? NOTHING : ALL);
		for (size_t i = 1; i < sizeof(lens) / sizeof(*lens); i++) {
			struct nbd_wire_chunk c;
			uint64_t off;

			ask(fd, NBD_CMD_READ, NBD_CMD_FLAG_DF, i, 777, lens[i]);
			assert_true(take(fd, &c, sizeof(c)));
			assert_int_equal(be32toh(c.magic), NBD_STRUCTURED_REPLY_MAGIC);
			assert_int_equal(be16toh(c.type), NBD_REPLY_TYPE_OFFSET_DATA);
			assert_int_equal(be16toh(c.flags), NBD_REPLY_FLAG_DONE);
			assert_int_equal(be32toh(c.len), lens[i] + 8);
			assert_true(take(fd, &off, sizeof(off)));
			assert_int_equal(be64toh(off), 777);
			hear_data(fd, 777, lens[i]);
		}
	}
	close(fd);
}

static void pipelined_reads_come_each_with_its_own_bytes(void **state)
{
	enum { N = 600 };
	struct nbd_wire_request asked[N];
	uint64_t offs[N], cookie;
	uint32_t ns[N], seed = 3;
	int fd = open_export("one");

	(void)state;
	atomic_store(&exports[0].residence, ODD_BLOCKS);
	for (int i = 0; i < N; i++) {
		ns[i] = (uint32_t)rand_r(&seed) % (i % 9 ? 5000 : 300000);
		offs[i] = (uint32_t)rand_r(&seed) % (SIZE - ns[i]);
		asked[i] = request(NBD_CMD_READ, 0, (uint64_t)i, offs[i], ns[i]);
	}
	give(fd, asked, sizeof(asked)); /* at once: the server need not read while we do not */
	for (int i = 0; i < N; i++) {
		assert_int_equal(hear(fd, &cookie), NBD_OK);
		assert_true(cookie < N && ns[cookie] != UINT32_MAX);
		hear_data(fd, offs[cookie], ns[cookie]);
		ns[cookie] = UINT32_MAX;
	}
	close(fd);
}

static void failed_miss_is_an_error_and_the_connection_lives(void **state)
{
	uint64_t cookie;
	int fd = open_export("one");

	(void)state;
	atomic_store(&exports[0].residence, NOTHING);
	atomic_store(&exports[0].fail, EIO);
	ask_read(fd, 5, 0, 131072);
	assert_int_equal(hear(fd, &cookie), NBD_EIO);
	assert_int_equal(cookie, 5);
	atomic_store(&exports[0].fail, 0);
	expect_read(fd, 0, 131072);
	close(fd);
}

static void body_whose_rest_was_evicted_is_fetched_again(void **state)
{
	int fd = open_export("one");

	(void)state;
	atomic_store(&exports[0].residence, LOST_ONCE_ASKED);
	exports[0].asked_off = UINT64_MAX;
	expect_read(fd, 4096, 8 << 20);
	assert_true(atomic_load(&exports[0].read_bytes) > 4 << 20);
	close(fd);
}

static void body_that_cannot_be_completed_closes_and_is_never_padded(void **state)
{
	uint8_t *data = malloc(8 << 20);
	uint64_t cookie;
	ssize_t n;
	int fd = open_export("one");

	(void)state;
	atomic_store(&exports[0].residence, LOST_ONCE_ASKED);
	exports[0].asked_off = UINT64_MAX;
	atomic_store(&exports[0].fail, EIO);
	ask_read(fd, 1, 4096, 8 << 20);
	assert_int_equal(hear(fd, &cookie), NBD_OK);
	n = recv(fd, data, 8 << 20, MSG_WAITALL);
	assert_in_range(n, 1, (8 << 20) - 1);
	assert_memory_equal(data, image + 4096, (size_t)n);
	expect_hang_up(fd);
	free(data);
}

static void client_that_leaves_with_reads_in_flight_leaks_nothing(void **state)
{
	int fd = open_export("one");

	(void)state;
	atomic_store(&exports[0].residence, NOTHING);
	atomic_store(&exports[0].hold, true);
	for (int i = 0; i < 100; i++)
		ask_read(fd, (uint64_t)i, (uint64_t)i * 65536, 65536);
	eventually(atomic_load(&exports[0].in_flight) == 100);
	close(fd);
	eventually(count().connections == 0);
	assert_int_equal(atomic_load(&exports[0].refs), 1); /* the reads still need it */
	release(&exports[0]);
	eventually(atomic_load(&exports[0].refs) == 0);
}

static void client_that_leaves_in_the_middle_of_a_reply_hurts_nobody(void **state)
{
	int other = open_export("one");
	uint64_t cookie;

	(void)state;
	for (int i = 0; i < 50; i++) { /* some catch the server inside sendfile */
		int fd = open_export("one");

		ask_read(fd, 1, 0, 32 << 20);
		assert_int_equal(hear(fd, &cookie), NBD_OK);
		close(fd);
	}
	expect_read(other, 0, 4096);
	eventually(count().connections == 1);
	close(other);
}

static void miss_memory_bounds_what_is_in_flight(void **state)
{
	uint64_t cookie;
	int fds[4];

	(void)state;
	restart(8 * (131072 + NBD_MISS_OVERHEAD) * 8 / 7, 64); /* alone, an export leaves 1/8 */
	atomic_store(&exports[0].residence, NOTHING);
	atomic_store(&exports[0].hold, true);
	for (int i = 0; i < 4; i++) {
		fds[i] = open_export("one");
		for (uint64_t j = 0; j < 32; j++)
			ask_read(fds[i], j, j * 131072, 131072);
	}
	eventually(atomic_load(&exports[0].in_flight) == 8);
	usleep(20000);
	assert_int_equal(atomic_load(&exports[0].most_in_flight), MIB);
	release(&exports[0]);
	for (int i = 0; i < 4; i++) {
		for (int j = 0; j < 32; j++) {
			assert_int_equal(hear(fds[i], &cookie), NBD_OK);
			hear_data(fds[i], cookie * 131072, 131072);
		}
		close(fds[i]);
	}
	assert_int_equal(atomic_load(&exports[0].most_in_flight), MIB);
}

static void one_read_passes_however_little_memory_there_is(void **state)
{
	int fd;

	(void)state;
	restart(4096, 64);
	fd = open_export("one");
	atomic_store(&exports[0].residence, NOTHING);
	expect_read(fd, 0, 32 << 20);
	close(fd);
}

static void leaving_while_waiting_for_memory_is_clean(void **state)
{
	int first, second;

	(void)state;
	restart(65536, 64);
	atomic_store(&exports[0].residence, NOTHING);
	atomic_store(&exports[0].hold, true);
	first = open_export("one");
	ask_read(first, 1, 0, 65536);
	eventually(atomic_load(&exports[0].in_flight) == 1);
	for (int i = 0; i < 20; i++) {
		second = open_export("one");
		ask_read(second, 1, 0, 65536);
		if (i == 10)
			usleep(5000);
		close(second);
	}
	second = open_export("one");
	ask_read(second, 7, 65536, 65536);
	release(&exports[0]);
	close(first);
	assert_int_equal(hear(second, &(uint64_t){0}), NBD_OK);
	hear_data(second, 65536, 65536);
	close(second);
}

static void client_that_does_not_read_leaves_miss_memory_to_others(void **state)
{
	uint64_t cookie;
	int deaf, fd;

	(void)state;
	restart(MIB, 64);
	for (int kept = 0; kept < 2; kept++) {
		/* Whether the store could keep what was read, or not. */
		atomic_store(&exports[0].residence, kept ? ONCE_READ : NOTHING);
		atomic_store(&exports[0].read_to, 0);
		deaf = open_export("one");
		for (uint64_t i = 0; i < 256; i++)
			ask_read(deaf, i, i * 131072, 131072);
		fd = open_export("two");
		atomic_store(&exports[1].residence, NOTHING);
		for (int i = 0; i < 20; i++)
			expect_read(fd, 0, 131072);
		for (int i = 0; i < 256; i++) {
			assert_int_equal(hear(deaf, &cookie), NBD_OK);
			hear_data(deaf, cookie * 131072, 131072);
		}
		close(deaf);
		close(fd);
	}
}

static void client_that_wakes_up_late_still_gets_all_its_replies(void **state)
{
	uint64_t cookie;
	int fd;

	(void)state;
	restart(MIB, 64);
	atomic_store(&exports[0].residence, ONCE_READ);
	fd = open_export("one");
	for (uint64_t i = 0; i < 256; i++)
		ask_read(fd, i, i * 131072, 131072);
	usleep(50000);
	for (int i = 0; i < 256; i++) {
		assert_int_equal(hear(fd, &cookie), NBD_OK);
		hear_data(fd, cookie * 131072, 131072);
	}
	close(fd);
}

static void reads_in_flight_of_one_connection_are_bounded(void **state)
{
	struct nbd_wire_request asked[1500];
	struct pollfd p;
	uint64_t cookie;
	int fd = open_export("one");

	(void)state;
	atomic_store(&exports[0].residence, NOTHING);
	atomic_store(&exports[0].hold, true);
	for (uint64_t i = 0; i < 1500; i++)
		asked[i] = request(NBD_CMD_READ, 0, i, i * 512, 512);
	give(fd, asked, sizeof(asked));
	eventually(atomic_load(&exports[0].in_flight) == 1024);
	p = (struct pollfd){fd, POLLIN, 0};
	assert_int_equal(poll(&p, 1, 20), 0);
	assert_int_equal(atomic_load(&exports[0].in_flight), 1024);
	release(&exports[0]);
	for (int i = 0; i < 1500; i++) {
		assert_int_equal(hear(fd, &cookie), NBD_OK);
		hear_data(fd, cookie * 512, 512);
	}
	close(fd);
}

static void writes_are_refused_and_framing_is_kept(void **state)
{
	uint8_t *payload = calloc(1, 1 << 20);
	uint64_t cookie;
	int fd = open_export("one");

	(void)state;
	ask(fd, NBD_CMD_WRITE, 0, 1, 0, 1 << 20);
	give(fd, payload, 1 << 20);
	ask(fd, NBD_CMD_TRIM, 0, 2, 0, 4096);
	ask(fd, NBD_CMD_WRITE_ZEROES, 0, 3, 0, 4096);
	ask(fd, NBD_CMD_WRITE, 0, 4, 0, 0);
	for (uint64_t i = 1; i <= 4; i++) {
		assert_int_equal(hear(fd, &cookie), NBD_EPERM);
		assert_int_equal(cookie, i);
	}
	expect_read(fd, 0, 4096);
	assert_int_equal(count().protocol_errors, 4);
	close(fd);
	free(payload);
}

static void write_larger_than_any_payload_ends_the_connection(void **state)
{
	int fd = open_export("one");

	(void)state;
	ask(fd, NBD_CMD_WRITE, 0, 1, 0, NBD_PAYLOAD_MAX + 1);
	expect_hang_up(fd);
}

static void garbage_after_the_handshake_ends_the_connection(void **state)
{
	int fd = open_export("one");

	(void)state;
	give(fd, "this is not a request at all, no", 32);
	expect_hang_up(fd);
	assert_int_equal(count().protocol_errors, 1);
}

static void half_a_request_then_the_end_is_clean(void **state)
{
	int fd = open_export("one");

	(void)state;
	give(fd, "\x25\x60\x95\x13\0\0", 6);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	expect_hang_up(fd);
}

static void disconnect_answers_what_is_under_way_first(void **state)
{
	uint64_t cookie;

	(void)state;
	atomic_store(&exports[0].residence, NOTHING);
	for (int half_closed = 0; half_closed < 2; half_closed++) {
		int fd = open_export("one");

		atomic_store(&exports[0].hold, true);
		for (uint64_t i = 0; i < 10; i++)
			ask_read(fd, i, i * 100000, 100000);
		if (half_closed)
			shutdown(fd, SHUT_WR);
		else
			ask(fd, NBD_CMD_DISC, 0, 0, 0, 0);
		eventually(atomic_load(&exports[0].in_flight) == 10);
		release(&exports[0]);
		for (int i = 0; i < 10; i++) {
			assert_int_equal(hear(fd, &cookie), NBD_OK);
			hear_data(fd, cookie * 100000, 100000);
		}
		expect_hang_up(fd);
	}
}

/* What the answer to GO says; the hang-up follows. */
static void expect_refusal(int fd, const char *text)
{
	static const uint8_t go[] = {0, 0, 0, 3, 'o', 'n', 'e', 0, 0};
	uint8_t greeting[18], out[64];
	struct nbd_wire_option_reply r;
	uint32_t flags = htobe32(3);
	char said[256] = "";

	assert_true(take(fd, greeting, sizeof(greeting)));
	memcpy(out, &flags, sizeof(flags));
	give(fd, out, sizeof(flags) + put_option(out + sizeof(flags), NBD_OPT_GO, go, sizeof(go)));
	assert_true(take(fd, &r, sizeof(r)));
	assert_int_equal(be32toh(r.type), NBD_REP_ERR_POLICY);
	assert_true(be32toh(r.len) < sizeof(said));
	assert_true(take(fd, said, be32toh(r.len)));
	assert_non_null(strstr(said, text));
	close(fd);
}

static void connections_over_the_limit_are_told_so(void **state)
{
	int fds[3], extra[40], hung_up = 0;
	uint8_t byte;

	(void)state;
	restart(MIB, 3);
	for (int i = 0; i < 3; i++)
		fds[i] = open_export("one");
	for (int i = 0; i < 40; i++) /* more than are told */
		extra[i] = dial();
	eventually(count().refused == 40);
	for (int i = 32; i < 40; i++)
		hung_up += !take(extra[i], &byte, 1);
	assert_int_equal(hung_up, 8);
	for (int i = 0; i < 40; i++)
		i < 32 ? expect_refusal(extra[i], "too many connections") : (void)close(extra[i]);
	assert_int_equal(count().connections, 3);
	close(fds[0]);
	eventually(count().connections == 2);
	fds[0] = open_export("one");
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}

static void a_read_that_stalls_leaves_its_memory_to_others_and_is_asked_for_again(void **state)
{
	uint64_t cookie;
	int patient, other;

	(void)state;
	restart(65536, 64); /* room for one */
	atomic_store(&exports[0].residence, NOTHING);
	atomic_store(&exports[0].stalls, true);
	patient = open_export("one");
	ask_read(patient, 1, 0, 65536);
	eventually(!atomic_load(&exports[0].stalls));
	other = open_export("one");
	expect_read(other, 65536, 65536);
	release(&exports[0]);
	assert_int_equal(hear(patient, &cookie), NBD_OK);
	hear_data(patient, 0, 65536);
	close(patient);
	close(other);
}

static void sweep_closes_the_connections_of_closing_exports_only(void **state)
{
	int one = open_export("one"), two = open_export("two");

	(void)state;
	assert_int_equal(atomic_load(&exports[0].nbd.connections), 1);
	atomic_store(&exports[0].nbd.closing, true);
	nbd_server_sweep(bed.server);
	nbd_server_sweep(bed.server);
	expect_hang_up(one);
	expect_read(two, 0, 4096);
	eventually(atomic_load(&exports[0].refs) == 0);
	assert_int_equal(atomic_load(&exports[0].nbd.connections), 0);
	close(two);
}

static void *release_later(void *arg)
{
	usleep(50000);
	assert_int_equal(atomic_load(&exports[0].in_flight), 10);
	release(arg);
	return NULL;
}

static void stop_waits_for_reads_in_flight(void **state)
{
	int fd = open_export("one");
	pthread_t t;

	(void)state;
	atomic_store(&exports[0].residence, NOTHING);
	atomic_store(&exports[0].hold, true);
	for (uint64_t i = 0; i < 10; i++)
		ask_read(fd, i, i * 100000, 100000);
	eventually(atomic_load(&exports[0].in_flight) == 10);
	pthread_create(&t, NULL, release_later, &exports[0]);
	nbd_server_stop(bed.server);
	bed.server = NULL;
	assert_int_equal(atomic_load(&exports[0].in_flight), 0);
	pthread_join(t, NULL);
	expect_hang_up(fd);
}

static void stop_drops_clients_in_every_state(void **state)
{
	int greeting = dial(), idle = open_export("one"), deaf = open_export("one");

	(void)state;
	for (int i = 0; i < 100; i++)
		ask_read(deaf, 1, 0, 131072);
	nbd_server_stop(bed.server);
	bed.server = NULL;
	expect_hang_up(greeting);
	expect_hang_up(idle);
	expect_hang_up(deaf);
}

static void block_status_and_cache_reach_the_export(void **state)
{
	struct nbd_wire_chunk c;
	uint8_t data[20];
	uint64_t cookie;
	int fd = open_export_with("one", true);
	static const uint8_t two_runs[] = {0, 0, 0, 1,	  0, 1, 0, 0, 0, 0,
					   0, 0, 0, 0x0f, 0, 0, 0, 0, 0, 3};

	(void)state;
	ask(fd, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 1 << 20);
	assert_true(take(fd, &c, sizeof(c)) && take(fd, data, 20));
	assert_int_equal(be16toh(c.type), NBD_REPLY_TYPE_BLOCK_STATUS);
	assert_memory_equal(data, two_runs, 20);
	ask(fd, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 1, 0, 1 << 20);
	assert_true(take(fd, &c, sizeof(c)) && take(fd, data, 12));
	assert_int_equal(be32toh(c.len), 12);
	ask(fd, NBD_CMD_CACHE, 0, 1, 4096, 8 << 20);
	assert_int_equal(hear(fd, &cookie), NBD_OK);
	assert_int_equal(atomic_load(&exports[0].cached), 8 << 20);
	close(fd);
}

static void turns_are_announced(void **state)
{
	int fd = open_export("one");

	(void)state;
	expect_read(fd, 0, 4096);
	assert_true(atomic_load(&bed.sleeps) > 2);
	assert_true(atomic_load(&bed.wakes) > 2);
	close(fd);
}

static void handshake_and_requests_may_come_byte_by_byte(void **state)
{
	static const uint8_t talk[] =
		"\0\0\0\3IHAVEOPT\0\0\0\7\0\0\0\t\0\0\0\3one\0\0"
		"\x25\x60\x95\x13\0\0\0\0cookie!!\0\0\0\0\0\0\x10\0\0\0\0\x64";
	uint8_t heard[18 + 32 + 34 + 20 + 16 + 100];
	int fd = dial();

	(void)state;
	for (size_t i = 0; i < sizeof(talk) - 1; i++) {
		give(fd, talk + i, 1);
		usleep(100);
	}
	assert_true(take(fd, heard, sizeof(heard)));
	assert_memory_equal(heard + sizeof(heard) - 108, "cookie!!", 8);
	assert_memory_equal(heard + sizeof(heard) - 100, image + 4096, 100);
	close(fd);
}

static void many_clients_at_once_get_what_they_ask(void **state)
{
	uint64_t cookie;
	int fds[60];

	(void)state;
	atomic_store(&exports[0].residence, ODD_BLOCKS);
	for (int i = 0; i < 60; i++)
		fds[i] = open_export("one");
	for (uint64_t round = 0; round < 5; round++)
		for (int i = 0; i < 60; i++)
			ask_read(fds[i], round, (uint64_t)i * 50000, 20000 * (uint32_t)round);
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 60; i++) {
			assert_int_equal(hear(fds[i], &cookie), NBD_OK);
			hear_data(fds[i], (uint64_t)i * 50000, 20000 * (uint32_t)cookie);
		}
	}
	for (int i = 0; i < 60; i++)
		close(fds[i]);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(resident_reads_bring_their_bytes),
		T(missing_reads_bring_their_bytes),
		T(latency_is_noted_for_each_resident_read_and_for_no_miss),
		T(structured_reads_bring_their_bytes),
		T(pipelined_reads_come_each_with_its_own_bytes),
		T(failed_miss_is_an_error_and_the_connection_lives),
		T(body_whose_rest_was_evicted_is_fetched_again),
		T(body_that_cannot_be_completed_closes_and_is_never_padded),
		T(client_that_leaves_with_reads_in_flight_leaks_nothing),
		T(client_that_leaves_in_the_middle_of_a_reply_hurts_nobody),
		T(miss_memory_bounds_what_is_in_flight),
		T(one_read_passes_however_little_memory_there_is),
		T(leaving_while_waiting_for_memory_is_clean),
		T(client_that_does_not_read_leaves_miss_memory_to_others),
		T(client_that_wakes_up_late_still_gets_all_its_replies),
		T(reads_in_flight_of_one_connection_are_bounded),
		T(writes_are_refused_and_framing_is_kept),
		T(write_larger_than_any_payload_ends_the_connection),
		T(garbage_after_the_handshake_ends_the_connection),
		T(half_a_request_then_the_end_is_clean),
		T(disconnect_answers_what_is_under_way_first),
		T(connections_over_the_limit_are_told_so),
		T(a_read_that_stalls_leaves_its_memory_to_others_and_is_asked_for_again),
		T(sweep_closes_the_connections_of_closing_exports_only),
		T(stop_waits_for_reads_in_flight),
		T(stop_drops_clients_in_every_state),
		T(block_status_and_cache_reach_the_export),
		T(turns_are_announced),
		T(handshake_and_requests_may_come_byte_by_byte),
		T(many_clients_at_once_get_what_they_ask),
	};
	struct loop *ring;
	struct err err;
	int failed;

	kind = LOOP_EPOLL;
	failed = cmocka_run_group_tests_name("nbd_server on epoll", tests, make_image, drop_image);
	ring = loop_new(LOOP_URING, &err);
	if (!ring) {
		print_message("skipped on io_uring: %s\n", err.text);
		return failed;
	}
	loop_free(ring);
	kind = LOOP_URING;
	return failed +
	       cmocka_run_group_tests_name("nbd_server on io_uring", tests, make_image, drop_image);
}
