/* SPDX-License-Identifier: Apache-2.0 */
/* The record as the supervisor writes it, from areas that a worker left in any state. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "crash/record.h"

#define PID 4711

static struct crash_record *rec;
static int fd;

static int setup(void **state)
{
	struct err err;

	(void)state;
	fd = crash_record_new(&rec, &err);
	return fd < 0;
}

static int teardown(void **state)
{
	(void)state;
	crash_record_unmap(rec);
	return close(fd);
}

static struct crash_doing request(uint32_t what, const char *identity, uint64_t off, uint32_t len)
{
	struct crash_doing d = {.what = what, .off = off, .len = len};

	snprintf(d.export_name, sizeof(d.export_name), "data");
	snprintf(d.identity, sizeof(d.identity), "%s", identity);
	return d;
}

/* A worker's area, as its handler leaves it. */
static struct crash_area *area_of_death(int signo, struct crash_doing doing)
{
	struct crash_area *a = &rec->area[0];

	memset(a, 0, sizeof(*a));
	a->pid = PID;
	a->death.signal = signo;
	a->death.doing = doing;
	a->state = CRASH_TOLD;
	return a;
}

/* True when it was the one too many. */
static bool dies(int signo, struct crash_doing doing)
{
	struct crash_end e = {.pid = PID, .status = signo, .time_ms = 1000, .ran_ms = 50};

	area_of_death(signo, doing);
	return crash_record_end(rec, &e, NULL);
}

static size_t poisons(void)
{
	struct crash_poison p[CRASH_POISONS];

	return crash_record_poisons(rec, p);
}

/* ---- the file ---- */

static void a_record_of_another_version_or_length_is_not_mapped(void **state)
{
	int other = memfd_create("other", 0);
	struct crash_record *r;

	(void)state;
	assert_int_equal(crash_record_map(other, &r), -EPROTO);
	assert_int_equal(ftruncate(other, sizeof(*r)), 0);
	assert_int_equal(crash_record_map(other, &r), -EPROTO);
	close(other);
	assert_int_equal(crash_record_map(fd, &r), 0);
	crash_record_unmap(r);
	rec->version++;
	assert_int_equal(crash_record_map(fd, &r), -EPROTO);
}

static void a_worker_cannot_cut_the_record_short(void **state)
{
	(void)state;
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(ftruncate(fd, 1 << 30), -1);
}

/* ---- deaths ---- */

static void a_death_tells_how_and_at_what(void **state)
{
	struct crash_end e = {.pid = PID, .status = SIGSEGV | 0x80, .time_ms = 77, .ran_ms = 9};
	struct crash_area *a = area_of_death(SIGSEGV, request(CRASH_READ, "image-aa", 4096, 512));
	struct crash_death d;
	char text[256];

	(void)state;
	a->death.address = 0x10;
	a->death.nframes = 2;
	strcpy(a->death.thread, "nbd-1");
	strcpy(a->death.build, "1.2.3");
	assert_false(crash_record_end(rec, &e, &d));
	assert_int_equal(d.cause, CRASH_SEGV);
	assert_int_equal(d.signal, SIGSEGV);
	assert_int_equal(d.pid, PID);
	assert_int_equal(d.time_ms, 77);
	assert_int_equal(d.ran_ms, 9);
	assert_int_equal(d.address, 0x10);
	assert_int_equal(d.nframes, 2);
	assert_true(d.core);
	assert_string_equal(d.thread, "nbd-1");
	assert_string_equal(d.build, "1.2.3");
	crash_doing_text(&d.doing, text, sizeof(text));
	assert_string_equal(text, "read of 512 bytes at 4096 of data, image-aa");
	assert_int_equal(a->pid, 0);
	assert_int_equal(rec->by_cause[CRASH_SEGV], 1);
}

static uint32_t cause(int status, bool oom)
{
	struct crash_end e = {.pid = 1, .status = status, .oom = oom};
	struct crash_death d;

	crash_record_end(rec, &e, &d);
	return d.cause;
}

static void each_way_to_die_has_its_cause(void **state)
{
	(void)state;
	assert_int_equal(cause(SIGSEGV, false), CRASH_SEGV);
	assert_int_equal(cause(SIGBUS, false), CRASH_BUS);
	assert_int_equal(cause(SIGILL, false), CRASH_ILL);
	assert_int_equal(cause(SIGFPE, false), CRASH_FPE);
	assert_int_equal(cause(SIGABRT, true), CRASH_ABORT);
	assert_int_equal(cause(SIGKILL, false), CRASH_KILL);
	assert_int_equal(cause(SIGKILL, true), CRASH_OOM);
	assert_int_equal(cause(SIGTERM, false), CRASH_TERM);
	assert_int_equal(cause(SIGSYS, false), CRASH_SIGNAL);
	assert_int_equal(cause(3 << 8, true), CRASH_EXIT);
	assert_int_equal(rec->deaths, 10);
}

