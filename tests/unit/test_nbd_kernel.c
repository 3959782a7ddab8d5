/* SPDX-License-Identifier: Apache-2.0 */
/* What the way "nbd" stands on: pairs of sockets, the note of a device, names. The kernel's part is
 * tested in a VM. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nbd/attach/kernel_impl.h"
#include "nbd/attach/device_note.h"
#include "nbd/attach/kernel_device.h"
#include "nbd/attach/kernel_reader.h"
#include "nbd/attach/sysfs.h"
#include "nbd/attach/tcp_pair.h"
#include "nbd/ledger.h"

/* ---- pairs ---- */

static void each_end_is_connected_to_its_own_other(void **state)
{
	int kernel[8], worker[8];
	struct err err = {0};

	(void)state;
	assert_int_equal(tcp_pairs_open(kernel, worker, 8, &err), 0);
	for (char i = 0; i < 8; i++)
		assert_int_equal(write(kernel[(int)i], &i, 1), 1);
	for (int i = 0; i < 8; i++) {
		char got = -1;

		assert_int_equal(recv(worker[i], &got, 1, MSG_WAITALL), 1);
		assert_int_equal(got, i);
	}
	fds_close(kernel, 8);
	fds_close(worker, 8);
}

static void an_end_does_not_wait_for_more_and_the_next_program_does_not_get_it(void **state)
{
	int kernel, worker, on = 0;
	socklen_t len = sizeof(on);

	(void)state;
	assert_int_equal(tcp_pairs_open(&kernel, &worker, 1, NULL), 0);
	assert_int_equal(getsockopt(worker, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
	assert_true(on);
	assert_true(fcntl(worker, F_GETFL) & O_NONBLOCK);
	assert_false(fcntl(kernel, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(worker, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(kernel, F_GETFD) & FD_CLOEXEC);
	fds_close(&kernel, 1);
	fds_close(&worker, 1);
}

static void a_closed_end_is_seen_at_the_other_and_a_live_one_is_not(void **state)
{
	int kernel[2], worker[2];

	(void)state;
	assert_int_equal(tcp_pairs_open(kernel, worker, 2, NULL), 0);
	close(kernel[0]);
	assert_true(tcp_peer_is_gone(worker[0]));
	assert_false(tcp_peer_is_gone(worker[1]));
	shutdown(kernel[1], SHUT_RDWR);
	assert_true(tcp_peer_is_gone(worker[1]));
	close(kernel[1]);
	fds_close(worker, 2);
}

static int open_files(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Wherever they run out: at the listener, a socket's own end, or the accepted one. */
static void without_descriptors_nothing_stays_open_and_the_remedy_is_named(void **state)
{
	int kernel[8], worker[8], before = open_files(), next = dup(0);
	struct rlimit was, few;

	(void)state;
	close(next); /* below it all are open */
	getrlimit(RLIMIT_NOFILE, &was);
	for (int left = 0; left < 8; left++) {
		struct err err = {0};
		int rc;

		few = (struct rlimit){.rlim_cur = (rlim_t)(next + left), .rlim_max = was.rlim_max};
		setrlimit(RLIMIT_NOFILE, &few);
		rc = tcp_pairs_open(kernel, worker, 8, &err);
		setrlimit(RLIMIT_NOFILE, &was);
		assert_int_equal(rc, -EMFILE);
		assert_non_null(strstr(err.text, "open files"));
		assert_int_equal(open_files(), before);
	}
}

/* ---- links ---- */

static void a_dead_link_is_dropped_and_a_cut_is_seen_at_both_ends(void **state)
{
	struct attachment a = {.way = &attach_kernel_nbd, .queues = 3};
	struct attach_kernel *k;
	int kernel[3], worker[3], mine;

	(void)state;
	assert_int_equal(attach_kernel_new(&k, NULL), 0);
	assert_int_equal(tcp_pairs_open(kernel, worker, 3, NULL), 0);
	mine = dup(worker[2]); /* the worker's */
	for (int i = 0; i < 3; i++)
		assert_int_equal(links_add(k, &a, worker[i]), 0);
	assert_int_equal(a.fresh, 3);
	a.fresh = 0; /* the worker has them */
	shutdown(kernel[1], SHUT_RDWR);
	attach_kernel_events(k, &a, 1);
	assert_true(a.dead);
	assert_int_equal(a.nlinks, 2);
	assert_int_equal(a.links[1], worker[2]);
	links_cut(k, &a);
	assert_int_equal(a.nlinks, 0);
	assert_true(tcp_peer_is_gone(kernel[0]));
	assert_true(tcp_peer_is_gone(kernel[2]));
	assert_true(tcp_peer_is_gone(mine) || recv(mine, &(char){0}, 1, MSG_DONTWAIT) == 0);
	close(mine);
	fds_close(kernel, 3);
	attach_kernel_free(k);
}

static void fresh_links_are_the_last_ones(void **state)
{
	struct attachment a = {.way = &attach_kernel_nbd, .queues = 3};
	struct attach_kernel *k;
	int kernel[3], worker[3], ledger;

	(void)state;
	assert_int_equal(attach_kernel_new(&k, NULL), 0);
	assert_int_equal(tcp_pairs_open(kernel, worker, 3, NULL), 0);
	links_add(k, &a, worker[0]);
	a.fresh = 0; /* the worker has them */
	links_add(k, &a, worker[1]);
	links_add(k, &a, worker[2]);
	assert_int_equal(a.fresh, 2);
	ledger = a.ledgers[2];
	close(kernel[1]); /* one of the fresh ones is not taken */
	assert_int_equal(links_drop_dead(k, &a), 1);
	assert_int_equal(a.fresh, 1);
	assert_int_equal(a.links[a.nlinks - a.fresh], worker[2]);
	assert_int_equal(a.ledgers[a.nlinks - a.fresh], ledger); /* each stays with its socket */
	close(kernel[0]);					 /* and an old one ends */
	assert_int_equal(links_drop_dead(k, &a), 1);
	assert_int_equal(a.fresh, 1);
	assert_int_equal(a.nlinks, 1);
	links_cut(k, &a);
	close(kernel[2]);
	attach_kernel_free(k);
}

/* ---- readers ---- */

static void *read_some(void *arg)
{
	char some[16];

	recv(*(int *)arg, some, sizeof(some), MSG_WAITALL); /* as the kernel waits for a reply */
	return NULL;
}

static void connections_that_nobody_reads_are_counted(void **state)
{
	int kernel[3], worker[3], ledgers[3];
	pthread_t reader[3];

	(void)state;
	for (uint32_t readers = 0; readers <= 3; readers++) {
		assert_int_equal(tcp_pairs_open(kernel, worker, 3, NULL), 0);
		for (uint32_t i = 0; i < 3; i++) {
			ledgers[i] = ledger_new(NULL);
			if (i < readers)
				pthread_create(&reader[i], NULL, read_some, &kernel[i]);
		}
		assert_int_equal(
			kernel_readers_wait(kernel, worker, ledgers, 3, readers == 3 ? 20000 : 100),
			3 - readers);
		for (uint32_t i = 0; i < 3; i++) {
			struct ledger *l = ledger_map(ledgers[i]);

			assert_int_equal(l->ahead, 4);
			ledger_unmap(l);
			shutdown(worker[i], SHUT_RDWR);
			if (i < readers)
				pthread_join(reader[i], NULL);
		}
		fds_close(kernel, 3);
		fds_close(worker, 3);
		fds_close(ledgers, 3);
	}
}

static void a_connection_that_ended_has_no_reader(void **state)
{
	int kernel, worker, ledger = ledger_new(NULL);

	(void)state;
	assert_int_equal(tcp_pairs_open(&kernel, &worker, 1, NULL), 0);
	shutdown(worker, SHUT_RDWR);
	assert_int_equal(kernel_readers_wait(&kernel, &worker, &ledger, 1, 100), -EPIPE);
	close(kernel);
	close(worker);
	close(ledger);
}

static void a_socket_is_the_kernels_once_it_has_its_timeout(void **state)
{
	struct timeval t = {.tv_sec = 30};
	int kernel, worker;

	(void)state;
	assert_int_equal(tcp_pairs_open(&kernel, &worker, 1, NULL), 0);
	assert_false(kernel_reader_has(kernel));
	setsockopt(kernel, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
	assert_true(kernel_reader_has(kernel));
	close(kernel);
	close(worker);
}

/* ---- notes ---- */

static char folder[] = "/tmp/cairn-note-XXXXXX", path[64];

static int folder_make(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return 1;
	snprintf(path, sizeof(path), "%s/nbd.json", folder);
	return 0;
}

static int folder_remove(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder);
}

static void a_note_comes_back_as_it_was_written(void **state)
{
	struct device_note n = {.index = -1,
				.identity = "unsealed:a \"b\"\\c",
				.nports = 2,
				.ports = {1, 65535}},
			   got;

	(void)state;
	assert_int_equal(device_note_sign(&n), 0);
	assert_int_equal(device_note_save(path, &n), 0);
	n.index = 1048575;
	assert_int_equal(device_note_save(path, &n), 0);
	memset(&got, 0x55, sizeof(got));
	assert_int_equal(device_note_load(path, &got), 0);
	assert_int_equal(got.index, 1048575);
	assert_string_equal(got.identity, n.identity);
	assert_int_equal(got.pid, getpid());
	assert_true(got.started == n.started && n.started > 0);
	assert_string_equal(got.boot, n.boot);
	assert_int_equal(got.nports, 2);
	assert_int_equal(got.ports[1], 65535);
}

static void its_writer_lives_until_pid_start_or_boot_is_anothers(void **state)
{
	struct device_note n = {0};

	(void)state;
	assert_int_equal(device_note_sign(&n), 0);
	assert_true(device_note_writer_lives(&n));
	n.started++;
	assert_false(device_note_writer_lives(&n));
	n.started--;
	n.boot[0] = n.boot[0] == '0' ? '1' : '0';
	assert_false(device_note_writer_lives(&n));
}

static void a_damaged_note_is_refused(void **state)
{
	static const char good[] = "{\"version\":1,\"index\":3,\"identity\":\"i\",\"pid\":9,"
				   "\"started\":7,\"boot\":\"b\",\"ports\":[1]}";
	static const char *const bad[] = {
		"",
		"[]",
		"{\"version\":2,\"index\":3,\"identity\":\"i\",\"pid\":9,\"started\":7,"
		"\"boot\":\"b\",\"ports\":[1]}",
		"{\"version\":1,\"index\":-2,\"identity\":\"i\",\"pid\":9,\"started\":7,"
		"\"boot\":\"b\",\"ports\":[1]}",
		"{\"version\":1,\"index\":3,\"identity\":\"i\",\"pid\":0,\"started\":7,"
		"\"boot\":\"b\",\"ports\":[1]}",
		"{\"version\":1,\"index\":3,\"identity\":\"i\",\"pid\":9,\"started\":7,"
		"\"boot\":\"b\",\"ports\":[0]}",
		"{\"version\":1,\"index\":3,\"identity\":\"i\",\"pid\":9,\"started\":7,"
		"\"boot\":\"0123456789012345678901234567890123456789\",\"ports\":[1]}",
		"{\"version\":1,\"index\":3,\"identity\":\"i\",\"pid\":9,\"started\":7,"
		"\"boot\":\"b\"}",
	};
	struct device_note n;
	char cut[sizeof(good)];

	(void)state;
	assert_int_equal(device_note_parse(good, &n), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(device_note_parse(bad[i], &n), -EBADMSG);
	for (size_t len = 0; len + 1 < sizeof(good); len++) {
		memcpy(cut, good, len);
		cut[len] = 0;
		assert_int_equal(device_note_parse(cut, &n), -EBADMSG);
	}
}

/* ---- names ---- */

static void only_the_name_of_a_whole_nbd_device_is_one(void **state)
{
	static const char *const others[] = {"/dev/nbd",
					     "nbd0",
					     "/dev/nbd0p1",
					     "/dev/nbd-1",
					     "/dev/nbd01",
					     "/dev/loop0",
					     "/dev/nbd 1",
					     "/dev/nbd1048576",
					     "/dev/nbd99999999",
					     "/dev/../nbd0",
					     ""};

	(void)state;
	assert_int_equal(kernel_device_index("/dev/nbd0"), 0);
	assert_int_equal(kernel_device_index("/dev/nbd17"), 17);
	assert_int_equal(kernel_device_index("/dev/nbd1048575"), 1048575);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		assert_int_equal(kernel_device_index(others[i]), -1);
}

/* ---- read-ahead ---- */

static void read_ahead_of_what_is_not_there_or_cannot_be_is_refused_by_name(void **state)
{
	struct err err = {0};
	uint64_t now = 77;

	(void)state;
	assert_int_equal(device_read_ahead("nbd9999999", UINT64_MAX, &now, &err), -ENOENT);
	assert_non_null(strstr(err.text, "nbd9999999"));
	assert_int_equal(device_read_ahead("nbd9999999", 1ULL << 40, &now, &err), -EINVAL);
	assert_non_null(strstr(err.text, "1099511627776"));
	assert_int_equal(now, 77);
}

static void read_ahead_of_a_device_is_told(void **state)
{
	struct err err = {0};
	uint64_t now = 77;
	char text[32];

	(void)state;
	if (sysfs_read("loop0", "queue/read_ahead_kb", text, sizeof(text)))
		skip();
	assert_int_equal(device_read_ahead("loop0", UINT64_MAX, &now, &err), 0);
	assert_true(now == strtoull(text, NULL, 10));
}

static void the_kernel_gives_a_read_more_time_than_the_worker_takes(void **state)
{
	(void)state;
	assert_int_equal(kernel_timeout_s(90, false), 100);
	assert_int_equal(kernel_dead_timeout_s(90, false), 100);
	/* one that waits is sent anew now and then, and never given up while a worker may come */
	assert_int_equal(kernel_timeout_s(90, true), 600);
	assert_int_equal(kernel_timeout_s(3600, true), 3610);
	assert_int_equal(kernel_dead_timeout_s(90, true), 86400);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_end_is_connected_to_its_own_other),
		cmocka_unit_test(
			an_end_does_not_wait_for_more_and_the_next_program_does_not_get_it),
		cmocka_unit_test(a_closed_end_is_seen_at_the_other_and_a_live_one_is_not),
		cmocka_unit_test(without_descriptors_nothing_stays_open_and_the_remedy_is_named),
		cmocka_unit_test(a_dead_link_is_dropped_and_a_cut_is_seen_at_both_ends),
		cmocka_unit_test(fresh_links_are_the_last_ones),
		cmocka_unit_test(connections_that_nobody_reads_are_counted),
		cmocka_unit_test(a_connection_that_ended_has_no_reader),
		cmocka_unit_test(a_socket_is_the_kernels_once_it_has_its_timeout),
		cmocka_unit_test(a_note_comes_back_as_it_was_written),
		cmocka_unit_test(its_writer_lives_until_pid_start_or_boot_is_anothers),
		cmocka_unit_test(a_damaged_note_is_refused),
		cmocka_unit_test(only_the_name_of_a_whole_nbd_device_is_one),
		cmocka_unit_test(read_ahead_of_what_is_not_there_or_cannot_be_is_refused_by_name),
		cmocka_unit_test(read_ahead_of_a_device_is_told),
		cmocka_unit_test(the_kernel_gives_a_read_more_time_than_the_worker_takes),
	};

	return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
