/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/manifest.h"

/* 200,000 bytes: blocks 0 and 2-3 in blob 0, block 1 a hole, one tree block in blob 1. */
static const char good[] =
	"{\"format\":\"cairn-image\",\"version\":1,\"min_reader\":1,\"length\":200000,"
	"\"block_size\":65536,\"hash\":\"sha256\",\"digest\":\"sha256:@DIGEST@\","
	"\"root_hash\":\"@ROOT@\","
	"\"blobs\":[{\"name\":\"a.data\",\"etag\":\"\\\"0x8D\\\"\"},{\"name\":\"dir/"
	"a.tree\",\"etag\":\"\"}],"
	"\"parts\":[{\"off\":0,\"len\":65536,\"blob\":0,\"blob_off\":0},"
	"{\"off\":65536,\"len\":65536,\"zero\":true},"
	"{\"off\":131072,\"len\":68928,\"blob\":0,\"blob_off\":65536}],"
	"\"tree\":{\"length\":65536,\"parts\":[{\"off\":0,\"len\":65536,\"blob\":1,\"blob_off\":0}]"
	"}}";

/* Fresh: @s with the first @from made @to, then digest and root made those of @length. */
static char *edited(const char *s, const char *from, const char *to, uint64_t length)
{
	uint8_t root[SHA256_LEN], digest[SHA256_LEN];
	char hex[2 * SHA256_LEN + 1];
	const struct {
		const char *from, *to;
	} edits[] = {{from, to}, {"@DIGEST@", hex}, {"@ROOT@", hex}};
	char *was = strdup(s), *now = NULL;

	memset(root, 7, sizeof(root));
	image_digest(length, root, digest);
	for (int i = 0; i < 3; i++) {
		char *at = strstr(was, edits[i].from);

		if (!at && i == 0)
			fail_msg("nothing to edit: %s", from);
		if (!at)
			continue;
		hex_encode(i == 2 ? root : digest, SHA256_LEN, hex);
		assert_true(asprintf(&now, "%.*s%s%s", (int)(at - was), was, edits[i].to,
				     at + strlen(edits[i].from)) > 0);
		free(was);
		was = now;
	}
	return was;
}

static int parse(const char *json, size_t len, struct manifest **m, struct err *err)
{
	/* An exact copy, so that ASan sees a read beyond the end. */
	char *copy = malloc(len ? len : 1);
	int rc;

	memcpy(copy, json, len);
	memset(err, 0, sizeof(*err));
	rc = manifest_parse(copy, len, "x.cairn.json", m, err);
	free(copy);
	return rc;
}

static void expect(const char *from, const char *to, uint64_t length, int code, const char *says)
{
	char *json = edited(good, from, to, length);
	struct manifest *m = NULL;
	struct err err;
	int rc = parse(json, strlen(json), &m, &err);

	if (rc != code || !strstr(err.text, says) || (rc && !strstr(err.text, "x.cairn.json")) ||
	    (rc && m))
		fail_msg("%s -> %s: got %d \"%s\", want %d \"%s\"", from, to, rc, err.text, code,
			 says);
	manifest_free(m);
	free(json);
}

static void refuses(const char *from, const char *to, const char *says)
{
	expect(from, to, 200000, -EINVAL, says);
}

static void takes(const char *from, const char *to)
{
	expect(from, to, 200000, 0, "");
}

static void a_good_manifest_is_read_whole(void **state)
{
	char *json = edited(good, "a.data", "b c.data", 200000);
	struct manifest *m = NULL;
	struct err err;

	(void)state;
	assert_int_equal(parse(json, strlen(json), &m, &err), 0);
	assert_int_equal(m->length, 200000);
	assert_int_equal(m->geometry.levels, 1);
	assert_int_equal(m->nblobs, 2);
	assert_string_equal(m->blobs[0].name, "b c.data");
	assert_string_equal(m->blobs[0].etag, "\"0x8D\"");
	assert_int_equal(m->nparts, 3);
	assert_int_equal(m->parts[1].blob, MANIFEST_ZERO);
	assert_int_equal(m->parts[2].blob_off, 65536);
	assert_int_equal(m->ntree_parts, 1);
	assert_int_equal(m->tree_parts[0].blob, 1);
	manifest_free(m);
	free(json);
}