static void what_a_handler_told_of_another_signal_is_not_this_death(void **state)
{
	struct crash_end e = {.pid = PID, .status = SIGKILL};
	struct crash_death d;

	(void)state;
	area_of_death(SIGSEGV, request(CRASH_READ, "image-aa", 0, 512));
	crash_record_end(rec, &e, &d);
	assert_int_equal(d.cause, CRASH_KILL);
	assert_int_equal(d.doing.what, CRASH_IDLE);
}

static void a_death_that_was_told_in_part_is_not_believed(void **state)
{
	struct crash_end e = {.pid = PID, .status = SIGSEGV};
	struct crash_death d;

	(void)state;
	area_of_death(SIGSEGV, request(CRASH_READ, "image-aa", 0, 512))->state = CRASH_DYING;
	crash_record_end(rec, &e, &d);
	assert_int_equal(d.cause, CRASH_SEGV);
	assert_int_equal(d.doing.what, CRASH_IDLE);
}

static void of_a_worker_that_is_not_our_child_its_own_word_counts(void **state)
{
	struct crash_end e = {.pid = PID, .status = SIGKILL, .status_is_guess = true};
	struct crash_death d;

	(void)state;
	area_of_death(SIGBUS, request(CRASH_READ, "image-aa", 0, 512));
	crash_record_end(rec, &e, &d);
	assert_int_equal(d.cause, CRASH_BUS);
	assert_int_equal(d.doing.what, CRASH_READ);
	area_of_death(0x7f, request(CRASH_READ, "image-aa", 0, 512)); /* nonsense */
	crash_record_end(rec, &e, &d);
	assert_int_equal(d.cause, CRASH_KILL);
	area_of_death(SIGBUS, request(CRASH_READ, "image-aa", 0, 512))->state = CRASH_ALIVE;
	crash_record_end(rec, &e, &d);
	assert_int_equal(d.cause, CRASH_KILL);
	assert_true(crash_is_from_outside(&d));
}

static void the_last_eight_deaths_are_kept_the_newest_first(void **state)
{
	static struct crash_death_view v[CRASH_DEATHS];

	(void)state;
	assert_int_equal(crash_record_deaths(rec, v), 0);
	for (int i = 1; i <= 11; i++) {
		struct crash_end e = {.pid = i, .status = SIGKILL};

		crash_record_end(rec, &e, NULL);
	}
	assert_int_equal(crash_record_deaths(rec, v), CRASH_DEATHS);
	for (int i = 0; i < CRASH_DEATHS; i++)
		assert_int_equal(v[i].death.pid, 11 - i);
}

static void a_death_that_is_being_written_is_left_out(void **state)
{
	static struct crash_death_view v[CRASH_DEATHS];

	(void)state;
	for (int i = 1; i <= 3; i++)
		cause(SIGKILL, false);
	rec->death[2].seq = 0;
	assert_int_equal(crash_record_deaths(rec, v), 2);
	assert_int_equal(v[0].death.seq, 3);
	assert_int_equal(v[1].death.seq, 1);
}

static void nonsense_of_a_worker_gone_wrong_is_cut_to_what_may_be(void **state)
{
	static struct crash_death_view v[CRASH_DEATHS];
	struct crash_end e = {.pid = PID, .status = SIGSEGV};
	char text[1024];

	(void)state;
	memset(&rec->area[0], 0xff, sizeof(rec->area[0]));
	rec->area[0].pid = PID;
	rec->area[0].state = CRASH_TOLD;
	rec->area[0].death.signal = SIGSEGV;
	rec->area[0].log.next = 5;
	rec->area[0].log.line[3].seq = 4; /* of 2^32 - 1 bytes */
	memset(rec->poison, 0xff, sizeof(rec->poison));
	crash_record_end(rec, &e, NULL);
	assert_int_equal(crash_record_deaths(rec, v), 1);
	assert_int_equal(v[0].death.nframes, 0);
	assert_int_equal(v[0].death.doing.what, CRASH_IDLE);
	assert_true(strlen(v[0].death.thread) < CRASH_THREAD_LEN);
	assert_true(strlen(v[0].death.build) < CRASH_BUILD_LEN);
	assert_int_equal(crash_log_lines(&v[0].log), 0);
	assert_int_equal(poisons(), 0);
	memset(rec, 0xff, sizeof(*rec)); /* all of it */
	crash_record_deaths(rec, v);
	crash_doing_text(&v[0].death.doing, text, sizeof(text));
	assert_int_equal(poisons(), 0);
}

