/* SPDX-License-Identifier: Apache-2.0 */
/* Links with a ledger between servers: let go of by one, adopted by the next, and what is refused.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <endian.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "nbd/ledger.h"
#include "nbd/protocol.h"
#include "nbd/server.h"
#include "nbd/attach/tcp_pair.h"

#define SIZE	(4U << 20)
#define LONG_MS 60000 /* never reached unless something hangs */

/* An export whose reads of what is not resident are held until told. */
struct held {
	struct held *next;
	struct nbd_read *r;
	struct loop *l;
	struct loop_post post;
};

static struct {
	struct nbd_export nbd;
	int fd;
	atomic_int refs;
	atomic_bool resident;
	pthread_mutex_t lock;
	struct held *held; /* under lock */
	int nheld;	   /* ever; under lock */
} export = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint8_t image[SIZE];
static struct nbd_server *server;
static int listen_fd;
static atomic_int losses;

/* The link under test: its client, and what a supervisor would hold. */
static int client, worker, ledger;

static uint32_t held_resident(struct nbd_export *e, uint64_t off, uint32_t len, int *fd,
			      uint64_t *fd_off)
{
	(void)e;
	*fd = export.fd;
	*fd_off = off;
	return atomic_load(&export.resident) ? len : 0;
}

static void held_done(struct loop_post *p)
{
	struct held *h = (struct held *)((char *)p - offsetof(struct held, post));

	memcpy(h->r->dst, image + h->r->off, h->r->len);
	h->r->done(h->r, 0);
	free(h);
}

static void held_read(struct nbd_export *e, struct nbd_read *r, struct loop *l)
{
	struct held *h = calloc(1, sizeof(*h));

	(void)e;
	h->r = r;
	h->l = l;
	h->post.fn = held_done;
	pthread_mutex_lock(&export.lock);
	h->next = export.held;
	export.held = h;
	export.nheld++;
	pthread_mutex_unlock(&export.lock);
}

static void let_reads_end(void)
{
	struct held *h, *next;

	pthread_mutex_lock(&export.lock);
	h = export.held;
	export.held = NULL;
	pthread_mutex_unlock(&export.lock);
	for (; h; h = next) {
		next = h->next;
		loop_post(h->l, &h->post);
	}
}

static void held_ignore(struct nbd_export *e, uint64_t off, uint32_t len)
{
	(void)e;
	(void)off;
	(void)len;
}

static struct nbd_export *held_ref(struct nbd_export *e)
{
	atomic_fetch_add(&export.refs, 1);
	return e;
}

static void held_unref(struct nbd_export *e)
{
	(void)e;
	atomic_fetch_sub(&export.refs, 1);
}

static const struct nbd_export_ops ops = {.resident = held_resident,
					  .read = held_read,
					  .cache = held_ignore,
					  .served = held_ignore,
					  .ref = held_ref,
					  .unref = held_unref};

/* What others may name: "two", which is no link's. */
static struct nbd_export *find(struct nbd_directory *d, const char *name)
{
	(void)d;
	return strcmp(name, "two") == 0 ? held_ref(&export.nbd) : NULL;
}

static struct nbd_directory directory = {.find = find};

static void on_lost(void *arg, const char *name)
{
	(void)arg;
	assert_string_equal(name, "one");
	atomic_fetch_add(&losses, 1);
}

static void server_start(void)
{
	struct nbd_server_config cfg = {.listen_fd = listen_fd,
					.threads = 2,
					.loop_kind = LOOP_AUTO,
					.max_connections = 1,
					.miss_memory = 64 * MIB,
					.directory = &directory,
					.lost = on_lost};

	assert_int_equal(nbd_server_start(&cfg, &server, NULL), 0);
}

static int adopt(bool handshake)
{
	struct nbd_link link = {dup(worker), dup(ledger), handshake};

	return nbd_server_adopt(server, &link, &export.nbd);
}

static void next_server(uint32_t ms)
{
	nbd_server_release(server, ms);
	nbd_server_stop(server);
	server_start();
}