static void what_is_written_reads_back_the_same(void **state)
{
	char *json = edited(good, "a.data", "q\\\"uote.data", 200000), *text, *again;
	struct manifest *m = NULL;
	struct err err;

	(void)state;
	assert_int_equal(parse(json, strlen(json), &m, &err), 0);
	text = manifest_format(m);
	manifest_free(m);
	assert_int_equal(parse(text, strlen(text), &m, &err), 0);
	assert_string_equal(m->blobs[0].name, "q\"uote.data");
	again = manifest_format(m);
	assert_string_equal(text, again);
	manifest_free(m);
	free(json);
	free(text);
	free(again);
}

static void a_newer_writer_may_add_keys(void **state)
{
	(void)state;
	takes("\"version\":1", "\"version\":7,\"made_by\":{\"x\":[1,2]}");
	takes("\"zero\":true", "\"zero\":true,\"hint\":9");
}

static void a_manifest_for_newer_readers_says_so(void **state)
{
	(void)state;
	expect("\"version\":1,\"min_reader\":1", "\"version\":2,\"min_reader\":2", 200000, -ENOTSUP,
	       "upgrade cairn");
	refuses("\"version\":1", "\"version\":0", "do not make sense");
	refuses("\"min_reader\":1", "\"min_reader\":0", "do not make sense");
	refuses("\"min_reader\":1", "\"min_reader\":2", "do not make sense");
}

static void another_format_is_refused(void **state)
{
	(void)state;
	refuses("cairn-image", "other", "format");
	refuses("\"block_size\":65536", "\"block_size\":4096", "block_size");
	refuses("\"sha256\",", "\"sha512\",", "hash");
	refuses("{\"format\"", "[{\"format\"", "not JSON");
	refuses("\"tree\":", "\"tree\":,", "not JSON");
	refuses("]}}", "]}}x", "not JSON");
	refuses("]}}", "]}", "not JSON");
}

static void missing_keys_are_refused(void **state)
{
	static const char *const keys[] = {
		"format", "version",   "min_reader", "length", "block_size", "hash",
		"digest", "root_hash", "blobs",	     "name",   "etag",	     "parts",
		"off",	  "len",       "blob",	     "zero",   "blob_off",   "tree"};
	char from[32], to[32];

	(void)state;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		snprintf(from, sizeof(from), "\"%s\":", keys[i]);
		snprintf(to, sizeof(to), "\"%s_\":", keys[i]);
		refuses(from, to, "missing");
	}
	refuses("\"length\":", "\"Length\":", "missing");
}

static void duplicate_keys_are_refused(void **state)
{
	(void)state;
	refuses("\"length\":200000", "\"length\":200000,\"length\":200000", "twice");
	refuses("\"off\":0", "\"off\":0,\"off\":0", "twice");
	refuses("\"name\":", "\"name\":\"x\",\"name\":", "twice");
	refuses("\"length\":65536,\"parts\"", "\"length\":65536,\"parts\":[],\"parts\"", "twice");
}

static void numbers_must_be_whole_and_in_bounds(void **state)
{
	static const char *const wrong[] = {"-1",    "200000.5",   "9223372036854775808",
					    "1e300", "\"200000\"", "1125899906842625",
					    "null",  "[200000]",   "18446744073709551616"};
	char to[64];

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		snprintf(to, sizeof(to), "\"length\":%s", wrong[i]);
		refuses("\"length\":200000", to, "length");
		snprintf(to, sizeof(to), "\"blob_off\":%s", wrong[i]);
		refuses("\"blob_off\":65536", to, "blob_off");
	}
	refuses("\"length\":200000", "\"length\":0", "length");
	refuses("\"blob_off\":65536", "\"blob_off\":1125899906842624", "beyond 2^50");
	refuses("\"blob\":1", "\"blob\":4294967295", "names blob");
}