static void control_characters_are_shown_as_question_marks(void **state)
{
	struct crash_end e = {.pid = PID, .status = SIGSEGV};
	struct crash_area *a = area_of_death(SIGSEGV, request(CRASH_READ, "image-\033[2J", 0, 1));
	struct crash_death d;

	(void)state;
	strcpy(a->death.thread, "a\nb\x7f");
	crash_record_end(rec, &e, &d);
	assert_string_equal(d.thread, "a?b?");
	assert_string_equal(d.doing.identity, "image-?[2J");
}

/* ---- poison ---- */

static void the_second_death_of_one_request_makes_a_poison(void **state)
{
	struct crash_doing q = request(CRASH_READ, "image-aa", 4096, 512);
	struct crash_poison p[CRASH_POISONS];

	(void)state;
	assert_false(dies(SIGSEGV, q));
	assert_int_equal(poisons(), 0);
	assert_true(dies(SIGBUS, q));
	assert_int_equal(crash_record_poisons(rec, p), 1);
	assert_int_equal(p[0].cause, CRASH_BUS);
	assert_int_equal(p[0].doing.off, 4096);
	assert_string_equal(p[0].doing.identity, "image-aa");
	assert_int_equal(p[0].deaths, 2);
	assert_false(dies(SIGSEGV, q)); /* it stands already */
	assert_false(dies(SIGKILL, q));
	assert_int_equal(crash_record_poisons(rec, p), 1);
	assert_int_equal(p[0].deaths, 3);
}

static void deaths_between_do_not_make_a_request_innocent(void **state)
{
	struct crash_doing q = request(CRASH_READ, "image-aa", 4096, 512);

	(void)state;
	dies(SIGSEGV, q);
	for (int i = 0; i < 6; i++)
		dies(SIGKILL, q);
	assert_true(dies(SIGABRT, q));
}

static void other_ranges_and_other_images_are_other_requests(void **state)
{
	(void)state;
	assert_false(dies(SIGSEGV, request(CRASH_READ, "image-aa", 4096, 512)));
	assert_false(dies(SIGSEGV, request(CRASH_READ, "image-aa", 4096, 1024)));
	assert_false(dies(SIGSEGV, request(CRASH_READ, "image-aa", 8192, 512)));
	assert_false(dies(SIGSEGV, request(CRASH_READ, "image-ab", 4096, 512)));
	assert_false(dies(SIGSEGV, request(CRASH_FILL, "image-aa", 4096, 512)));
	assert_int_equal(poisons(), 0);
}

static void a_fill_and_a_recheck_of_an_extent_are_one(void **state)
{
	(void)state;
	assert_false(dies(SIGSEGV, request(CRASH_FILL, "image-aa", 0, 4 << 20)));
	assert_true(dies(SIGSEGV, request(CRASH_RECHECK, "image-aa", 0, 4 << 20)));
}

static void kills_from_outside_are_nobodys_fault(void **state)
{
	struct crash_doing q = request(CRASH_READ, "image-aa", 4096, 512);
	struct crash_end e = {.pid = PID, .status = SIGSEGV};

	(void)state;
	for (int i = 0; i < 10; i++) {
		assert_false(dies(SIGKILL, q));
		assert_false(dies(SIGTERM, q));
		area_of_death(SIGSEGV, q)->death.from_outside = 1;
		assert_false(crash_record_end(rec, &e, NULL));
	}
	assert_false(dies(SIGSEGV, q)); /* the first that counts */
	assert_int_equal(poisons(), 0);
}

static void what_is_no_read_and_no_fill_is_not_blamed(void **state)
{
	static const uint32_t others[] = {CRASH_IDLE, CRASH_CACHE, CRASH_STATUS, CRASH_HANDSHAKE,
					  CRASH_CONTROL};

	(void)state;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		assert_false(dies(SIGSEGV, request(others[i], "image-aa", 0, 512)));
		assert_false(dies(SIGSEGV, request(others[i], "image-aa", 0, 512)));
	}
	assert_false(dies(SIGSEGV, request(CRASH_CACHE, "image-aa", 9, 9)));
	assert_false(dies(SIGSEGV, request(CRASH_FILL, "image-aa", 9, 9)));
	assert_false(dies(SIGSEGV, request(CRASH_READ, "", 0, 512)));
	assert_false(dies(SIGSEGV, request(CRASH_READ, "", 0, 512)));
	assert_int_equal(poisons(), 0);
}