static int set_up(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	(void)state;
	for (uint32_t i = 0; i < SIZE; i++)
		image[i] = (uint8_t)(i * 31 + i / 4096);
	memset(&export.nbd, 0, sizeof(export.nbd));
	export.nbd.ops = &ops;
	nbd_budget_share_init(&export.nbd.budget);
	export.nbd.size = SIZE;
	strcpy(export.nbd.name, "one");
	export.nheld = 0;
	export.fd = memfd_create("image", MFD_CLOEXEC);
	assert_int_equal(pwrite_all(export.fd, image, SIZE, 0), 0);
	atomic_store(&export.resident, true);
	atomic_store(&losses, 0);
	listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listen_fd, (struct sockaddr *)&a, sizeof(a.sun_family)), 0);
	assert_int_equal(listen(listen_fd, 8), 0);
	assert_int_equal(tcp_pairs_open(&client, &worker, 1, NULL), 0);
	ledger = ledger_new(NULL);
	assert_true(ledger >= 0);
	server_start();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	let_reads_end();
	nbd_server_stop(server);
	close(listen_fd);
	close(export.fd);
	close(client);
	close(worker);
	close(ledger);
	assert_int_equal(atomic_load(&export.refs), 0);
	assert_int_equal(atomic_load(&export.nbd.connections), 0);
	return 0;
}

