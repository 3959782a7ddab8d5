/* SPDX-License-Identifier: Apache-2.0 */
/* Workers that crash for real: children of this test, which then reads what they left. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "crash/doing.h"
#include "crash/record.h"

static struct crash_record *rec;
static int fd;
static char *forbidden; /* a page */

static int setup(void **state)
{
	struct err err;

	(void)state;
	fd = crash_record_new(&rec, &err);
	forbidden = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return fd < 0 || forbidden == MAP_FAILED;
}

static int teardown(void **state)
{
	(void)state;
	munmap(forbidden, 4096);
	crash_record_unmap(rec);
	return close(fd);
}

static struct crash_subject subject;

/* Run @fn in a worker until it dies; what the supervisor then notes. True: it made a poison. */
static bool worker_dies(void (*fn)(void), struct crash_death *d)
{
	struct crash_end e = {.time_ms = 1};
	pid_t pid = fork();

	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){0});
		alarm(60);
		if (crash_begin(fd))
			_exit(99);
		crash_subject_init(&subject, "data", "image-aa");
		fn();
		_exit(98);
	}
	assert_int_equal(waitpid(pid, &e.status, 0), pid);
	e.pid = pid;
	return crash_record_end(rec, &e, d);
}

static void touch_forbidden(void)
{
	*(volatile char *)(forbidden + 16) = 1;
}

static void crash_in_a_read(void)
{
	log_set_level(LOG_INFO_);
	log_info("test", "the last words", "%s", "sig=REDACTED");
	crash_enter(CRASH_READ, &subject, 8192, 512);
	touch_forbidden();
}

static void a_crash_tells_of_its_thread_its_request_and_its_last_words(void **state)
{
	static struct crash_death_view v[CRASH_DEATHS];
	struct crash_death d;

	(void)state;
	assert_false(worker_dies(crash_in_a_read, &d));
	assert_int_equal(d.cause, CRASH_SEGV);
	assert_true(d.has_address);
	assert_int_equal(d.address, (uintptr_t)forbidden + 16);
	assert_false(d.from_outside);
	assert_int_equal(d.doing.what, CRASH_READ);
	assert_int_equal(d.doing.off, 8192);
	assert_int_equal(d.doing.len, 512);
	assert_string_equal(d.doing.export_name, "data");
	assert_string_equal(d.doing.identity, "image-aa");
	assert_string_equal(d.build, CAIRN_VERSION);
	assert_true(d.nframes > 0);
	assert_true(d.base && d.base < d.base_end);
	assert_int_equal(crash_record_deaths(rec, v), 1);
	assert_int_equal(crash_log_lines(&v[0].log), 1);
	assert_non_null(strstr(crash_log_line(&v[0].log, 0), "msg=\"the last words\""));
}

static void frames_name_the_program(void **state)
{
	bool found = false;
	struct crash_death d;

	(void)state;
	worker_dies(crash_in_a_read, &d);
	for (unsigned i = 0; i < d.nframes; i++)
		found = found || (d.frame[i] >= d.base && d.frame[i] < d.base_end);
	assert_true(found);
}

static void *in_a_thread(void *fn)
{
	prctl(PR_SET_NAME, "data-7");
	((void (*)(void))fn)();
	return NULL;
}

/* As data threads are: with all signals blocked. */
static void in_a_blocked_thread(void (*fn)(void))
{
	sigset_t all;
	pthread_t t;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	crash_enter(CRASH_READ, &subject, 1, 1); /* this one's is not the one that counts */
	pthread_create(&t, NULL, in_a_thread, (void *)fn);
	pthread_join(t, NULL);
}

static void crash_in_a_thread(void)
{
	in_a_blocked_thread(crash_in_a_read);
}

static void a_thread_that_blocks_all_signals_tells_too(void **state)
{
	struct crash_death d;

	(void)state;
	worker_dies(crash_in_a_thread, &d);
	assert_int_equal(d.cause, CRASH_SEGV);
	assert_string_equal(d.thread, "data-7");
	assert_int_equal(d.doing.off, 8192);
}

static int deeper(volatile int n)
{
	volatile char room[4096];

	room[0] = (char)n;
	return n < 0 ? 0 : deeper(n + 1) + room[0];
}

