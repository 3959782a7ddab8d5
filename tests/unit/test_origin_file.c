/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "origin/origin.h"

struct bed {
	char dir[64];
	struct loop *loop;
	struct origin_client *client;
	struct origin *origin;
	struct err err;
	char etag[ORIGIN_ETAG_MAX];
};

static struct origin *open_url(struct bed *b, const char *name)
{
	struct origin_config cfg = {0};
	char url[256], split[ORIGIN_NAME_MAX + 1];
	struct origin *o;

	snprintf(url, sizeof(url), "file://%s/%s", b->dir, name);
	assert_int_equal(origin_open(url, &cfg, &o, split, &b->err), 0);
	assert_string_equal(split, name);
	return o;
}

static int bed_up(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct origin_config cfg = {0};

	strcpy(b->dir, "/tmp/cairn-origin-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	b->loop = loop_new(LOOP_AUTO, &b->err);
	b->client = origin_client_new(b->loop, &cfg, &b->err);
	assert_non_null(b->client);
	b->origin = open_url(b, "a.img");
	*state = b;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static int bed_down(void **state)
{
	struct bed *b = *state;

	origin_unref(b->origin);
	origin_client_free(b->client);
	loop_free(b->loop);
	nftw(b->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(b);
	return 0;
}

static int put(struct bed *b, const char *name, const char *text, bool exclusive)
{
	memset(&b->err, 0, sizeof(b->err));
	return origin_put(b->client, b->origin, name, text, strlen(text), exclusive, &b->err);
}

static void assert_blob(struct bed *b, const char *name, const char *text)
{
	char *buf;
	size_t len;
	int rc = origin_get(b->client, b->origin, name, 4096, NULL, &buf, &len, b->etag, &b->err);

	if (rc)
		print_error("%s\n", b->err.text);
	assert_int_equal(rc, 0);
	assert_int_equal(len, strlen(text));
	assert_string_equal(buf, text);
	free(buf);
}

/* How many entries the folder has, hidden ones too. */
static int entries(struct bed *b)
{
	DIR *d = opendir(b->dir);
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void what_is_put_is_what_is_got(void **state)
{
	struct bed *b = *state;
	struct origin_stat st;

	assert_int_equal(put(b, "a.img", "hello", false), 0);
	assert_blob(b, "a.img", "hello");
	assert_int_equal(origin_stat(b->client, b->origin, "a.img", &st, &b->err), 0);
	assert_int_equal(st.length, 5);
	assert_string_equal(st.etag, b->etag);
	assert_int_equal(put(b, "a.img", "", false), 0);
	assert_blob(b, "a.img", "");
	assert_int_equal(entries(b), 1);
}

static void odd_names_and_folders_below_are_fine(void **state)
{
	struct bed *b = *state;
	static const char *const names[] = {"a b+c%20.img", "\xc3\xbc/\xe6\xbc\xa2?#&", "x/y/z"};
	char url[256];

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		assert_int_equal(put(b, names[i], names[i], true), 0);
		assert_blob(b, names[i], names[i]);
	}
	origin_url(b->origin, names[0], url, sizeof(url));
	assert_non_null(strstr(url, "/a%20b+c%2520.img"));
}

static void the_url_that_is_shown_opens_the_same_blob(void **state)
{
	struct bed *b = *state;
	struct origin_config cfg = {0};
	char url[256], again[256], name[ORIGIN_NAME_MAX + 1];
	struct origin *o;

	origin_url(b->origin, "a b%#?.img", url, sizeof(url));
	assert_int_equal(origin_open(url, &cfg, &o, name, &b->err), 0);
	assert_string_equal(name, "a b%#?.img");
	assert_string_equal(origin_url(o, name, again, sizeof(again)), url);
	assert_string_equal(origin_kind(o), "file");
	assert_true(origin_is_writable(o));
	assert_false(origin_is_single_blob(o));
	origin_unref(o);
}

static void names_that_leave_the_folder_are_refused(void **state)
{
	struct bed *b = *state;
	static const char *const bad[] = {"",	  "../x", "a/../../x", "/etc/passwd",
					  "a//b", ".",	  "a/.",       "a\nb"};
	char buf[4];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(put(b, bad[i], "x", false), -EINVAL);
		assert_int_equal(
			origin_pread(b->client, b->origin, bad[i], NULL, 0, 1, buf, &b->err),
			-EINVAL);
	}
	assert_int_equal(entries(b), 0);
}

static void an_exclusive_put_never_replaces(void **state)
{
	struct bed *b = *state;

	assert_int_equal(put(b, "m.json", "first", true), 0);
	assert_int_equal(put(b, "m.json", "second", true), -EEXIST);
	assert_non_null(strstr(b->err.text, "exists already"));
	assert_blob(b, "m.json", "first");
	assert_int_equal(put(b, "m.json", "third", false), 0);
	assert_blob(b, "m.json", "third");
	assert_int_equal(entries(b), 1);
}

static void a_range_read_is_exact(void **state)
{
	struct bed *b = *state;
	char buf[8] = "........";

	assert_int_equal(put(b, "a.img", "0123456789", false), 0);
	assert_int_equal(origin_pread(b->client, b->origin, "a.img", NULL, 3, 4, buf, &b->err), 0);
	assert_memory_equal(buf, "3456....", 8);
	assert_int_equal(origin_pread(b->client, b->origin, "a.img", NULL, 3, 0, buf, &b->err), 0);
	assert_int_equal(origin_pread(b->client, b->origin, "a.img", NULL, 8, 4, buf, &b->err),
			 -ERANGE);
	assert_non_null(strstr(b->err.text, "ends before byte 12"));
	assert_int_equal(
		origin_pread(b->client, b->origin, "a.img", NULL, UINT64_MAX - 1, 4, buf, &b->err),
		-ERANGE);
}

static void a_blob_that_changed_is_stale(void **state)
{
	struct bed *b = *state;
	char buf[4];

	assert_int_equal(put(b, "a.img", "0123", false), 0);
	assert_blob(b, "a.img", "0123");
	assert_int_equal(origin_pread(b->client, b->origin, "a.img", b->etag, 0, 4, buf, &b->err),
			 0);
	assert_int_equal(put(b, "a.img", "4567", false), 0);
	assert_int_equal(origin_pread(b->client, b->origin, "a.img", b->etag, 0, 4, buf, &b->err),
			 -ESTALE);
	assert_non_null(strstr(b->err.text, "publish it again"));
}

static void an_unchanged_blob_need_not_be_got_again(void **state)
{
	struct bed *b = *state;
	char *buf;
	size_t len;

	assert_int_equal(put(b, "a", "0123", false), 0);
	assert_blob(b, "a", "0123");
	assert_int_equal(
		origin_get(b->client, b->origin, "a", 10, b->etag, &buf, &len, NULL, &b->err),
		-EALREADY);
	assert_int_equal(origin_get(b->client, b->origin, "a", 3, NULL, &buf, &len, NULL, &b->err),
			 -EFBIG);
}

static void what_is_missing_or_no_file_is_named_with_a_remedy(void **state)
{
	struct bed *b = *state;
	struct origin_stat st;

	assert_int_equal(origin_stat(b->client, b->origin, "gone", &st, &b->err), -ENOENT);
	assert_non_null(strstr(b->err.text, "/gone"));
	assert_non_null(strstr(b->err.text, "check the path"));
	assert_int_equal(put(b, "sub/x", "", false), 0);
	assert_int_equal(origin_stat(b->client, b->origin, "sub", &st, &b->err), -EINVAL);
	assert_non_null(strstr(b->err.text, "not a regular file"));
}

static void a_missing_folder_is_not_made(void **state)
{
	struct bed *b = *state;
	struct origin_config cfg = {0};
	char url[256], name[ORIGIN_NAME_MAX + 1];
	struct origin *o;

	snprintf(url, sizeof(url), "file://%s/none/a.img", b->dir);
	assert_int_equal(origin_open(url, &cfg, &o, name, &b->err), 0);
	assert_int_equal(origin_put(b->client, o, name, "x", 1, false, &b->err), -ENOENT);
	assert_non_null(strstr(b->err.text, "create the folder"));
	origin_unref(o);
}

struct seen {
	int n;
	uint64_t bytes;
	char ids[8][72];
};

static void see(void *arg, const char *id, uint64_t len)
{
	struct seen *s = arg;

	strcpy(s->ids[s->n++], id);
	s->bytes += len;
}

static struct seen staged(struct bed *b)
{
	struct seen s = {0};

	assert_int_equal(origin_staged(b->client, b->origin, "a.img", see, &s, &b->err), 0);
	return s;
}

static int stage(struct bed *b, const char *id, const char *text)
{
	return origin_stage(b->client, b->origin, "a.img", id, text, strlen(text), &b->err);
}

static void staged_blocks_are_invisible_until_committed_in_order(void **state)
{
	struct bed *b = *state;
	static const char *const ids[] = {"00", "01", "02"};
	struct origin_stat st;
	char etag[ORIGIN_ETAG_MAX];

	assert_int_equal(staged(b).n, 0);
	assert_int_equal(stage(b, "02", "tail"), 0);
	assert_int_equal(stage(b, "00", "wrong"), 0);
	assert_int_equal(stage(b, "00", "head-"), 0);
	assert_int_equal(stage(b, "01", "body-"), 0);
	assert_int_equal(staged(b).n, 3);
	assert_int_equal(staged(b).bytes, 14);
	assert_int_equal(origin_stat(b->client, b->origin, "a.img", &st, &b->err), -ENOENT);
	assert_int_equal(origin_commit(b->client, b->origin, "a.img", ids, 3, etag, &b->err), 0);
	assert_blob(b, "a.img", "head-body-tail");
	assert_string_equal(etag, b->etag);
	assert_int_equal(staged(b).n, 0);
	assert_int_equal(entries(b), 1);
}

static void a_commit_of_what_is_not_staged_changes_nothing(void **state)
{
	struct bed *b = *state;
	static const char *const ids[] = {"00", "01"};
	char etag[ORIGIN_ETAG_MAX];

	assert_int_equal(put(b, "a.img", "old", false), 0);
	assert_int_equal(stage(b, "00", "new"), 0);
	assert_int_equal(origin_commit(b->client, b->origin, "a.img", ids, 2, etag, &b->err),
			 -EINVAL);
	assert_non_null(strstr(b->err.text, "block 01"));
	assert_blob(b, "a.img", "old");
	assert_int_equal(staged(b).n, 1);
	assert_int_equal(entries(b), 2);
}

static void ids_are_hex(void **state)
{
	struct bed *b = *state;

	assert_int_equal(stage(b, "../x", "x"), -EINVAL);
	assert_int_equal(stage(b, "", "x"), -EINVAL);
	assert_int_equal(
		stage(b, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0", "x"),
		-EINVAL);
	assert_int_equal(entries(b), 0);
}

struct seen_read {
	struct origin_read read;
	int done, rc;
	uint32_t got;
};

static void on_progress(struct origin_read *r, uint32_t got)
{
	((struct seen_read *)r)->got = got;
}

static void on_done(struct origin_read *r, int rc)
{
	((struct seen_read *)r)->done++;
	((struct seen_read *)r)->rc = rc;
}

static void reads_are_answered_in_order_from_the_loop_and_may_be_canceled(void **state)
{
	struct bed *b = *state;
	struct seen_read reads[3];
	char buf[3][4];

	assert_int_equal(put(b, "a.img", "0123", false), 0);
	for (int i = 0; i < 3; i++) {
		reads[i] = (struct seen_read){.read = {.origin = b->origin,
						       .name = "a.img",
						       .len = 4,
						       .dst = (uint8_t *)buf[i],
						       .progress = on_progress,
						       .done = on_done}};
		origin_read_submit(b->client, &reads[i].read);
		assert_int_equal(reads[i].done, 0);
	}
	origin_read_cancel(b->client, &reads[1].read);
	while (!reads[2].done)
		loop_run_once(b->loop, 1000);
	assert_int_equal(reads[0].done + reads[1].done, 2);
	assert_int_equal(reads[0].rc, 0);
	assert_int_equal(reads[0].got, 4);
	assert_memory_equal(buf[0], "0123", 4);
	assert_int_equal(reads[1].rc, -ECANCELED);
	assert_int_equal(reads[2].rc, 0);
	assert_string_not_equal(reads[2].read.got_etag, "");
}

#define bed_test(f) cmocka_unit_test_setup_teardown(f, bed_up, bed_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(what_is_put_is_what_is_got),
		bed_test(odd_names_and_folders_below_are_fine),
		bed_test(the_url_that_is_shown_opens_the_same_blob),
		bed_test(names_that_leave_the_folder_are_refused),
		bed_test(an_exclusive_put_never_replaces),
		bed_test(a_range_read_is_exact),
		bed_test(a_blob_that_changed_is_stale),
		bed_test(an_unchanged_blob_need_not_be_got_again),
		bed_test(what_is_missing_or_no_file_is_named_with_a_remedy),
		bed_test(a_missing_folder_is_not_made),
		bed_test(staged_blocks_are_invisible_until_committed_in_order),
		bed_test(a_commit_of_what_is_not_staged_changes_nothing),
		bed_test(ids_are_hex),
		bed_test(reads_are_answered_in_order_from_the_loop_and_may_be_canceled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
