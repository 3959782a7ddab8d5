/* SPDX-License-Identifier: Apache-2.0 */
/* What is tuned, what is in force and where from, on a fake view and a fake supervisor. */
#include "check.h"

#include "fake_view.h"
#include "observe/cgroup.h"
#include "observe/policy_file.h"
#include "observe/tuner.h"

static char dir[64];
static struct tuner *tuner;
static struct err err;
static const struct tuner_device one = {"one", "sha256:11", 0};
static const struct tuner_device two = {"two", "sha256:22", 1};

int privileged_read_ahead(int fd, const char *export_name, uint64_t kb, uint64_t *now,
			  struct err *e)
{
	(void)fd;
	(void)export_name;
	(void)e;
	return fake_read_ahead(kb, now);
}

static int set_up(void **state)
{
	(void)state;
	fake_view_reset();
	scratch_new(dir);
	tuner = tuner_new((struct view *)&fake, -1, dir);
	return tuner ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	tuner_free(tuner);
	scratch_free(dir);
	return 0;
}

/* The daemon stops and starts; the kernel's maps and devices are new. */
static void restart(void)
{
	bool off = fake.off;

	tuner_free(tuner);
	fake_view_reset();
	fake.off = off;
	tuner = tuner_new((struct view *)&fake, -1, dir);
	assert_non_null(tuner);
}

static struct tuning with(enum tune_key key, uint64_t value)
{
	struct tuning t = {.have = 1U << key};

	t.value[key] = value;
	return t;
}

static void in_force(const struct tuner_device *d, enum tune_key key, uint64_t value,
		     enum tuned_from from)
{
	struct tuned t;

	assert_int_equal(tuner_get(tuner, d, &t, &err), 0);
	assert_true(t.now.have >> key & 1);
	assert_int_equal(t.now.value[key], value);
	assert_int_equal(t.from[key], from);
}

static void a_key_is_in_force_at_once_and_says_where_from(void **state)
{
	struct tuning t = with(TUNE_HALF_LIFE, 5000);

	(void)state;
	tuner_attached(tuner, &one);
	in_force(&one, TUNE_HALF_LIFE, POLICY_HALF_LIFE_DEFAULT_MS, TUNED_DEFAULT);
	assert_int_equal(tuner_set(tuner, &one, &t, false, &err), 0);
	in_force(&one, TUNE_HALF_LIFE, 5000, TUNED_SET);
	in_force(&one, TUNE_MIN_RUN, POLICY_MIN_RUN_DEFAULT, TUNED_DEFAULT);
	assert_int_equal(fake.policy[0].half_life_ms, 5000);
	assert_int_equal(tuner_set(tuner, &one, &t, true, &err), 0);
	in_force(&one, TUNE_HALF_LIFE, 5000, TUNED_SAVED);
}

static void what_was_saved_comes_back_with_the_image_and_no_other(void **state)
{
	struct tuning t = with(TUNE_ENABLE, 0), u = with(TUNE_MIN_RUN, 9);

	(void)state;
	tuner_attached(tuner, &one);
	assert_int_equal(tuner_set(tuner, &one, &t, true, &err), 0);
	assert_int_equal(tuner_set(tuner, &one, &u, false, &err), 0);
	restart();
	tuner_attached(tuner, &two);
	tuner_attached(tuner, &one);
	in_force(&one, TUNE_ENABLE, 0, TUNED_SAVED);
	in_force(&one, TUNE_MIN_RUN, POLICY_MIN_RUN_DEFAULT, TUNED_DEFAULT);
	in_force(&two, TUNE_ENABLE, 1, TUNED_DEFAULT);
}

static void default_takes_back_what_was_saved_too(void **state)
{
	struct tuning t = with(TUNE_MIN_RUN, 9), reset = {.reset = 1 << TUNE_MIN_RUN};

	(void)state;
	tuner_attached(tuner, &one);
	assert_int_equal(tuner_set(tuner, &one, &t, true, &err), 0);
	assert_int_equal(tuner_set(tuner, &one, &reset, true, &err), 0);
	in_force(&one, TUNE_MIN_RUN, POLICY_MIN_RUN_DEFAULT, TUNED_DEFAULT);
	restart();
	tuner_attached(tuner, &one);
	in_force(&one, TUNE_MIN_RUN, POLICY_MIN_RUN_DEFAULT, TUNED_DEFAULT);
}

static void readahead_is_set_saved_and_given_back(void **state)
{
	struct tuning t = with(TUNE_READ_AHEAD_KB, 4096),
		      reset = {.reset = 1 << TUNE_READ_AHEAD_KB};

	(void)state;
	tuner_attached(tuner, &one);
	in_force(&one, TUNE_READ_AHEAD_KB, 128, TUNED_DEFAULT);
	assert_int_equal(tuner_set(tuner, &one, &t, false, &err), 0);
	in_force(&one, TUNE_READ_AHEAD_KB, 4096, TUNED_SET);
	t = with(TUNE_READ_AHEAD_KB, 1024);
	assert_int_equal(tuner_set(tuner, &one, &t, true, &err), 0);
	in_force(&one, TUNE_READ_AHEAD_KB, 1024, TUNED_SAVED);
	assert_int_equal(tuner_set(tuner, &one, &reset, false, &err), 0);
	in_force(&one, TUNE_READ_AHEAD_KB, 128, TUNED_DEFAULT);
	restart();
	tuner_attached(tuner, &one);
	in_force(&one, TUNE_READ_AHEAD_KB, 1024, TUNED_SAVED);
}

