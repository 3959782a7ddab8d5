/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of reads that wait is bounded, and nobody waits for it in vain. */
#include "nbd_server_bed.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(miss_memory_bounds_what_is_in_flight),
		T(one_read_passes_however_little_memory_there_is),
		T(leaving_while_waiting_for_memory_is_clean),
		T(client_that_does_not_read_leaves_miss_memory_to_others),
		T(client_that_wakes_up_late_still_gets_all_its_replies),
		T(reads_in_flight_of_one_connection_are_bounded),
		T(a_read_that_stalls_leaves_its_memory_to_others_and_is_asked_for_again),
	};

	return run_on_each_loop("nbd_budget", tests, sizeof(tests) / sizeof(tests[0]));
}