static void fall(void)
{
	crash_enter(CRASH_FILL, &subject, 4 << 20, 4 << 20);
	_exit(deeper(0));
}

static void overflow_in_a_thread(void)
{
	in_a_blocked_thread(fall);
}

static void a_stack_that_overflowed_is_told_of(void **state)
{
	struct crash_death d;

	(void)state;
	worker_dies(overflow_in_a_thread, &d);
	assert_int_equal(d.cause, CRASH_SEGV);
	assert_int_equal(d.doing.what, CRASH_FILL);
}

static void give_up(void)
{
	crash_enter(CRASH_READ, &subject, 8192, 512);
	crash_leave(true);
	abort();
}

static void what_was_left_is_not_blamed(void **state)
{
	struct crash_death d;

	(void)state;
	worker_dies(give_up, &d);
	assert_int_equal(d.cause, CRASH_ABORT);
	assert_false(d.has_address);
	assert_false(d.from_outside);
	assert_int_equal(d.doing.what, CRASH_IDLE);
}

static void killed_by_a_child(void)
{
	pid_t me = getpid();

	crash_enter(CRASH_READ, &subject, 8192, 512);
	if (fork() == 0) {
		kill(me, SIGSEGV);
		_exit(0);
	}
	for (;;)
		pause();
}

static void a_signal_that_another_process_sent_is_told_as_such(void **state)
{
	struct crash_death d;

	(void)state;
	worker_dies(killed_by_a_child, &d);
	assert_int_equal(d.cause, CRASH_SEGV);
	assert_true(d.from_outside);
	assert_false(d.has_address);
	assert_false(worker_dies(killed_by_a_child, &d));
}

static void the_inner_of_two_does_not_end_the_outer(void **state)
{
	bool outer, inner;

	(void)state;
	crash_subject_init(&subject, "x", "image-bb");
	outer = crash_enter(CRASH_FILL, &subject, 1, 2);
	inner = crash_enter(CRASH_READ, &subject, 3, 4);
	assert_true(outer);
	assert_false(inner);
	crash_leave(inner);
	assert_int_equal(crash_doing_mine->what, CRASH_FILL);
	assert_int_equal(crash_turn_to(CRASH_RECHECK), CRASH_FILL);
	assert_int_equal(crash_doing_mine->off, 1);
	crash_leave(outer);
	assert_int_equal(crash_doing_mine->what, CRASH_IDLE);
	assert_int_equal(crash_turn_to(CRASH_FILL), CRASH_IDLE);
	assert_int_equal(crash_doing_mine->what, CRASH_IDLE);
}

/* ---- what is refused ---- */

static void refuse(void)
{
	struct crash_subject other;
	int rc = 0;

	crash_subject_init(&other, "other", "image-ab");
	rc |= !crash_is_refused(&subject, CRASH_READ, 8192, 512);
	rc |= !crash_is_refused(&subject, CRASH_READ, 8192, 512) << 1;
	rc |= crash_is_refused(&subject, CRASH_READ, 8192, 1024) << 2;
	rc |= crash_is_refused(&subject, CRASH_FILL, 8192, 512) << 3;
	rc |= crash_is_refused(&other, CRASH_READ, 8192, 512) << 4;
	rc |= !crash_is_poison(&subject, CRASH_READ, 8192, 512) << 5;
	crash_clear();
	rc |= crash_is_refused(&subject, CRASH_READ, 8192, 512) << 6;
	_exit(rc);
}

static void a_request_that_killed_two_is_refused_by_the_third(void **state)
{
	struct crash_death d;

	(void)state;
	assert_false(worker_dies(crash_in_a_read, &d));
	assert_true(worker_dies(crash_in_a_read, &d));
	worker_dies(refuse, &d);
	assert_int_equal(d.cause, CRASH_EXIT);
	assert_int_equal(d.status, 0);
	assert_int_equal(rec->poison[0].refused, 2);
}

static void hope(void)
{
	_exit(crash_is_hopeless(&subject, CRASH_READ, 8192, 512));
}

