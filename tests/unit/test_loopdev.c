/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>

#include "nbd/attach/loopdev.h"

#define LENGTH	 8192
#define NO_INDEX 1 /* none of these gets as far as the device */

struct bed {
	char dir[64], path[96];
};

static int bed_new(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	scratch_new(b->dir);
	snprintf(b->path, sizeof(b->path), "%s/data", b->dir);
	close(open(b->path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(truncate(b->path, LENGTH), 0);
	*state = b;
	return 0;
}

static int bed_free(void **state)
{
	struct bed *b = *state;

	scratch_free(b->dir);
	free(b);
	return 0;
}

static void is_refused(struct bed *b, int fd, uint64_t size, const char *folder)
{
	struct attach_file file = {0};
	struct err err = {0};

	(void)b;
	assert_true(fd >= 0);
	assert_int_equal(loopdev_promote(NO_INDEX, fd, size, folder, &file, &err), -EINVAL);
	assert_int_equal(file.ino, 0);
	close(fd);
}

static void a_file_of_another_length_is_refused(void **state)
{
	struct bed *b = *state;

	is_refused(b, open(b->path, O_RDONLY), LENGTH + 4096, b->dir);
}

static void a_file_that_the_worker_could_write_through_is_refused(void **state)
{
	struct bed *b = *state;

	is_refused(b, open(b->path, O_RDWR), LENGTH, b->dir);
	is_refused(b, open(b->path, O_WRONLY), LENGTH, b->dir);
}

static void a_name_that_the_worker_could_not_open_is_refused(void **state)
{
	struct bed *b = *state;

	is_refused(b, open(b->path, O_PATH), LENGTH, b->dir);
}

static void what_is_no_regular_file_is_refused(void **state)
{
	struct bed *b = *state;
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	close(ends[1]);
	is_refused(b, ends[0], 0, b->dir);
	is_refused(b, open(b->dir, O_RDONLY | O_DIRECTORY), 4096, b->dir);
	is_refused(b, open("/dev/null", O_RDONLY), 0, "/dev");
}

static void a_file_of_another_file_system_is_refused(void **state)
{
	struct bed *b = *state;

	is_refused(b, open(b->path, O_RDONLY), LENGTH, "/proc");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, bed_new, bed_free)
	const struct CMUnitTest tests[] = {
		T(a_file_of_another_length_is_refused),
		T(a_file_that_the_worker_could_write_through_is_refused),
		T(a_name_that_the_worker_could_not_open_is_refused),
		T(what_is_no_regular_file_is_refused),
		T(a_file_of_another_file_system_is_refused),
	};

	return cmocka_run_group_tests_name("loopdev", tests, NULL, NULL);
}
