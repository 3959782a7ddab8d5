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
#include <sys/socket.h>
#include <unistd.h>

#include "base/slots.h"
#include "supervisor/state.h"

/* As the first version wrote it. It stays as it is when the version grows. */
static const char version_1[] =
	"{\"version\":1,\"least\":1,\"boot\":\"8e1c5c2e-6f0e-4f5b-9f60-0a3f9b7f0f11\","
	"\"supervisor\":[700,"
	"81234],"
	"\"worker\":[712,81250],\"ready\":true,\"restarts\":3,\"takeovers\":2,\"pending\":41,"
	"\"control_socket\":\"/run/cairn/control.sock\",\"nbd_socket\":\"/run/cairn/nbd.sock\","
	"\"control\":[8,4001],\"nbd\":[8,4002],\"roster\":[24,17],\"crash\":[1,60],\"channel\":[8,"
	"4003],\"devices\":"
	"["
	"{\"name\":\"a/b\",\"way\":\"nbd\",\"identity\":\"sha256:00ff\",\"device\":\"/dev/nbd4\","
	"\"size\":1048576,\"wished\":-1,\"index\":4,\"queues\":2,\"generation\":0,\"dead\":false,"
	"\"owner\":700,\"helper\":[0,0],\"links\":[[8,5001],[8,5002]],\"ledgers\":[[1,61],[1,62]]},"
	"{\"name\":\"c\",\"way\":\"nbdfuse\",\"identity\":\"unsealed:c\",\"device\":\"/dev/loop0\","
	"\"size\":4096,\"wished\":-1,\"index\":0,\"queues\":0,\"generation\":7,\"dead\":true,"
	"\"owner\":0,\"helper\":[731,81300],\"links\":[],\"ledgers\":[]}]}";

static int parse(const char *json, struct state *out, struct err *err)
{
	/* exactly as long as the text: ASan sees a read behind it */
	size_t len = strlen(json);
	char *copy = malloc(len ? len : 1);
	int rc;

	memcpy(copy, json, len);
	rc = state_parse(copy, len, out, err);
	free(copy);
	return rc;
}

static void a_record_of_version_1_is_read(void **unused)
{
	struct state s;
	struct err err;

	(void)unused;
	assert_int_equal(parse(version_1, &s, &err), 0);
	assert_string_equal(s.boot, "8e1c5c2e-6f0e-4f5b-9f60-0a3f9b7f0f11");
	assert_int_equal(s.supervisor.pid, 700);
	assert_int_equal(s.worker.started, 81250);
	assert_true(s.ready);
	assert_int_equal(s.restarts, 3);
	assert_int_equal(s.takeovers, 2);
	assert_int_equal(s.pending, 41);
	assert_int_equal(s.nbd.ino, 4002);
	assert_int_equal(s.ndevices, 2);
	assert_string_equal(s.devices[0].name, "a/b");
	assert_int_equal(s.devices[0].index, 4);
	assert_int_equal(s.devices[0].nlinks, 2);
	assert_int_equal(s.devices[0].links[1].ino, 5002);
	assert_int_equal(s.devices[0].ledgers[1].ino, 62);
	assert_int_equal(s.devices[1].generation, 7);
	assert_true(s.devices[1].dead);
	assert_int_equal(s.devices[1].helper.started, 81300);
	state_clear(&s);
}

static void what_is_printed_is_read_back_the_same(void **unused)
{
	struct state s, again;
	struct err err;
	char *json, *second;

	(void)unused;
	assert_int_equal(parse(version_1, &s, &err), 0);
	json = state_print(&s);
	assert_int_equal(parse(json, &again, &err), 0);
	second = state_print(&again);
	assert_string_equal(json, second);
	assert_string_equal(json, version_1);
	free(json);
	free(second);
	state_clear(&s);
	state_clear(&again);
}

/* version_1 with the first @from made @to. */
static char *changed(const char *from, const char *to)
{
	char *out = calloc(1, sizeof(version_1) + strlen(to));
	const char *at = strstr(version_1, from);

	assert_non_null(at);
	sprintf(out, "%.*s%s%s", (int)(at - version_1), version_1, to, at + strlen(from));
	return out;
}

static void the_file_of_a_promoted_device_is_read_back(void **unused)
{
	char *json = changed("\"helper\":[731,81300],", "\"helper\":[0,0],\"promoted\":[8,77],");
	struct state s;
	struct err err;
	char *again;

	(void)unused;
	assert_int_equal(parse(json, &s, &err), 0);
	assert_true(file_id_equal(s.devices[1].promoted, (struct file_id){8, 77}));
	again = state_print(&s);
	assert_string_equal(again, json);
	free(again);
	free(json);
	state_clear(&s);
}

static int parse_changed(const char *from, const char *to, struct err *err)
{
	char *json = changed(from, to);
	struct state s;
	int rc = parse(json, &s, err);

	free(json);
	if (!rc)
		state_clear(&s);
	return rc;
}

static void a_record_of_a_newer_version_is_refused_and_says_so(void **unused)
{
	struct err err;

	(void)unused;
	assert_int_equal(parse_changed("\"version\":1,\"least\":1", "\"version\":2", &err),
			 -EPROTONOSUPPORT);
	assert_int_equal(
		parse_changed("\"version\":1,\"least\":1", "\"version\":2,\"least\":2", &err),
		-EPROTONOSUPPORT);
	assert_non_null(strstr(err.text, "of version 2"));
	assert_int_equal(parse_changed("\"version\":1", "\"version\":0", &err), -EBADMSG);
}

static void a_newer_version_that_says_so_is_read_by_this_one(void **unused)
{
	struct err err;

	(void)unused;
	assert_int_equal(
		parse_changed("\"version\":1,\"least\":1", "\"version\":3,\"least\":1", &err), 0);
}

