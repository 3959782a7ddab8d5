/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: how they begin and end, which requests are refused, and what a stop does. */
#include "nbd_server_bed.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(writes_are_refused_and_framing_is_kept),
		T(write_larger_than_any_payload_ends_the_connection),
		T(garbage_after_the_handshake_ends_the_connection),
		T(half_a_request_then_the_end_is_clean),
		T(disconnect_answers_what_is_under_way_first),
		T(connections_over_the_limit_are_told_so),
		T(sweep_closes_the_connections_of_closing_exports_only),
		T(stop_waits_for_reads_in_flight),
		T(stop_drops_clients_in_every_state),
		T(block_status_and_cache_reach_the_export),
		T(turns_are_announced),
		T(handshake_and_requests_may_come_byte_by_byte),
	};

	return run_on_each_loop("nbd_server", tests, sizeof(tests) / sizeof(tests[0]));
}