static void a_digest_of_something_else_is_refused(void **state)
{
	(void)state;
	refuses("@DIGEST@", "00", "digest");
	refuses("sha256:@", "@", "digest");
	refuses("@ROOT@", "zz", "root_hash");
	refuses("@ROOT@", "1111111111111111111111111111111111111111111111111111111111111111",
		"not that of its length");
	expect("a.data", "b.data", 200001, -EINVAL, "not that of its length");
}

static void parts_that_leave_gaps_or_overlap_are_refused(void **state)
{
	(void)state;
	refuses("\"off\":65536", "\"off\":131072", "starts at");
	refuses("\"off\":131072", "\"off\":65536", "starts at");
	refuses("\"len\":68928", "\"len\":68927", "not whole blocks");
	refuses("\"len\":68928", "\"len\":65536", "end at");
	refuses("\"len\":68928", "\"len\":68929", "beyond");
	refuses("\"len\":65536,\"zero\"", "\"len\":0,\"zero\"", "empty");
	refuses("\"len\":65536,\"zero\"", "\"len\":65535,\"zero\"", "not whole blocks");
	refuses("{\"off\":0,\"len\":65536,\"blob\":0,\"blob_off\":0},", "", "starts at");
	refuses("\"parts\":[", "\"parts\":[[],", "not an object");
	refuses("\"parts\":[{\"off\":0,\"len\":65536,\"blob\":1,\"blob_off\":0}]", "\"parts\":[]",
		"end at 0");
}

static void a_part_is_a_hole_or_in_a_blob(void **state)
{
	(void)state;
	refuses("\"zero\":true", "\"zero\":false", "either");
	refuses("\"zero\":true", "\"zero\":true,\"blob\":0", "either");
	refuses("\"blob_off\":65536", "\"blob_off\":65536,\"zero\":true", "either");
	refuses("\"blob\":1", "\"blob\":2", "names blob 2 of 2");
}

static void a_tree_of_another_length_is_refused(void **state)
{
	(void)state;
	refuses("\"tree\":{\"length\":65536", "\"tree\":{\"length\":131072", "its tree");
	refuses("\"tree\":{\"length\":65536", "\"tree\":{\"length\":0", "its tree");
}

static void names_that_lead_elsewhere_are_refused(void **state)
{
	static const char *const wrong[] = {"",		  "/etc/passwd", "../b",	"a/../../b",
					    "http://h/x", "file:x",	 "a\\n",	"a\\u0001b",
					    "a\\u007f",	  "a\\\\b",	 "az://acc/c/n"};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		refuses("a.data", wrong[i], "name");
	refuses("a.data", "a\\u0000b", "NUL");
	refuses("\\\"0x8D\\\"", "a\\r\\nHost: b", "etag");
	takes("a.data", "2024-01/a b%20é.data");
}

static void names_and_etags_have_limits(void **state)
{
	char long_name[ORIGIN_NAME_MAX + 2], long_etag[ORIGIN_ETAG_MAX + 1];

	(void)state;
	memset(long_name, 'n', sizeof(long_name));
	long_name[ORIGIN_NAME_MAX + 1] = 0;
	memset(long_etag, 'e', sizeof(long_etag));
	long_etag[ORIGIN_ETAG_MAX] = 0;
	refuses("a.data", long_name, "name");
	refuses("\\\"0x8D\\\"", long_etag, "etag");
	takes("a.data", long_name + 1);
	takes("\\\"0x8D\\\"", long_etag + 1);
}

static void a_flood_of_values_is_refused_before_parsing(void **state)
{
	size_t len = 8U << 20;
	char *json = malloc(len);
	struct manifest *m = NULL;
	struct err err;

	(void)state;
	memset(json, '[', len);
	assert_int_equal(parse(json, len, &m, &err), -EFBIG);
	memset(json, ' ', len);
	assert_int_equal(parse(json, len, &m, &err), -EINVAL);
	memset(json, '[', 5000);
	assert_int_equal(parse(json, len, &m, &err), -EINVAL);
	free(json);
}

static void a_manifest_cut_anywhere_is_refused(void **state)
{
	char *json = edited(good, "a.data", "a.data", 200000);
	struct manifest *m = NULL;
	struct err err;

	(void)state;
	for (size_t len = 0; len < strlen(json); len++)
		assert_int_equal(parse(json, len, &m, &err), -EINVAL);
	free(json);
}