static void a_key_more_is_no_other_version(void **unused)
{
	struct err err;

	(void)unused;
	assert_int_equal(parse_changed("\"boot\"", "\"later\":[{}],\"boot\"", &err), 0);
}

static void what_cannot_be_is_refused(void **unused)
{
	static const char *const wrong[][2] = {
		{"\"version\":1,", ""},
		{"[700,81234]", "[-1,81234]"},
		{"[700,81234]", "[700,0.5]"},
		{"[700,81234]", "[700]"},
		{"[700,81234]", "[700,1e300]"},
		{"[700,81234]", "\"700\""},
		{"\"restarts\":3", "\"restarts\":4294967296"},
		{"\"queues\":2", "\"queues\":65"},
		{"\"name\":\"a/b\"", "\"name\":\"\""},
		{"\"size\":1048576", "\"size\":-1"},
		{"\"index\":4", "\"index\":5"},
		{"/dev/nbd4", "/dev/nbd4/../sda"},
		{"/dev/nbd4", "/dev/sda"},
		{"\"index\":4", "\"index\":-2"},
		{",\"ledgers\":[[1,61],[1,62]]", ",\"ledgers\":[[1,61]]"},
		{",\"ledgers\":[[1,61],[1,62]]", ",\"ledgers\":7"},
		{"\"links\":[[8,5001],", "\"links\":[[8,-1],"},
		{"\"dead\":false", "\"dead\":0"},
		{"\"devices\":[", "\"devices\":[7,"},
	};
	struct err err;

	(void)unused;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		if (parse_changed(wrong[i][0], wrong[i][1], &err) != -EBADMSG)
			fail_msg("%s made %s was taken", wrong[i][0], wrong[i][1]);
}

static void more_links_than_a_device_has_are_refused(void **unused)
{
	char links[2000] = "\"links\":[[8,1]";
	struct err err;

	(void)unused;
	for (int i = 0; i < ATTACH_LINKS_MAX; i++)
		strcat(links, ",[8,1]");
	strcat(links, "]");
	assert_int_equal(parse_changed("\"links\":[[8,5001],[8,5002]]", links, &err), -EBADMSG);
}

static void a_record_cut_anywhere_is_refused(void **unused)
{
	struct state s;
	struct err err;

	(void)unused;
	for (size_t len = 0; len < sizeof(version_1) - 1; len++)
		assert_int_equal(state_parse(version_1, len, &s, &err), -EBADMSG);
}

/* Each byte made each of a few others: no crash, no leak, and 0 or an error of those promised. */
static void a_damaged_record_is_read_or_refused_whole(void **unused)
{
	static const char bytes[] = {0, '"', '9', '-', ']', '}', (char)0xff};
	size_t len = sizeof(version_1) - 1;
	char *json = malloc(len);
	struct state s;
	struct err err;

	(void)unused;
	for (size_t i = 0; i < len; i++) {
		for (size_t b = 0; b < sizeof(bytes); b++) {
			int rc;

			memcpy(json, version_1, len);
			json[i] = bytes[b];
			rc = state_parse(json, len, &s, &err);
			if (!rc)
				state_clear(&s);
			assert_true(rc == 0 || rc == -EBADMSG || rc == -EPROTONOSUPPORT);
		}
	}
	free(json);
}

static void the_last_record_that_was_written_whole_is_loaded(void **unused)
{
	int fd = memfd_create("state", 0);
	struct state s = {.restarts = 1}, got;
	struct err err;

	(void)unused;
	assert_int_equal(state_load(fd, &got, &err), -ENOENT);
	assert_int_equal(state_save(fd, &s), 0);
	s.restarts = 2;
	assert_int_equal(state_save(fd, &s), 0);
	assert_int_equal(state_load(fd, &got, &err), 0);
	assert_int_equal(got.restarts, 2);
	/* the second is in the second slot, and torn now */
	assert_int_equal(pwrite(fd, "?", 1, SLOTS_ROOM + 70), 1);
	assert_int_equal(state_load(fd, &got, &err), 0);
	assert_int_equal(got.restarts, 1);
	close(fd);
}

static void a_descriptor_is_known_by_what_it_refers_to(void **unused)
{
	int pair[2], copy, other = memfd_create("other", 0);

	(void)unused;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	copy = dup(pair[0]);
	assert_true(file_id_equal(file_id_of(copy), file_id_of(pair[0])));
	assert_false(file_id_equal(file_id_of(pair[0]), file_id_of(pair[1])));
	assert_false(file_id_equal(file_id_of(pair[0]), file_id_of(other)));
	assert_false(file_id_equal(file_id_of(-1), file_id_of(-1)));
	close(copy);
	close(other);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_record_of_version_1_is_read),
		cmocka_unit_test(what_is_printed_is_read_back_the_same),
		cmocka_unit_test(the_file_of_a_promoted_device_is_read_back),
		cmocka_unit_test(a_record_of_a_newer_version_is_refused_and_says_so),
		cmocka_unit_test(a_newer_version_that_says_so_is_read_by_this_one),
		cmocka_unit_test(a_key_more_is_no_other_version),
		cmocka_unit_test(what_cannot_be_is_refused),
		cmocka_unit_test(more_links_than_a_device_has_are_refused),
		cmocka_unit_test(a_record_cut_anywhere_is_refused),
		cmocka_unit_test(a_damaged_record_is_read_or_refused_whole),
		cmocka_unit_test(the_last_record_that_was_written_whole_is_loaded),
		cmocka_unit_test(a_descriptor_is_known_by_what_it_refers_to),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