static void a_reply_that_began_is_given_up_after_four_deaths(void **state)
{
	struct crash_death d;

	(void)state;
	for (int i = 1; i <= 4; i++) {
		worker_dies(crash_in_a_read, &d);
		worker_dies(hope, &d);
		assert_int_equal(d.cause, CRASH_EXIT);
		assert_int_equal(d.status, i == 4);
	}
}

static void refuse_nothing(void)
{
	_exit(subject.has_poison || crash_is_refused(&subject, CRASH_READ, 8192, 512));
}

static void one_death_refuses_nothing(void **state)
{
	struct crash_death d;

	(void)state;
	worker_dies(crash_in_a_read, &d);
	worker_dies(refuse_nothing, &d);
	assert_int_equal(d.status, 0);
}

/* ---- areas and threads ---- */

/* The exit status of a child that calls @fn. */
static int child_exits(int (*fn)(void))
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0)
		_exit(fn());
	waitpid(pid, &status, 0);
	return WEXITSTATUS(status);
}

static int third_begins(void)
{
	return crash_begin(fd) == -EBUSY ? 7 : 1;
}

static int second_begins(void)
{
	return crash_begin(fd) ? 2 : child_exits(third_begins);
}

static void begin_twice_more(void)
{
	_exit(child_exits(second_begins));
}

static void two_workers_keep_apart_and_a_third_goes_without(void **state)
{
	struct crash_death d;

	(void)state;
	worker_dies(begin_twice_more, &d);
	assert_int_equal(d.status, 7);
}

static void *come_and_go(void *arg)
{
	(void)arg;
	crash_leave(crash_enter(CRASH_CONTROL, NULL, 0, 0));
	return NULL;
}

static void many_threads(void)
{
	unsigned used = 0;
	pthread_t t;

	for (int i = 0; i < 3 * CRASH_SLOTS; i++) {
		if (pthread_create(&t, NULL, come_and_go, NULL))
			_exit(1);
		pthread_join(t, NULL);
	}
	for (int i = 0; i < CRASH_SLOTS; i++)
		used += rec->area[0].slot[i].tid != 0;
	_exit(used == 1 ? 0 : 2); /* this thread's */
}

static void a_thread_that_ended_gives_its_slot_back(void **state)
{
	struct crash_death d;

	(void)state;
	worker_dies(many_threads, &d);
	assert_int_equal(d.status, 0);
}

static void *log_much(void *arg)
{
	for (int i = 0; i < 2000; i++)
		log_info("test", "line", "thread=%s i=%d", (const char *)arg, i);
	return NULL;
}

static void log_from_threads(void)
{
	pthread_t t[2];

	if (!freopen("/dev/null", "w", stderr))
		_exit(1);
	pthread_create(&t[0], NULL, log_much, "one");
	pthread_create(&t[1], NULL, log_much, "two");
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	_exit(0);
}

static void lines_of_many_threads_are_whole(void **state)
{
	static struct crash_death_view v[CRASH_DEATHS];
	struct crash_death d;

	(void)state;
	worker_dies(log_from_threads, &d);
	assert_int_equal(crash_record_deaths(rec, v), 1);
	assert_true(crash_log_lines(&v[0].log) >= CRASH_LINES - 2);
	for (unsigned i = 0; i < crash_log_lines(&v[0].log); i++) {
		const char *line = crash_log_line(&v[0].log, i);

		assert_memory_equal(line, "ts=", 3);
		assert_non_null(strstr(line, " i="));
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_crash_tells_of_its_thread_its_request_and_its_last_words),
		T(frames_name_the_program),
		T(a_thread_that_blocks_all_signals_tells_too),
		T(a_stack_that_overflowed_is_told_of),
		T(what_was_left_is_not_blamed),
		T(a_signal_that_another_process_sent_is_told_as_such),
		T(the_inner_of_two_does_not_end_the_outer),
		T(a_request_that_killed_two_is_refused_by_the_third),
		T(a_reply_that_began_is_given_up_after_four_deaths),
		T(one_death_refuses_nothing),
		T(two_workers_keep_apart_and_a_third_goes_without),
		T(a_thread_that_ended_gives_its_slot_back),
		T(lines_of_many_threads_are_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
