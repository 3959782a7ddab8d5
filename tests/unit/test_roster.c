/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "worker/roster.h"

#define SLOT (64 * MIB)

static int fd;
static struct slots_last last;
static struct roster_entry entries[3];

static int setup(void **state)
{
	(void)state;
	fd = memfd_create("roster", 0);
	memset(entries, 0, sizeof(entries));
	last = (struct slots_last){0};
	for (int i = 0; i < 3; i++) {
		snprintf(entries[i].url, sizeof(entries[i].url), "https://h/c/%d?sig=\"x\\y", i);
		snprintf(entries[i].name, sizeof(entries[i].name), "image %d", i);
	}
	strcpy(entries[1].device, "/dev/loop7");
	strcpy(entries[1].way, "nbdfuse");
	memset(entries[1].digest, 'a', sizeof(entries[1].digest) - 1);
	strcpy(entries[2].etag, "\"0x8D\"");
	entries[2].length = (1ULL << 60) + 1;
	strcpy(entries[1].on_deadline, "wait");
	entries[2].limit = 200000000;
	entries[0].store = 1ULL << 40;
	entries[2].keep = true;
	return fd < 0;
}

static int teardown(void **state)
{
	(void)state;
	return close(fd);
}

static int save(const struct roster_entry *e, size_t n)
{
	const char **texts = calloc(n + 1, sizeof(*texts));
	int rc;

	for (size_t i = 0; i < n; i++)
		assert_non_null(texts[i] = roster_text(&e[i]));
	rc = roster_save(fd, &last, texts, n);
	for (size_t i = 0; i < n; i++)
		free((char *)texts[i]);
	free(texts);
	return rc;
}

static void holds(size_t n)
{
	struct roster_entry *e = NULL;
	struct err err = {0};
	size_t got = 99;

	assert_int_equal(roster_load(fd, &e, &got, &err), 0);
	assert_int_equal(got, n);
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(e[i].url, entries[i].url);
		assert_string_equal(e[i].name, entries[i].name);
		assert_string_equal(e[i].device, entries[i].device);
		assert_string_equal(e[i].way, entries[i].way);
		assert_string_equal(e[i].digest, entries[i].digest);
		assert_string_equal(e[i].etag, entries[i].etag);
		assert_true(e[i].length == entries[i].length);
		assert_string_equal(e[i].on_deadline, entries[i].on_deadline);
		assert_int_equal(e[i].limit, entries[i].limit);
		assert_true(e[i].store == entries[i].store);
		assert_int_equal(e[i].keep, entries[i].keep);
	}
	free(e);
}

static void flip(uint64_t at)
{
	uint8_t b;

	assert_int_equal(pread_all(fd, &b, 1, at), 0);
	b ^= 0x40;
	assert_int_equal(pwrite_all(fd, &b, 1, at), 0);
}

static void a_memfd_never_written_is_an_empty_roster(void **state)
{
	(void)state;
	holds(0);
}

static void what_was_saved_last_is_loaded(void **state)
{
	(void)state;
	for (size_t n = 0; n < 20; n++) {
		assert_int_equal(save(entries, n % 4), 0);
		holds(n % 4);
	}
}

static void a_torn_write_leaves_the_roster_before_it(void **state)
{
	(void)state;
	assert_int_equal(save(entries, 2), 0); /* slot 0 */
	assert_int_equal(save(entries, 3), 0); /* slot 1 */
	flip(SLOT + 64 + 10);		       /* in slot 1's JSON */
	holds(2);
	last.is_known = false;		       /* who tore it is dead */
	assert_int_equal(save(entries, 1), 0); /* over the torn slot */
	holds(1);
	flip(SLOT + 20); /* in its header */
	holds(2);
}

static void a_writer_that_knows_nothing_goes_on_after_the_last_save(void **state)
{
	(void)state;
	for (size_t n = 0; n < 9; n++) {
		if (n % 3 == 2)
			last.is_known = false; /* another writer, in the next worker */
		assert_int_equal(save(entries, n % 4), 0);
		holds(n % 4);
	}
}

static void a_roster_with_no_valid_slot_says_so(void **state)
{
	struct roster_entry *e = (void *)1;
	struct err err = {0};
	size_t n = 5;

	(void)state;
	assert_int_equal(save(entries, 2), 0);
	flip(70);
	assert_int_equal(roster_load(fd, &e, &n, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "damaged"));
	assert_true(e == (void *)1 && n == 5);
	assert_int_equal(save(entries, 2), 0);
	holds(2);
}

static void a_length_beyond_the_slot_is_not_believed(void **state)
{
	uint64_t len = UINT64_MAX;
	struct roster_entry *e;
	struct err err;
	size_t n;

	(void)state;
	assert_int_equal(save(entries, 2), 0);
	assert_int_equal(pwrite_all(fd, &len, 8, 24), 0);
	assert_int_equal(roster_load(fd, &e, &n, &err), -EBADMSG);
}

static void thousands_of_exports_fit(void **state)
{
	struct roster_entry *many = calloc(5000, sizeof(*many)), *e;
	struct err err;
	size_t n;

	(void)state;
	for (int i = 0; i < 5000; i++) {
		memset(many[i].url, 'u', sizeof(many[i].url) - 1);
		snprintf(many[i].name, sizeof(many[i].name), "%d", i);
	}
	assert_int_equal(save(many, 5000), 0);
	assert_int_equal(roster_load(fd, &e, &n, &err), 0);
	assert_int_equal(n, 5000);
	assert_string_equal(e[4999].name, "4999");
	free(e);
	free(many);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_memfd_never_written_is_an_empty_roster, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_was_saved_last_is_loaded, setup, teardown),
		cmocka_unit_test_setup_teardown(a_torn_write_leaves_the_roster_before_it, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			a_writer_that_knows_nothing_goes_on_after_the_last_save, setup, teardown),
		cmocka_unit_test_setup_teardown(a_roster_with_no_valid_slot_says_so, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_length_beyond_the_slot_is_not_believed, setup,
						teardown),
		cmocka_unit_test_setup_teardown(thousands_of_exports_fit, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
