/* SPDX-License-Identifier: Apache-2.0 */
/* What a ring of ours may do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/ring.h"

static int setup(void **state)
{
	struct io_uring *ring = calloc(1, sizeof(*ring));
	struct err err = {0};

	if (ring_open(ring, 8, 16, &err) < 0) {
		print_message("skipped: %s\n", err.text);
		free(ring);
		ring = NULL;
	}
	*state = ring;
	return 0;
}

static int teardown(void **state)
{
	if (*state)
		io_uring_queue_exit(*state);
	free(*state);
	return 0;
}

static int result_of_nop(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	int res;

	io_uring_prep_nop(io_uring_get_sqe(ring));
	assert_int_equal(io_uring_submit_and_wait(ring, 1), 1);
	assert_int_equal(io_uring_peek_cqe(ring, &cqe), 0);
	res = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return res;
}

static void operations_that_the_loop_has_no_use_for_are_refused(void **state)
{
	struct io_uring *ring = *state;

	if (!ring)
		skip();
	assert_int_equal(ring_enable(ring), 0);
	assert_int_equal(result_of_nop(ring), -EACCES);
}

static void registrations_are_refused(void **state)
{
	struct io_uring *ring = *state;
	int fd = 0;

	if (!ring)
		skip();
	assert_int_equal(ring_enable(ring), 0);
	assert_int_equal(io_uring_register_files(ring, &fd, 1), -EACCES);
}

static void ring_does_nothing_before_it_is_enabled(void **state)
{
	struct io_uring *ring = *state;

	if (!ring)
		skip();
	io_uring_prep_nop(io_uring_get_sqe(ring));
	assert_int_equal(io_uring_submit(ring), -EBADFD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(operations_that_the_loop_has_no_use_for_are_refused,
						setup, teardown),
		cmocka_unit_test_setup_teardown(registrations_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(ring_does_nothing_before_it_is_enabled, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
