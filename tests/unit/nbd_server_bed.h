/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the NBD server share: all of it on a unix socket, over an export that
 * misbehaves on request, and a client. Include it once a test. */
#ifndef TESTS_NBD_SERVER_BED_H
#define TESTS_NBD_SERVER_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bad_export.h"
#include "base/bytes.h"
#include "nbd/protocol.h"
#include "nbd/connection.h"
#include "nbd/server.h"

static enum loop_kind kind; /* of the servers */

/* The bed. */

static struct bed {
	struct nbd_server *server;
	struct nbd_server_config cfg;
	char path[64];
	int listen_fd;
	atomic_int sleeps, wakes;
	struct histogram latency;
} bed;

static inline void count_sleep(void *arg, uint32_t thread)
{
	(void)arg;
	(void)thread;
	atomic_fetch_add(&bed.sleeps, 1);
}

static inline void count_wake(void *arg, uint32_t thread)
{
	(void)arg;
	(void)thread;
	atomic_fetch_add(&bed.wakes, 1);
}

static inline void restart(uint64_t miss_memory, uint32_t max_connections)
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

static inline int set_up(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	(void)state;
	exports_reset();
	snprintf(bed.path, sizeof(bed.path), "/tmp/test_nbd_server.%d", getpid());
	strcpy(a.sun_path, bed.path);
	unlink(bed.path);
	bed.listen_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(bed.listen_fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(bed.listen_fd, 64), 0);
	restart(48 * MIB, 64);
	return 0;
}

static inline int tear_down(void **state)
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

static inline struct nbd_server_counters count(void)
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

static inline int dial(void)
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
static inline bool take(int fd, void *dst, size_t len)
{
	ssize_t n = len ? recv(fd, dst, len, MSG_WAITALL) : 0; /* recv of 0 bytes waits, too */

	if (n < 0 && errno == ECONNRESET)
		n = 0;
	assert_true(n >= 0);
	return (size_t)n == len;
}

static inline void give(int fd, const void *src, size_t len)
{
	assert_int_equal(send(fd, src, len, MSG_NOSIGNAL), (ssize_t)len);
}

static inline size_t put_option(uint8_t *at, uint32_t option, const void *data, uint32_t len)
{
	struct nbd_wire_option o = {htobe64(NBD_OPTION_MAGIC), htobe32(option), htobe32(len)};

	memcpy(at, &o, sizeof(o));
	memcpy(at + sizeof(o), data, len);
	return sizeof(o) + len;
}

static inline void expect_ack(int fd)
{
	struct nbd_wire_option_reply r;
	uint8_t data[1024];

	do {
		assert_true(take(fd, &r, sizeof(r)));
		assert_true(take(fd, data, be32toh(r.len)));
		assert_false(be32toh(r.type) & 1U << 31);
	} while (be32toh(r.type) != NBD_REP_ACK);
}

static inline int open_export_with(const char *name, bool structured)
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

static inline int open_export(const char *name)
{
	return open_export_with(name, false);
}

static inline struct nbd_wire_request request(uint16_t type, uint16_t flags, uint64_t cookie,
					      uint64_t off, uint32_t len)
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

static inline void ask(int fd, uint16_t type, uint16_t flags, uint64_t cookie, uint64_t off,
		       uint32_t len)
{
	struct nbd_wire_request r = request(type, flags, cookie, off, len);

	give(fd, &r, sizeof(r));
}

static inline void ask_read(int fd, uint64_t cookie, uint64_t off, uint32_t len)
{
	ask(fd, NBD_CMD_READ, 0, cookie, off, len);
}

/* The next simple reply's error; its cookie by way of @cookie. */
static inline uint32_t hear(int fd, uint64_t *cookie)
{
	struct nbd_wire_simple_reply r;

	assert_true(take(fd, &r, sizeof(r)));
	assert_int_equal(be32toh(r.magic), NBD_SIMPLE_REPLY_MAGIC);
	*cookie = r.cookie;
	return be32toh(r.error);
}

static inline void hear_data(int fd, uint64_t off, uint32_t len)
{
	uint8_t *data = malloc(len + 1);

	assert_true(take(fd, data, len));
	assert_int_equal(memcmp(data, image + off, len), 0);
	free(data);
}

static inline void expect_read(int fd, uint64_t off, uint32_t len)
{
	uint64_t cookie;

	ask_read(fd, 99, off, len);
	assert_int_equal(hear(fd, &cookie), NBD_OK);
	assert_int_equal(cookie, 99);
	hear_data(fd, off, len);
}

static inline void expect_hang_up(int fd)
{
	uint8_t rest[4096];
	ssize_t n;

	while ((n = recv(fd, rest, sizeof(rest), 0)) > 0)
		;
	assert_true(n == 0 || errno == ECONNRESET);
	close(fd);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* Every test on each mechanism; io_uring's are left out where it is refused. How many failed. */
static inline int run_on_each_loop(const char *name, const struct CMUnitTest *tests, size_t n)
{
	char text[64];
	struct loop *ring;
	struct err err;
	int failed;

	kind = LOOP_EPOLL;
	snprintf(text, sizeof(text), "%s on epoll", name);
	failed = _cmocka_run_group_tests(text, tests, n, make_image, drop_image);
	ring = loop_new(LOOP_URING, &err);
	if (!ring) {
		print_message("skipped on io_uring: %s\n", err.text);
		return failed;
	}
	loop_free(ring);
	kind = LOOP_URING;
	snprintf(text, sizeof(text), "%s on io_uring", name);
	return failed + _cmocka_run_group_tests(text, tests, n, make_image, drop_image);
}

#endif