static bool comes_true(bool (*is)(int), int arg)
{
	for (int i = 0; i < 10000; i++) {
		if (is(arg))
			return true;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	return false;
}

static bool reads_are_held(int n)
{
	int is;

	pthread_mutex_lock(&export.lock);
	is = export.nheld;
	pthread_mutex_unlock(&export.lock);
	return is == n;
}

static bool losses_are(int n)
{
	return atomic_load(&losses) == n;
}

static void send_all(const void *data, size_t len)
{
	assert_int_equal(send(client, data, len, MSG_NOSIGNAL), len);
}

static struct nbd_wire_request request(uint16_t type, uint64_t cookie, uint64_t off, uint32_t len)
{
	return (struct nbd_wire_request){.magic = htobe32(NBD_REQUEST_MAGIC),
					 .type = htobe16(type),
					 .cookie = cookie,
					 .off = htobe64(off),
					 .len = htobe32(len)};
}

static void ask(uint16_t type, uint64_t cookie, uint64_t off, uint32_t len)
{
	struct nbd_wire_request r = request(type, cookie, off, len);

	send_all(&r, sizeof(r));
}

static void answered(uint64_t cookie, uint64_t off, uint32_t len)
{
	struct nbd_wire_simple_reply r;
	uint8_t *data = malloc(len + 1);

	assert_int_equal(recv(client, &r, sizeof(r), MSG_WAITALL), sizeof(r));
	assert_int_equal(be32toh(r.magic), NBD_SIMPLE_REPLY_MAGIC);
	assert_int_equal(r.error, 0);
	assert_true(r.cookie == cookie);
	if (len) /* a recv of nothing waits for something */
		assert_int_equal(recv(client, data, len, MSG_WAITALL), len);
	assert_memory_equal(data, image + off, len);
	free(data);
}

static void client_sees_the_end(void)
{
	struct pollfd p = {.fd = client, .events = POLLRDHUP};

	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_true(tcp_peer_is_gone(client));
}

/* --- let go and go on ------------------------------------------------------------------------ */

static void requests_cut_at_each_byte_between_servers_are_answered(void **state)
{
	struct nbd_wire_request r = request(NBD_CMD_READ, 5, 12345, 1000);

	(void)state;
	for (size_t cut = 1; cut <= sizeof(r); cut++) {
		assert_int_equal(adopt(false), 0);
		send_all(&r, cut);
		if (cut == sizeof(r))
			break;
		next_server(LONG_MS);
		send_all((uint8_t *)&r + cut, sizeof(r) - cut);
		assert_int_equal(adopt(false), 0);
		answered(5, 12345, 1000);
		next_server(LONG_MS);
	}
	answered(5, 12345, 1000);
	assert_true(losses_are(0));
}

static void send_ahead(void)
{
	const uint32_t magic = htobe32(NBD_SIMPLE_REPLY_MAGIC);

	assert_int_equal(ledger_set_ahead(ledger, sizeof(magic)), 0);
	assert_int_equal(send(worker, &magic, sizeof(magic), MSG_NOSIGNAL), sizeof(magic));
}

/* The first reply, resident or not, small or large, with or without data. */
static void a_reply_goes_on_behind_what_was_sent_ahead(void **state)
{
	const struct {
		bool resident;
		uint32_t len;
	} how[] = {{true, 512}, {true, 200000}, {false, 512}, {false, 200000}, {true, 0}};

	(void)state;
	for (size_t i = 0; i < sizeof(how) / sizeof(how[0]); i++) {
		send_ahead();
		assert_int_equal(adopt(false), 0);
		if (i % 2)
			next_server(LONG_MS), assert_int_equal(adopt(false), 0);
		export.nheld = 0;
		atomic_store(&export.resident, how[i].resident);
		ask(NBD_CMD_READ, i, 4096, how[i].len);
		if (!how[i].resident) {
			assert_true(comes_true(reads_are_held, 1));
			let_reads_end();
		}
		answered(i, 4096, how[i].len);
		atomic_store(&export.resident, true);
		ask(NBD_CMD_READ, i + 100, 8192, 512);
		answered(i + 100, 8192, 512);
		assert_true(losses_are(0));
		tear_down(NULL);
		set_up(NULL);
	}
}

static void a_reply_that_fills_the_socket_goes_on_in_the_next_server(void **state)
{
	int size = 200000; /* smaller ones wait for probes of the window */

	(void)state;
	setsockopt(worker, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(client, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	assert_int_equal(adopt(false), 0);
	ask(NBD_CMD_READ, 1, 0, SIZE);
	ask(NBD_CMD_READ, 2, 77, 20000);
	for (int i = 0; i < 5; i++) {
		uint8_t some[50000];
		static size_t got;

		assert_int_equal(recv(client, some, sizeof(some), MSG_WAITALL), sizeof(some));
		if (i)
			assert_memory_equal(some, image + got - 16, sizeof(some));
		else
			assert_memory_equal(some + 16, image, sizeof(some) - 16);
		got = (size_t)(i + 1) * sizeof(some);
		next_server(0);
		assert_int_equal(adopt(false), 0);
	}
	for (size_t got = 250000 - 16; got < SIZE;) {
		uint8_t some[4096];
		ssize_t n = recv(client, some, SIZE - got < 4096 ? SIZE - got : 4096, 0);

		assert_true(n > 0);
		assert_memory_equal(some, image + got, n);
		got += (size_t)n;
	}
	answered(2, 77, 20000);
}

static void *release_long(void *arg)
{
	(void)arg;
	nbd_server_release(server, LONG_MS);
	return NULL;
}

static void replies_in_flight_are_sent_before_a_link_is_let_go_of(void **state)
{
	pthread_t thread;

	(void)state;
	atomic_store(&export.resident, false);
	assert_int_equal(adopt(false), 0);
	ask(NBD_CMD_READ, 1, 4096, 4096);
	ask(NBD_CMD_READ, 2, 8192, 100000);
	assert_true(comes_true(reads_are_held, 2));
	assert_int_equal(pthread_create(&thread, NULL, release_long, NULL), 0);
	let_reads_end();
	pthread_join(thread, NULL);
	/* in either order */
	assert_int_equal(recv(client, &(uint8_t[104096 + 32]){0}, 104096 + 32, MSG_WAITALL),
			 104096 + 32);
	nbd_server_stop(server);
	server_start();
	assert_int_equal(adopt(false), 0);
	atomic_store(&export.resident, true);
	ask(NBD_CMD_READ, 3, 0, 512);
	answered(3, 0, 512); /* and nothing twice */
	assert_true(losses_are(0));
}

static void a_read_that_takes_too_long_is_left_to_the_successor(void **state)
{
	struct nbd_server *first = server;

	(void)state;
	atomic_store(&export.resident, false);
	assert_int_equal(adopt(false), 0);
	ask(NBD_CMD_READ, 1, 4096, 4096);
	assert_true(comes_true(reads_are_held, 1));
	nbd_server_release(first, 20);
	ask(NBD_CMD_READ, 2, 0, 512); /* not received */
	assert_int_equal(adopt(false), -ESHUTDOWN);
	server_start();
	atomic_store(&export.resident, true);
	assert_int_equal(adopt(false), 0);
	answered(1, 4096, 4096);
	answered(2, 0, 512);
	let_reads_end();
	nbd_server_stop(first); /* waits for the read, and sends nothing */
	ask(NBD_CMD_READ, 3, 512, 512);
	answered(3, 512, 512);
	assert_true(losses_are(0));
}

static void a_link_without_a_ledger_goes_on_until_the_stop(void **state)
{
	struct nbd_link link = {dup(worker), -1, false};

	(void)state;
	assert_int_equal(nbd_server_adopt(server, &link, &export.nbd), 0);
	nbd_server_release(server, LONG_MS);
	ask(NBD_CMD_READ, 1, 0, 512);
	answered(1, 0, 512);
	nbd_server_stop(server);
	client_sees_the_end();
	server_start();
}

static void more_requests_than_slots_and_ring_are_all_answered(void **state)
{
	enum { N = 2000 };

	(void)state;
	atomic_store(&export.resident, false);
	assert_int_equal(adopt(false), 0);
	for (uint64_t i = 0; i < N; i++)
		ask(NBD_CMD_READ, i, i * 16, 16);
	assert_true(comes_true(reads_are_held, LEDGER_SLOTS));
	atomic_store(&export.resident, true);
	let_reads_end();
	for (uint64_t i = 0; i < N; i++) {
		struct nbd_wire_simple_reply r;
		uint8_t data[16];

		assert_int_equal(recv(client, &r, sizeof(r), MSG_WAITALL), sizeof(r));
		assert_int_equal(recv(client, data, sizeof(data), MSG_WAITALL), sizeof(data));
		assert_true(r.cookie < N);
		assert_memory_equal(data, image + r.cookie * 16, sizeof(data));
	}
}

/* --- ends ------------------------------------------------------------------------------------ */

static void a_client_that_half_closed_while_nobody_served_gets_its_answers(void **state)
{
	(void)state;
	assert_int_equal(adopt(false), 0);
	ask(NBD_CMD_READ, 1, 0, 512);
	answered(1, 0, 512);
	next_server(LONG_MS);
	ask(NBD_CMD_READ, 2, 512, 512);
	shutdown(client, SHUT_WR);
	assert_int_equal(adopt(false), 0);
	answered(2, 512, 512);
	client_sees_the_end();
}

static void a_goodbye_while_nobody_served_is_no_loss(void **state)
{
	(void)state;
	assert_int_equal(adopt(false), 0);
	next_server(LONG_MS);
	ask(NBD_CMD_READ, 2, 512, 512);
	ask(NBD_CMD_DISC, 0, 0, 0);
	assert_int_equal(adopt(false), 0);
	answered(2, 512, 512);
	client_sees_the_end();
	assert_true(losses_are(0));
}

static void a_write_ends_a_link(void **state)
{
	(void)state;
	assert_int_equal(adopt(false), 0);
	ask(NBD_CMD_WRITE, 1, 0, 512);
	client_sees_the_end();
	assert_true(comes_true(losses_are, 1));
}

static void a_stop_shuts_links_that_were_not_released(void **state)
{
	(void)state;
	assert_int_equal(adopt(false), 0);
	ask(NBD_CMD_READ, 1, 0, 512);
	answered(1, 0, 512);
	nbd_server_stop(server);
	client_sees_the_end();
	assert_true(losses_are(0));
	server_start();
}

static void a_ledger_of_another_connection_is_refused_and_the_link_shut(void **state)
{
	(void)state;
	assert_int_equal(adopt(false), 0);
	ask(NBD_CMD_READ, 1, 0, 512);
	answered(1, 0, 512);
	next_server(LONG_MS);
	close(client);
	close(worker);
	assert_int_equal(tcp_pairs_open(&client, &worker, 1, NULL), 0);
	assert_int_equal(adopt(false), -EBADMSG);
	client_sees_the_end();
}

static void a_socket_that_keeps_no_counters_is_refused(void **state)
{
	struct nbd_link link = {.ledger = dup(ledger)};
	int sp[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sp), 0);
	link.fd = sp[0];
	assert_int_equal(nbd_server_adopt(server, &link, &export.nbd), -EBADMSG);
	close(sp[1]);
}

/* --- links with a handshake ------------------------------------------------------------------ */

static void greet(void)
{
	struct nbd_wire_greeting g;
	uint32_t flags = htobe32(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);

	assert_int_equal(recv(client, &g, sizeof(g), MSG_WAITALL), sizeof(g));
	assert_true(be64toh(g.magic) == NBD_MAGIC);
	send_all(&flags, sizeof(flags));
}

static void put_option(uint32_t option, const void *data, uint32_t len)
{
	struct nbd_wire_option o = {htobe64(NBD_OPTION_MAGIC), htobe32(option), htobe32(len)};
	uint8_t all[256];

	memcpy(all, &o, sizeof(o));
	if (len)
		memcpy(all + sizeof(o), data, len);
	send_all(all, sizeof(o) + len);
}

/* The type of one reply to an option; its data is thrown away. */
static uint32_t option_reply(void)
{
	struct nbd_wire_option_reply r;
	uint8_t data[4096];

	assert_int_equal(recv(client, &r, sizeof(r), MSG_WAITALL), sizeof(r));
	assert_true(be32toh(r.len) <= sizeof(data));
	if (r.len)
		assert_int_equal(recv(client, data, be32toh(r.len), MSG_WAITALL), be32toh(r.len));
	return be32toh(r.type);
}

/* A name with nothing behind it, or with a count of 0. */
static void put_go(uint32_t option, const char *name)
{
	uint32_t len = htobe32((uint32_t)strlen(name));
	uint8_t data[64] = {0};

	memcpy(data, &len, sizeof(len));
	memcpy(data + sizeof(len), name, strlen(name));
	put_option(option, data, (uint32_t)(sizeof(len) + strlen(name) + 2));
}

static void go(const char *name)
{
	put_go(NBD_OPT_GO, name);
	assert_int_equal(option_reply(), NBD_REP_INFO);
	assert_int_equal(option_reply(), NBD_REP_INFO);
	assert_int_equal(option_reply(), NBD_REP_ACK);
}

static void structured_answer(uint64_t cookie, uint64_t off, uint32_t len)
{
	struct nbd_wire_chunk h;
	uint64_t at;
	uint8_t *data = malloc(len);

	assert_int_equal(recv(client, &h, sizeof(h), MSG_WAITALL), sizeof(h));
	assert_int_equal(be32toh(h.magic), NBD_STRUCTURED_REPLY_MAGIC);
	assert_int_equal(be16toh(h.type), NBD_REPLY_TYPE_OFFSET_DATA);
	assert_true(h.cookie == cookie);
	assert_int_equal(be32toh(h.len), sizeof(at) + len);
	assert_int_equal(recv(client, &at, sizeof(at), MSG_WAITALL), sizeof(at));
	assert_true(be64toh(at) == off);
	assert_int_equal(recv(client, data, len, MSG_WAITALL), len);
	assert_memory_equal(data, image + off, len);
	free(data);
}

static void a_handshake_goes_on_as_structured_replies_in_the_next_server(void **state)
{
	(void)state;
	assert_int_equal(adopt(true), 0);
	greet();
	put_option(NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	assert_int_equal(option_reply(), NBD_REP_ACK);
	go("one");
	for (uint64_t i = 0; i < 3; i++) {
		ask(NBD_CMD_READ, i, 4096 * i, 8192);
		structured_answer(i, 4096 * i, 8192);
		next_server(LONG_MS);
		assert_int_equal(adopt(true), 0);
	}
	ask(NBD_CMD_READ, 9, 0, SIZE);
	structured_answer(9, 0, SIZE);
}

static void requests_sent_with_the_last_option_are_answered(void **state)
{
	uint8_t all[128];
	struct nbd_wire_option o = {htobe64(NBD_OPTION_MAGIC), htobe32(NBD_OPT_EXPORT_NAME),
				    htobe32(3)};
	struct nbd_wire_request r = request(NBD_CMD_READ, 1, 0, 512);
	size_t n = 0;

	(void)state;
	assert_int_equal(adopt(true), 0);
	greet();
	memcpy(all, &o, sizeof(o));
	memcpy(all + sizeof(o), "one", 3);
	n = sizeof(o) + 3;
	memcpy(all + n, &r, sizeof(r));
	memcpy(all + n + sizeof(r), &r, 11); /* and a part of another */
	send_all(all, n + sizeof(r) + 11);
	assert_int_equal(recv(client, all, 10, MSG_WAITALL), 10);
	answered(1, 0, 512);
	next_server(LONG_MS);
	assert_int_equal(adopt(true), 0);
	send_all((uint8_t *)&r + 11, sizeof(r) - 11);
	answered(1, 0, 512);
}

static void a_handshake_can_name_the_links_own_export_only(void **state)
{
	(void)state;
	assert_int_equal(adopt(true), 0);
	greet();
	put_go(NBD_OPT_GO, "two");
	assert_int_equal(option_reply(), NBD_REP_ERR_UNKNOWN);
	put_option(NBD_OPT_LIST, NULL, 0);
	assert_int_equal(option_reply(), NBD_REP_SERVER);
	assert_int_equal(option_reply(), NBD_REP_ACK);
	go("");
	ask(NBD_CMD_READ, 1, 0, 512);
	answered(1, 0, 512);
}

/* Block status may change between two servers, so that half of a reply could not be gone on with.
 */
static void no_context_is_granted_on_a_link_with_a_ledger(void **state)
{
	static const char query[] = "\0\0\0\3one\0\0\0\1\0\0\0\17base:allocation";

	(void)state;
	assert_int_equal(adopt(true), 0);
	greet();
	put_option(NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	assert_int_equal(option_reply(), NBD_REP_ACK);
	put_option(NBD_OPT_SET_META_CONTEXT, query, sizeof(query) - 1);
	assert_int_equal(option_reply(), NBD_REP_ACK);
}

static void a_handshake_that_was_interrupted_is_refused_and_shut(void **state)
{
	(void)state;
	assert_int_equal(adopt(true), 0);
	greet();
	next_server(0);
	assert_int_equal(adopt(true), -EBADMSG);
	client_sees_the_end();
	assert_true(losses_are(0));
}

int main(void)
{
#define bed(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		bed(a_reply_goes_on_behind_what_was_sent_ahead),
		bed(requests_cut_at_each_byte_between_servers_are_answered),
		bed(a_reply_that_fills_the_socket_goes_on_in_the_next_server),
		bed(replies_in_flight_are_sent_before_a_link_is_let_go_of),
		bed(a_read_that_takes_too_long_is_left_to_the_successor),
		bed(a_link_without_a_ledger_goes_on_until_the_stop),
		bed(more_requests_than_slots_and_ring_are_all_answered),
		bed(a_client_that_half_closed_while_nobody_served_gets_its_answers),
		bed(a_goodbye_while_nobody_served_is_no_loss),
		bed(a_write_ends_a_link),
		bed(a_stop_shuts_links_that_were_not_released),
		bed(a_ledger_of_another_connection_is_refused_and_the_link_shut),
		bed(a_socket_that_keeps_no_counters_is_refused),
		bed(a_handshake_goes_on_as_structured_replies_in_the_next_server),
		bed(requests_sent_with_the_last_option_are_answered),
		bed(a_handshake_can_name_the_links_own_export_only),
		bed(no_context_is_granted_on_a_link_with_a_ledger),
		bed(a_handshake_that_was_interrupted_is_refused_and_shut),
	};

	alarm(200); /* a reply that never comes must fail, not hang */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
