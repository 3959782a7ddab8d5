/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that begin in transmission, as the kernel's do: adopted by a server that runs. */
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
#include "nbd/protocol.h"
#include "nbd/server.h"
#include "nbd/attach/tcp_pair.h"

#define SIZE	(1U << 20)
#define THREADS 3

/* An export that has everything. */
struct full_export {
	struct nbd_export nbd;
	int fd;
	atomic_int refs;
};

static struct full_export export;
static struct nbd_server *server;
static int listen_fd;
static atomic_int losses;
static uint8_t image[SIZE];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t served_by[16]; /* different threads; under lock */
static int nserved;

static uint32_t full_resident(struct nbd_export *e, uint64_t off, uint32_t len, int *fd,
			      uint64_t *fd_off)
{
	*fd = ((struct full_export *)e)->fd;
	*fd_off = off;
	return len;
}

static void full_served(struct nbd_export *e, uint64_t off, uint32_t len)
{
	pid_t me = gettid();
	int i = 0;

	(void)e;
	(void)off;
	(void)len;
	pthread_mutex_lock(&lock);
	while (i < nserved && served_by[i] != me)
		i++;
	if (i == nserved && nserved < 16)
		served_by[nserved++] = me;
	pthread_mutex_unlock(&lock);
}

/* Only a page that is not cached comes here; a memfd's always is. */
static void full_read(struct nbd_export *e, struct nbd_read *r, struct loop *l)
{
	(void)e;
	(void)r;
	(void)l;
	abort();
}

static struct nbd_export *full_ref(struct nbd_export *e)
{
	atomic_fetch_add(&((struct full_export *)e)->refs, 1);
	return e;
}

static void full_unref(struct nbd_export *e)
{
	atomic_fetch_sub(&((struct full_export *)e)->refs, 1);
}

static const struct nbd_export_ops ops = {.resident = full_resident,
					  .read = full_read,
					  .served = full_served,
					  .ref = full_ref,
					  .unref = full_unref};

static struct nbd_export *find(struct nbd_directory *d, const char *name)
{
	(void)d;
	(void)name;
	return NULL;
}

static struct nbd_directory directory = {.find = find};

static void on_lost(void *arg, const char *name)
{
	assert_ptr_equal(arg, &losses);
	assert_string_equal(name, "one");
	atomic_fetch_add(&losses, 1);
}

static int set_up(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct nbd_server_config cfg = {.threads = THREADS,
					.loop_kind = LOOP_AUTO,
					.max_connections = 1,
					.miss_memory = MIB,
					.directory = &directory,
					.lost = on_lost,
					.lost_arg = &losses};

	(void)state;
	for (uint32_t i = 0; i < SIZE; i++)
		image[i] = (uint8_t)(i * 31 + i / 4096);
	memset(&export, 0, sizeof(export));
	export.nbd.ops = &ops;
	nbd_budget_share_init(&export.nbd.budget);
	export.nbd.size = SIZE;
	strcpy(export.nbd.name, "one");
	export.fd = memfd_create("image", MFD_CLOEXEC);
	assert_int_equal(pwrite_all(export.fd, image, SIZE, 0), 0);
	atomic_store(&losses, 0);
	nserved = 0;
	/* an abstract name of the kernel's choice */
	listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listen_fd, (struct sockaddr *)&a, sizeof(a.sun_family)), 0);
	assert_int_equal(listen(listen_fd, 8), 0);
	cfg.listen_fd = listen_fd;
	return nbd_server_start(&cfg, &server, NULL);
}

static int tear_down(void **state)
{
	(void)state;
	if (server)
		nbd_server_stop(server);
	server = NULL;
	close(listen_fd);
	close(export.fd);
	assert_int_equal(atomic_load(&export.refs), 0);
	assert_int_equal(atomic_load(&export.nbd.connections), 0);
	return 0;
}

