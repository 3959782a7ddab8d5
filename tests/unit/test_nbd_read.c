/* SPDX-License-Identifier: Apache-2.0 */
/* Reads bring their bytes, each its own, whatever of them is resident and whoever leaves. */
#include "nbd_server_bed.h"

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

/* Long batches, one after another: replies leave before all are made. */
static void batches_of_a_lone_connection_bring_their_bytes(void **state)
{
	enum { BATCHES = 100, N = 32 };
	struct nbd_wire_request asked[N];
	int fd = open_export("one");
	uint32_t seed = 5;
	uint64_t cookie;

	(void)state;
	for (int batch = 0; batch < BATCHES; batch++) {
		atomic_store(&exports[0].residence, batch % 4 == 3 ? ODD_BLOCKS : ALL);
		for (uint32_t i = 0; i < N; i++)
			asked[i] = request(NBD_CMD_READ, 0, (uint64_t)rand_r(&seed) % (SIZE - 9000),
					   0, i % 8 ? 4096 : 9000);
		for (uint32_t i = 0; i < N; i++) /* the cookie says where from and how much */
			asked[i].off = htobe64(asked[i].cookie);
		for (uint32_t i = 0; i < N; i++)
			asked[i].cookie |= (uint64_t)be32toh(asked[i].len) << 32;
		give(fd, asked, sizeof(asked));
		for (uint32_t i = 0; i < N; i++) {
			assert_int_equal(hear(fd, &cookie), NBD_OK);
			hear_data(fd, cookie & UINT32_MAX, (uint32_t)(cookie >> 32));
		}
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
	const struct CMUnitTest tests[] = {
		T(resident_reads_bring_their_bytes),
		T(missing_reads_bring_their_bytes),
		T(latency_is_noted_for_each_resident_read_and_for_no_miss),
		T(structured_reads_bring_their_bytes),
		T(pipelined_reads_come_each_with_its_own_bytes),
		T(batches_of_a_lone_connection_bring_their_bytes),
		T(failed_miss_is_an_error_and_the_connection_lives),
		T(body_whose_rest_was_evicted_is_fetched_again),
		T(body_that_cannot_be_completed_closes_and_is_never_padded),
		T(client_that_leaves_with_reads_in_flight_leaks_nothing),
		T(client_that_leaves_in_the_middle_of_a_reply_hurts_nobody),
		T(many_clients_at_once_get_what_they_ask),
	};

	return run_on_each_loop("nbd_read", tests, sizeof(tests) / sizeof(tests[0]));
}