static void clearing_makes_the_next_death_the_first(void **state)
{
	struct crash_doing q = request(CRASH_READ, "image-aa", 4096, 512);

	(void)state;
	dies(SIGSEGV, q);
	dies(SIGSEGV, q);
	crash_record_clear(rec);
	assert_int_equal(poisons(), 0);
	assert_false(dies(SIGSEGV, q));
	assert_true(dies(SIGSEGV, q));
	assert_int_equal(poisons(), 1);
}

static void the_oldest_of_many_poisons_gives_way(void **state)
{
	struct crash_poison p[CRASH_POISONS];

	(void)state;
	for (unsigned i = 0; i <= CRASH_POISONS; i++) {
		dies(SIGSEGV, request(CRASH_READ, "image-aa", i * 512, 512));
		assert_true(dies(SIGSEGV, request(CRASH_READ, "image-aa", i * 512, 512)));
	}
	assert_int_equal(crash_record_poisons(rec, p), CRASH_POISONS);
	for (unsigned i = 0; i < CRASH_POISONS; i++)
		assert_int_not_equal(p[i].doing.off, 0);
}

/* ---- the log ---- */

static void log_put(struct crash_log *log, uint64_t n, const char *text)
{
	struct crash_line *l = &log->line[n % CRASH_LINES];

	strcpy(l->text, text);
	l->len = (uint32_t)strlen(text);
	l->seq = n + 1;
	log->next = n + 1;
}

static struct crash_death_view last;

static void die_with_the_log(void)
{
	static struct crash_death_view v[CRASH_DEATHS];
	struct crash_end e = {.pid = PID, .status = SIGKILL};

	crash_record_end(rec, &e, NULL);
	assert_int_equal(crash_record_deaths(rec, v), 1);
	last = v[0];
}

static void the_last_lines_are_kept_in_order_when_the_ring_wrapped(void **state)
{
	struct crash_area *a = area_of_death(SIGKILL, (struct crash_doing){0});
	char text[32];

	(void)state;
	for (uint64_t i = 0; i < 3 * CRASH_LINES + 5; i++) {
		snprintf(text, sizeof(text), "line %u", (unsigned)i);
		log_put(&a->log, i, text);
	}
	die_with_the_log();
	assert_int_equal(crash_log_lines(&last.log), CRASH_LINES);
	for (unsigned i = 0; i < CRASH_LINES; i++) {
		snprintf(text, sizeof(text), "line %u", 2 * CRASH_LINES + 5 + i);
		assert_string_equal(crash_log_line(&last.log, i), text);
	}
	assert_null(crash_log_line(&last.log, CRASH_LINES));
}

static void a_line_that_a_death_cut_off_is_left_out(void **state)
{
	struct crash_area *a = area_of_death(SIGKILL, (struct crash_doing){0});

	(void)state;
	log_put(&a->log, 0, "whole");
	log_put(&a->log, 1, "torn: half of the old");
	log_put(&a->log, 2, "whole, too");
	a->log.line[1].seq = 0;
	a->log.next = 4; /* taken, and not begun */
	die_with_the_log();
	assert_int_equal(crash_log_lines(&last.log), 2);
	assert_string_equal(crash_log_line(&last.log, 0), "whole");
	assert_string_equal(crash_log_line(&last.log, 1), "whole, too");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_record_of_another_version_or_length_is_not_mapped),
		T(a_worker_cannot_cut_the_record_short),
		T(a_death_tells_how_and_at_what),
		T(each_way_to_die_has_its_cause),
		T(what_a_handler_told_of_another_signal_is_not_this_death),
		T(a_death_that_was_told_in_part_is_not_believed),
		T(of_a_worker_that_is_not_our_child_its_own_word_counts),
		T(the_last_eight_deaths_are_kept_the_newest_first),
		T(a_death_that_is_being_written_is_left_out),
		T(nonsense_of_a_worker_gone_wrong_is_cut_to_what_may_be),
		T(control_characters_are_shown_as_question_marks),
		T(the_second_death_of_one_request_makes_a_poison),
		T(deaths_between_do_not_make_a_request_innocent),
		T(other_ranges_and_other_images_are_other_requests),
		T(a_fill_and_a_recheck_of_an_extent_are_one),
		T(kills_from_outside_are_nobodys_fault),
		T(what_is_no_read_and_no_fill_is_not_blamed),
		T(clearing_makes_the_next_death_the_first),
		T(the_oldest_of_many_poisons_gives_way),
		T(the_last_lines_are_kept_in_order_when_the_ring_wrapped),
		T(a_line_that_a_death_cut_off_is_left_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