static bool comes_true(bool (*is)(int), int arg)
{
	for (int i = 0; i < 2000; i++) {
		if (is(arg))
			return true;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	return false;
}

static bool connections_are(int n)
{
	return atomic_load(&export.nbd.connections) == (uint32_t)n;
}

static bool losses_are(int n)
{
	return atomic_load(&losses) == n;
}

static void ask(int fd, uint16_t type, uint64_t cookie, uint64_t off, uint32_t len)
{
	struct nbd_wire_request r = {.magic = htobe32(NBD_REQUEST_MAGIC),
				     .type = htobe16(type),
				     .cookie = cookie,
				     .off = htobe64(off),
				     .len = htobe32(len)};

	assert_int_equal(send(fd, &r, sizeof(r), MSG_NOSIGNAL), sizeof(r));
}

static void answered(int fd, uint64_t cookie, uint64_t off, uint32_t len)
{
	struct nbd_wire_simple_reply r;
	uint8_t *data = malloc(len);

	assert_int_equal(recv(fd, &r, sizeof(r), MSG_WAITALL), sizeof(r));
	assert_int_equal(be32toh(r.magic), NBD_SIMPLE_REPLY_MAGIC);
	assert_int_equal(r.error, 0);
	assert_true(r.cookie == cookie);
	assert_int_equal(recv(fd, data, len, MSG_WAITALL), len);
	assert_memory_equal(data, image + off, len);
	free(data);
}

static void adopt(int *kernel, uint32_t n)
{
	int worker[16];

	assert_int_equal(tcp_pairs_open(kernel, worker, n, NULL), 0);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(nbd_server_adopt(server, &(struct nbd_link){worker[i], -1, false},
						  &export.nbd),
				 0);
}

static void the_first_bytes_are_a_request_and_get_a_simple_reply(void **state)
{
	int kernel;

	(void)state;
	adopt(&kernel, 1);
	ask(kernel, NBD_CMD_READ, 7, 4096, 4096);
	answered(kernel, 7, 4096, 4096);
	ask(kernel, NBD_CMD_READ, 8, 0, SIZE); /* by sendfile, over TCP */
	answered(kernel, 8, 0, SIZE);
	close(kernel);
}

static void requests_sent_before_the_adoption_are_answered(void **state)
{
	int kernel, worker;

	(void)state;
	assert_int_equal(tcp_pairs_open(&kernel, &worker, 1, NULL), 0);
	for (uint64_t i = 0; i < 10; i++)
		ask(kernel, NBD_CMD_READ, i, i * 512, 512);
	assert_int_equal(
		nbd_server_adopt(server, &(struct nbd_link){worker, -1, false}, &export.nbd), 0);
	for (uint64_t i = 0; i < 10; i++)
		answered(kernel, i, i * 512, 512);
	close(kernel);
}

static void connections_go_to_all_threads_and_past_the_limit_of_clients(void **state)
{
	struct nbd_server_counters c;
	int kernel[THREADS * 2];

	(void)state;
	adopt(kernel, THREADS * 2); /* beyond max_connections, which is for clients */
	assert_true(comes_true(connections_are, THREADS * 2));
	nbd_server_count(server, &c);
	assert_int_equal(c.connections, THREADS * 2);
	assert_int_equal(c.refused, 0);
	for (int i = 0; i < THREADS * 2; i++) {
		ask(kernel[i], NBD_CMD_READ, 1, 0, 512);
		answered(kernel[i], 1, 0, 512);
	}
	fds_close(kernel, THREADS * 2);
	assert_true(comes_true(connections_are, 0));
	pthread_mutex_lock(&lock);
	assert_int_equal(nserved, THREADS);
	pthread_mutex_unlock(&lock);
}

static void an_end_without_a_goodbye_is_told_once_a_connection(void **state)
{
	int kernel[3];

	(void)state;
	adopt(kernel, 3);
	assert_true(comes_true(connections_are, 3));
	close(kernel[0]);
	shutdown(kernel[1], SHUT_RDWR);
	assert_true(comes_true(losses_are, 2));
	assert_true(connections_are(1));
	fds_close(kernel + 1, 2);
	assert_true(comes_true(losses_are, 3));
}

static void a_goodbye_is_no_loss(void **state)
{
	int kernel;

	(void)state;
	adopt(&kernel, 1);
	ask(kernel, NBD_CMD_DISC, 0, 0, 0);
	assert_int_equal(recv(kernel, &(char){0}, 1, 0), 0);
	assert_true(comes_true(connections_are, 0));
	assert_true(losses_are(0));
	close(kernel);
}

static void an_export_that_closes_and_a_stop_are_no_losses(void **state)
{
	int kernel[2];

	(void)state;
	adopt(kernel, 1);
	assert_true(comes_true(connections_are, 1));
	atomic_store(&export.nbd.closing, true);
	nbd_server_sweep(server);
	assert_true(comes_true(connections_are, 0));
	atomic_store(&export.nbd.closing, false);
	adopt(kernel + 1, 1);
	assert_true(comes_true(connections_are, 1));
	nbd_server_stop(server);
	server = NULL;
	assert_true(losses_are(0));
	fds_close(kernel, 2);
}

/* The supervisor holds the same socket: closing one descriptor would tell the kernel nothing. */
static void the_other_end_sees_a_connection_end_that_someone_else_holds_too(void **state)
{
	int kernel, worker, held;
	struct pollfd p;

	(void)state;
	assert_int_equal(tcp_pairs_open(&kernel, &worker, 1, NULL), 0);
	held = dup(worker);
	assert_int_equal(
		nbd_server_adopt(server, &(struct nbd_link){worker, -1, false}, &export.nbd), 0);
	assert_int_equal(send(kernel, "this is not a request of NBD's", 28, MSG_NOSIGNAL), 28);
	p = (struct pollfd){.fd = kernel, .events = POLLRDHUP};
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_true(tcp_peer_is_gone(kernel));
	assert_true(comes_true(losses_are, 1));
	close(held);
	close(kernel);
}

int main(void)
{
#define bed(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		bed(the_first_bytes_are_a_request_and_get_a_simple_reply),
		bed(requests_sent_before_the_adoption_are_answered),
		bed(connections_go_to_all_threads_and_past_the_limit_of_clients),
		bed(an_end_without_a_goodbye_is_told_once_a_connection),
		bed(a_goodbye_is_no_loss),
		bed(an_export_that_closes_and_a_stop_are_no_losses),
		bed(the_other_end_sees_a_connection_end_that_someone_else_holds_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