static void readahead_that_the_kernel_cuts_is_said(void **state)
{
	struct tuning t = with(TUNE_READ_AHEAD_KB, 4096);

	(void)state;
	fake.read_ahead_max = 512;
	tuner_attached(tuner, &one);
	assert_int_equal(tuner_set(tuner, &one, &t, true, &err), -EINVAL);
	assert_non_null(strstr(err.text, "the kernel made 512 of it"));
	restart();
	tuner_attached(tuner, &one);
	in_force(&one, TUNE_READ_AHEAD_KB, 128, TUNED_DEFAULT);
}

static void without_an_observer_readahead_is_all_there_is(void **state)
{
	struct tuning t = with(TUNE_READ_AHEAD_KB, 4096), u = with(TUNE_MIN_RUN, 9);
	struct tuned now;

	struct tuner_device blind = {one.export_name, one.image, -ENOTSUP};

	(void)state;
	fake.off = true;
	tuner_attached(tuner, &blind);
	assert_int_equal(tuner_set(tuner, &blind, &u, true, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "off: this kernel has no BTF"));
	assert_int_equal(tuner_set(tuner, &blind, &t, true, &err), 0);
	in_force(&blind, TUNE_READ_AHEAD_KB, 4096, TUNED_SAVED);
	assert_int_equal(tuner_get(tuner, &blind, &now, &err), 0);
	assert_int_equal(now.now.have, 1 << TUNE_READ_AHEAD_KB);
	tuner_detached(tuner, "one");
}

static void what_was_tuned_outlives_a_worker(void **state)
{
	struct tuning saved = with(TUNE_MIN_RUN, 9), t = with(TUNE_MIN_RUN, 7);

	(void)state;
	tuner_attached(tuner, &one);
	assert_int_equal(tuner_set(tuner, &one, &saved, true, &err), 0);
	assert_int_equal(tuner_set(tuner, &one, &t, false, &err), 0);
	tuner_free(tuner); /* the maps stay */
	tuner = tuner_new((struct view *)&fake, -1, dir);
	tuner_attached(tuner, &one);
	in_force(&one, TUNE_MIN_RUN, 7, TUNED_SET);
}

static void a_device_beyond_the_slots_is_said_not_to_be_watched(void **state)
{
	const struct tuner_device three = {"three", "sha256:33", -ENOSPC};
	struct tuning t = with(TUNE_MIN_RUN, 9);
	struct tuned now;

	(void)state;
	tuner_attached(tuner, &three);
	assert_int_equal(tuner_get(tuner, &three, &now, &err), 0);
	assert_int_equal(tuner_set(tuner, &three, &t, false, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "'three' is not watched: No space"));
}

/* ---- cgroups by path ---- */

static const char *mountinfo(const char *lines)
{
	static char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/mountinfo", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(lines, f);
	fclose(f);
	return path;
}

static void refused(const char *table, const char *path, int code, const char *why)
{
	uint64_t id;

	assert_int_equal(cgroup_find(mountinfo(table), path, &id, &err), code);
	if (!strstr(err.text, why))
		fail_msg("%s: '%s' does not hold '%s'", path, err.text, why);
}

#define V1  "32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu\n"
#define V2  "41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw\n"
#define DEV "50 31 7:0 / /mnt/data ro - erofs /dev/loop0 ro\n"
#define TOP "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"

static void only_folders_of_cgroup2_are_cgroups(void **state)
{
	(void)state;
	refused(TOP V1 V2, "/cg/cpu/job", -EINVAL, "version 1");
	refused(TOP V1 V2, "/cg/cpu/job", -EINVAL, "under /cg/unified");
	refused(TOP V1, "/cg/cpu", -EINVAL, "cgroup2 is not mounted here");
	refused(TOP V2, "/cg/unified-not", -EINVAL, "is no cgroup");
	refused(TOP V2, "relative", -EINVAL, "no absolute path");
	refused(TOP V2, "/cg/unified/../../mnt", -EINVAL, "no absolute path");
	refused(TOP V2, "/cg/unified/job", -ENOENT, "there is no cgroup /cg/unified/job");
}

static void a_path_on_a_device_of_ours_is_refused_by_its_name_alone(void **state)
{
	(void)state;
	refused(TOP V2 DEV, "/mnt/data/x", -EINVAL, "is no cgroup");
	/* mounted over a cgroup */
	refused(TOP V2 "51 31 7:0 / /cg/unified/a ro - erofs /dev/loop0 ro\n", "/cg/unified/a/b",
		-EINVAL, "is no cgroup");
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_key_is_in_force_at_once_and_says_where_from),
		T(what_was_saved_comes_back_with_the_image_and_no_other),
		T(default_takes_back_what_was_saved_too),
		T(readahead_is_set_saved_and_given_back),
		T(readahead_that_the_kernel_cuts_is_said),
		T(without_an_observer_readahead_is_all_there_is),
		T(what_was_tuned_outlives_a_worker),
		T(a_device_beyond_the_slots_is_said_not_to_be_watched),
		T(only_folders_of_cgroup2_are_cgroups),
		T(a_path_on_a_device_of_ours_is_refused_by_its_name_alone),
	};

	return cmocka_run_group_tests_name("tuner", tests, NULL, NULL);
}