static void a_flipped_byte_never_crashes_the_reader(void **state)
{
	char *json = edited(good, "a.data", "a.data", 200000);
	size_t len = strlen(json);
	struct err err;

	(void)state;
	for (size_t i = 0; i < len; i++) {
		for (int bit = 0; bit < 8; bit++) {
			struct manifest *m = NULL;

			json[i] ^= (char)(1 << bit);
			parse(json, len, &m, &err);
			manifest_free(m);
			json[i] ^= (char)(1 << bit);
		}
	}
	free(json);
}

static void too_many_parts_are_refused(void **state)
{
	uint32_t n = MANIFEST_PARTS_MAX;
	struct manifest m = {.length = (uint64_t)(n + 1) * BLOCK_SIZE}, *back = NULL;
	struct manifest_blob blob = {"d", ""};
	char *text;
	struct err err;

	(void)state;
	tree_geometry(m.length, &m.geometry);
	image_digest(m.length, m.root, m.digest);
	m.blobs = &blob;
	m.nblobs = 1;
	m.parts = calloc(n + 1, sizeof(*m.parts));
	m.tree_parts = calloc(1, sizeof(*m.tree_parts));
	m.tree_parts[0].len = m.geometry.tree_len;
	m.ntree_parts = 1;
	for (uint32_t i = 0; i <= n; i++)
		m.parts[i] = (struct manifest_part){(uint64_t)i * BLOCK_SIZE, BLOCK_SIZE, 0, 0};
	for (m.nparts = n - 1; m.nparts <= n + 1; m.nparts++) {
		m.parts[m.nparts - 1].len = m.length - m.parts[m.nparts - 1].off;
		text = manifest_format(&m);
		m.parts[m.nparts - 1].len = BLOCK_SIZE;
		assert_int_equal(parse(text, strlen(text), &back, &err), m.nparts < n ? 0 : -EFBIG);
		manifest_free(back);
		back = NULL;
		free(text);
	}
	free(m.parts);
	free(m.tree_parts);
}

static void the_part_that_holds_an_offset_is_found(void **state)
{
	struct manifest_part parts[] = {{0, 65536, 0, 0}, {65536, 131072, 0, 0}, {196608, 1, 0, 0}};

	(void)state;
	assert_ptr_equal(manifest_find(parts, 3, 0), &parts[0]);
	assert_ptr_equal(manifest_find(parts, 3, 65535), &parts[0]);
	assert_ptr_equal(manifest_find(parts, 3, 65536), &parts[1]);
	assert_ptr_equal(manifest_find(parts, 3, 196607), &parts[1]);
	assert_ptr_equal(manifest_find(parts, 3, 196608), &parts[2]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_manifest_is_read_whole),
		cmocka_unit_test(what_is_written_reads_back_the_same),
		cmocka_unit_test(a_newer_writer_may_add_keys),
		cmocka_unit_test(a_manifest_for_newer_readers_says_so),
		cmocka_unit_test(another_format_is_refused),
		cmocka_unit_test(missing_keys_are_refused),
		cmocka_unit_test(duplicate_keys_are_refused),
		cmocka_unit_test(numbers_must_be_whole_and_in_bounds),
		cmocka_unit_test(a_digest_of_something_else_is_refused),
		cmocka_unit_test(parts_that_leave_gaps_or_overlap_are_refused),
		cmocka_unit_test(a_part_is_a_hole_or_in_a_blob),
		cmocka_unit_test(a_tree_of_another_length_is_refused),
		cmocka_unit_test(names_that_lead_elsewhere_are_refused),
		cmocka_unit_test(names_and_etags_have_limits),
		cmocka_unit_test(a_flood_of_values_is_refused_before_parsing),
		cmocka_unit_test(a_manifest_cut_anywhere_is_refused),
		cmocka_unit_test(a_flipped_byte_never_crashes_the_reader),
		cmocka_unit_test(too_many_parts_are_refused),
		cmocka_unit_test(the_part_that_holds_an_offset_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
