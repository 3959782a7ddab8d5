/* SPDX-License-Identifier: Apache-2.0 */
/* The azure origin against the emulator, which checks signatures as Azure does.
 *
 * test_origin.sh starts one and runs this. By hand: `azurite-blob --blobPort PORT`, then
 *	make build/system/origin_azurite.san
 *	CAIRN_AZURITE_PORT=PORT build/system/origin_azurite.san
 * Without the variable it ends with 77, skipped. Each run makes a container of its own.
 */
#include <errno.h>
#include <openssl/hmac.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "origin/azure_sign.h"
#include "origin/http.h"
#include "origin/origin.h"
#include "origin/url.h"

#define KEY                                                                                        \
	"Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
#define SV "2019-12-12" /* the strings that SAS signs below are this version's */

static struct bed {
	struct loop *loop;
	struct origin_client *client;
	struct origin_config cfg;
	struct err err;
	char container[64], base[128], connection_string[512];
	uint8_t key[64];
	size_t key_len;
} bed;

/* --- making SAS tokens ---------------------------------------------------------------------- */

static void sign_encoded(const char *text, char out[160])
{
	unsigned char mac[EVP_MAX_MD_SIZE];
	char b64[64];
	unsigned int n;

	HMAC(EVP_sha256(), bed.key, (int)bed.key_len, (const unsigned char *)text, strlen(text),
	     mac, &n);
	base64_encode(mac, n, b64);
	url_encode(b64, "", out, 160);
}

static void account_sas(const char *sp, const char *se, char *out, size_t cap)
{
	char text[512], sig[160];

	snprintf(text, sizeof(text), EMULATOR_ACCOUNT "\n%s\nb\nsco\n\n%s\n\n\n" SV "\n", sp, se);
	sign_encoded(text, sig);
	snprintf(out, cap, "sv=" SV "&ss=b&srt=sco&sp=%s&se=%s&sig=%s", sp, se, sig);
}

static void blob_sas(const char *name, const char *se, char *out, size_t cap)
{
	char text[512], sig[160];

	snprintf(text, sizeof(text),
		 "r\n\n%s\n/blob/" EMULATOR_ACCOUNT "/%s/%s\n\n\n\n" SV "\nb\n\n\n\n\n\n", se,
		 bed.container, name);
	sign_encoded(text, sig);
	snprintf(out, cap, "sv=" SV "&sr=b&sp=r&se=%s&sig=%s", se, sig);
}

/* --- the bed -------------------------------------------------------------------------------- */

static bool created;
static char create_path[128];

static int create_prepare(struct http_request *r)
{
	struct azure_string s = {.method = "PUT",
				 .account = EMULATOR_ACCOUNT,
				 .path = create_path,
				 .query = "restype=container"};
	char date[30], sig[AZURE_SIGNATURE_LEN];

	azure_date(time(NULL), date);
	s.headers[s.nheaders++] = (struct azure_header){"x-ms-date", date};
	s.headers[s.nheaders++] = (struct azure_header){"x-ms-version", "2021-12-02"};
	azure_sign(&s, bed.key, bed.key_len, sig);
	http_request_header(r, "x-ms-date: %s", date);
	http_request_header(r, "x-ms-version: 2021-12-02");
	return http_request_header(r, "Authorization: SharedKey " EMULATOR_ACCOUNT ":%s", sig);
}

static void create_done(struct http_request *r, int rc)
{
	if (rc)
		print_error("container: %s %s\n", r->cause, r->answer.body);
	assert_int_equal(rc, 0);
	created = true;
}

static void create_container(void)
{
	struct http_options opt = {
		.connections = 1, .connect_timeout_ms = 5000, .stall_timeout_ms = 5000};
	struct http_client *http = http_client_new(bed.loop, &opt, &bed.err);
	char url[256];
	struct http_request r = {.method = HTTP_PUT,
				 .url = url,
				 .prepare = create_prepare,
				 .done = create_done,
				 .deadline_ns = clock_now_ns() + 10 * NSEC_PER_SEC};

	snprintf(create_path, sizeof(create_path), "/" EMULATOR_ACCOUNT "/%s", bed.container);
	snprintf(url, sizeof(url), "%s/%s?restype=container", bed.base, bed.container);
	http_submit(http, &r);
	while (!created)
		loop_run_once(bed.loop, 1000);
	http_client_free(http);
}

static int bed_up(void **state)
{
	const char *port = getenv("CAIRN_AZURITE_PORT");

	(void)state;
	if (!port) {
		print_message("skipped: CAIRN_AZURITE_PORT is not set\n");
		exit(77);
	}
	snprintf(bed.base, sizeof(bed.base), "http://127.0.0.1:%s/" EMULATOR_ACCOUNT, port);
	snprintf(bed.container, sizeof(bed.container), "t%d-%ld", getpid(), (long)time(NULL));
	snprintf(bed.connection_string, sizeof(bed.connection_string),
		 "AccountName=" EMULATOR_ACCOUNT ";AccountKey=" KEY ";BlobEndpoint=%s;", bed.base);
	assert_int_equal(base64_decode(KEY, bed.key, sizeof(bed.key), &bed.key_len), 0);
	bed.loop = loop_new(LOOP_AUTO, &bed.err);
	assert_non_null(bed.loop);
	bed.cfg.deadline_ms = 10000;
	bed.client = origin_client_new(bed.loop, &bed.cfg, &bed.err);
	assert_non_null(bed.client);
	create_container();
	return 0;
}

static int bed_down(void **state)
{
	(void)state;
	origin_client_free(bed.client);
	loop_free(bed.loop);
	return 0;
}

static struct origin *open_as(struct origin_config cfg, const char *url, char *name)
{
	struct origin *o;
	int rc = origin_open(url, &cfg, &o, name, &bed.err);

	if (rc)
		print_error("%s\n", bed.err.text);
	assert_int_equal(rc, 0);
	assert_string_equal(origin_kind(o), "azure");
	return o;
}

static struct origin *open_az(const char *container, const char *path)
{
	struct origin_config cfg = {.connection_string = bed.connection_string};
	char url[512], name[ORIGIN_NAME_MAX + 1];

	snprintf(url, sizeof(url), "az://" EMULATOR_ACCOUNT "/%s/%s", container, path);
	return open_as(cfg, url, name);
}

static struct origin *open_sas(const char *path, const char *sas)
{
	char url[1024], name[ORIGIN_NAME_MAX + 1];

	snprintf(url, sizeof(url), "%s/%s/%s?%s", bed.base, bed.container, path, sas);
	return open_as((struct origin_config){0}, url, name);
}

#define assert_ok(call)                                                                            \
	do {                                                                                       \
		int rc_ = (call);                                                                  \
		if (rc_)                                                                           \
			fail_msg("%s: %d %s", #call, rc_, bed.err.text);                           \
	} while (0)

static void assert_refused(int rc, int expected, const char *text)
{
	print_message("             %s\n", bed.err.text);
	assert_int_equal(rc, expected);
	if (!strstr(bed.err.text, text))
		fail_msg("does not say \"%s\"", text);
	assert_null(strstr(bed.err.text, "sig="));
	assert_null(strstr(bed.err.text, KEY));
}

static void assert_blob(struct origin *o, const char *name, const char *text)
{
	char *buf;
	size_t len;

	assert_ok(origin_get(bed.client, o, name, 4096, NULL, &buf, &len, NULL, &bed.err));
	assert_string_equal(buf, text);
	free(buf);
}

/* --- what must hold ------------------------------------------------------------------------- */

static void shared_key_puts_stats_gets_and_reads(void **state)
{
	struct origin *o = open_az(bed.container, "dir/a");
	struct origin_stat st;
	char buf[8] = {0}, etag[ORIGIN_ETAG_MAX], *all;
	size_t len;

	(void)state;
	assert_ok(origin_put(bed.client, o, "a", "0123456789", 10, false, &bed.err));
	assert_ok(origin_stat(bed.client, o, "a", &st, &bed.err));
	assert_int_equal(st.length, 10);
	assert_ok(origin_pread(bed.client, o, "a", st.etag, 3, 4, buf, &bed.err));
	assert_string_equal(buf, "3456");
	assert_ok(origin_get(bed.client, o, "a", 10, NULL, &all, &len, etag, &bed.err));
	assert_string_equal(all, "0123456789");
	assert_string_equal(etag, st.etag);
	free(all);
	assert_int_equal(origin_get(bed.client, o, "a", 10, etag, &all, &len, NULL, &bed.err),
			 -EALREADY);
	assert_int_equal(origin_get(bed.client, o, "a", 9, NULL, &all, &len, NULL, &bed.err),
			 -EFBIG);
	assert_refused(origin_pread(bed.client, o, "a", NULL, 8, 4, buf, &bed.err), -ERANGE,
		       "ends before byte 12");
	assert_refused(origin_pread(bed.client, o, "a", NULL, 10, 4, buf, &bed.err), -ERANGE,
		       "ends before byte 14");
	assert_ok(origin_put(bed.client, o, "empty", "", 0, false, &bed.err));
	assert_blob(o, "empty", "");
	origin_unref(o);
}

static void if_match_guards_a_read(void **state)
{
	struct origin *o = open_az(bed.container, "a");
	struct origin_stat st;
	char buf[8];

	(void)state;
	assert_ok(origin_put(bed.client, o, "m", "old", 3, false, &bed.err));
	assert_ok(origin_stat(bed.client, o, "m", &st, &bed.err));
	assert_ok(origin_put(bed.client, o, "m", "new", 3, false, &bed.err));
	assert_refused(origin_pread(bed.client, o, "m", st.etag, 0, 3, buf, &bed.err), -ESTALE,
		       "publish it again");
	origin_unref(o);
}

static void an_exclusive_put_never_replaces(void **state)
{
	struct origin *o = open_az(bed.container, "a");

	(void)state;
	assert_ok(origin_put(bed.client, o, "x", "first", 5, true, &bed.err));
	assert_refused(origin_put(bed.client, o, "x", "second", 6, true, &bed.err), -EEXIST,
		       "exists already");
	assert_blob(o, "x", "first");
	origin_unref(o);
}

static void odd_names_are_signed_and_found(void **state)
{
	static const char *const names[] = {
		"a b",
		"a+b",
		"100%",
		"a%20b",
		"\xc3\xa9t\xc3\xa9",
		"\xe6\xbc\xa2\xe5\xad\x97/x y",
		"q?x=1&y",
		"h#h",
		"(p)!$'*,;=:@[]{}|^`\"<>",
		"~t_-.z",
		"a/b/c",
	};
	struct origin *o = open_az(bed.container, "odd%20dir%2B/a");
	struct origin_config cfg = {.connection_string = bed.connection_string};
	char url[512], name[ORIGIN_NAME_MAX + 1], buf[128] = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct origin *again;

		print_message("             %s\n", names[i]);
		assert_ok(origin_put(bed.client, o, names[i], names[i], strlen(names[i]), true,
				     &bed.err));
		assert_blob(o, names[i], names[i]);
		origin_url(o, names[i], url, sizeof(url));
		again = open_as(cfg, url, name); /* the URL that is shown is the blob's */
		assert_ok(origin_pread(bed.client, again, name, NULL, 0, (uint32_t)strlen(names[i]),
				       buf, &bed.err));
		assert_memory_equal(buf, names[i], strlen(names[i]));
		origin_unref(again);
	}
	origin_unref(o);
}

struct seen {
	int n;
	uint64_t bytes;
};

static void see(void *arg, const char *id, uint64_t len)
{
	struct seen *s = arg;

	assert_int_equal(strlen(id), 6);
	s->n++;
	s->bytes += len;
}

static void staged_blocks_are_invisible_until_committed_in_order(void **state)
{
	struct origin *o = open_az(bed.container, "a");
	static const char *const ids[] = {"00000a", "00000b", "00000c"}, *const bad[] = {"00000a",
											 "0000ff"};
	struct origin_stat st;
	struct seen s = {0};
	char etag[ORIGIN_ETAG_MAX];

	(void)state;
	assert_ok(origin_staged(bed.client, o, "big blob", see, &s, &bed.err));
	assert_int_equal(s.n, 0);
	assert_ok(origin_stage(bed.client, o, "big blob", "00000c", "tail", 4, &bed.err));
	assert_ok(origin_stage(bed.client, o, "big blob", "00000a", "head-", 5, &bed.err));
	assert_ok(origin_stage(bed.client, o, "big blob", "00000b", "body-", 5, &bed.err));
	assert_ok(origin_staged(bed.client, o, "big blob", see, &s, &bed.err));
	assert_int_equal(s.n, 3);
	assert_int_equal(s.bytes, 14);
	assert_refused(origin_stat(bed.client, o, "big blob", &st, &bed.err), -ENOENT,
		       "there is no blob big blob");
	assert_refused(origin_commit(bed.client, o, "big blob", bad, 2, etag, &bed.err), -EINVAL,
		       "publish again");
	assert_ok(origin_commit(bed.client, o, "big blob", ids, 3, etag, &bed.err));
	assert_blob(o, "big blob", "head-body-tail");
	assert_ok(origin_stat(bed.client, o, "big blob", &st, &bed.err));
	assert_string_equal(st.etag, etag);
	s.n = 0;
	assert_ok(origin_staged(bed.client, o, "big blob", see, &s, &bed.err));
	assert_int_equal(s.n, 0);
	origin_unref(o);
}

static void a_large_block_goes_through(void **state)
{
	struct origin *o = open_az(bed.container, "a");
	static const char *const ids[] = {"000000"};
	size_t len = 20U << 20;
	uint8_t *buf = malloc(len), *back = malloc(len);
	char etag[ORIGIN_ETAG_MAX];

	(void)state;
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(i * 2654435761U >> 11);
	assert_ok(origin_stage(bed.client, o, "large", ids[0], buf, len, &bed.err));
	assert_ok(origin_commit(bed.client, o, "large", ids, 1, etag, &bed.err));
	assert_ok(origin_pread(bed.client, o, "large", etag, 0, (uint32_t)len, back, &bed.err));
	assert_memory_equal(buf, back, len);
	free(buf);
	free(back);
	origin_unref(o);
}

static void an_account_sas_reads_and_publishes(void **state)
{
	char sas[512];
	struct origin *o;
	static const char *const ids[] = {"000001"};
	char etag[ORIGIN_ETAG_MAX];

	(void)state;
	account_sas("rwc", "2099-01-01T00:00:00Z", sas, sizeof(sas));
	o = open_sas("s/a%20b", sas);
	assert_false(origin_is_single_blob(o));
	assert_ok(origin_put(bed.client, o, "a b", "by sas", 6, true, &bed.err));
	assert_blob(o, "a b", "by sas");
	assert_ok(origin_stage(bed.client, o, "st", ids[0], "x", 1, &bed.err));
	assert_ok(origin_commit(bed.client, o, "st", ids, 1, etag, &bed.err));
	origin_unref(o);
	account_sas("r", "2099-01-01T00:00:00Z", sas, sizeof(sas));
	o = open_sas("s/a%20b", sas);
	assert_refused(origin_put(bed.client, o, "no", "x", 1, false, &bed.err), -EACCES, "sp=r");
	origin_unref(o);
}

static void an_expired_sas_is_named_with_its_date(void **state)
{
	struct origin_stat st;
	char sas[512];
	struct origin *o;

	(void)state;
	account_sas("r", "2020-01-01T00:00:00Z", sas, sizeof(sas));
	o = open_sas("s/a%20b", sas);
	assert_refused(origin_stat(bed.client, o, "a b", &st, &bed.err), -EACCES,
		       "expired at 2020-01-01T00:00:00Z");
	origin_unref(o);
}

static void a_blob_sas_reads_its_blob_and_no_other(void **state)
{
	struct origin *o = open_az(bed.container, "a");
	char sas[512], buf[8];

	(void)state;
	assert_ok(origin_put(bed.client, o, "one", "one", 3, false, &bed.err));
	assert_ok(origin_put(bed.client, o, "two", "two", 3, false, &bed.err));
	origin_unref(o);
	blob_sas("one", "2099-01-01T00:00:00Z", sas, sizeof(sas));
	o = open_sas("one", sas);
	assert_true(origin_is_single_blob(o));
	assert_blob(o, "one", "one");
	assert_refused(origin_pread(bed.client, o, "two", NULL, 0, 3, buf, &bed.err), -EACCES,
		       "sr=b");
	origin_unref(o);
}

static void a_sas_token_of_the_environment_serves(void **state)
{
	struct origin_config cfg = {.account = EMULATOR_ACCOUNT};
	char sas[512], url[512], name[ORIGIN_NAME_MAX + 1];
	struct origin *o;

	(void)state;
	account_sas("r", "2099-01-01T00:00:00Z", sas, sizeof(sas));
	cfg.sas_token = sas;
	snprintf(url, sizeof(url), "%s/%s/one", bed.base, bed.container);
	o = open_as(cfg, url, name);
	assert_blob(o, name, "one");
	origin_unref(o);
}

static void a_wrong_key_says_what_to_check(void **state)
{
	struct origin_config cfg = {.key = "d3Jvbmcta2V5"};
	char url[512], name[ORIGIN_NAME_MAX + 1];
	struct origin_stat st;
	struct origin *o;

	(void)state;
	snprintf(url, sizeof(url), "%s/%s/one", bed.base, bed.container);
	o = open_as(cfg, url, name);
	assert_refused(origin_stat(bed.client, o, name, &st, &bed.err), -EACCES,
		       "check AZURE_STORAGE_KEY");
	origin_unref(o);
}

static void a_missing_container_is_told_from_a_missing_blob(void **state)
{
	struct origin *o = open_az("nowhere", "a"), *here = open_az(bed.container, "a");
	struct origin_stat st;
	char buf[4];

	(void)state;
	assert_refused(origin_stat(bed.client, o, "a", &st, &bed.err), -ENOENT,
		       "no container nowhere");
	assert_refused(origin_put(bed.client, o, "a", "x", 1, true, &bed.err), -ENOENT,
		       "no container nowhere");
	assert_refused(origin_staged(bed.client, o, "a", see, NULL, &bed.err), -ENOENT,
		       "no container nowhere");
	assert_refused(origin_pread(bed.client, here, "gone", NULL, 0, 1, buf, &bed.err), -ENOENT,
		       "no blob gone");
	origin_unref(o);
	origin_unref(here);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shared_key_puts_stats_gets_and_reads),
		cmocka_unit_test(if_match_guards_a_read),
		cmocka_unit_test(an_exclusive_put_never_replaces),
		cmocka_unit_test(odd_names_are_signed_and_found),
		cmocka_unit_test(staged_blocks_are_invisible_until_committed_in_order),
		cmocka_unit_test(a_large_block_goes_through),
		cmocka_unit_test(an_account_sas_reads_and_publishes),
		cmocka_unit_test(an_expired_sas_is_named_with_its_date),
		cmocka_unit_test(a_blob_sas_reads_its_blob_and_no_other),
		cmocka_unit_test(a_sas_token_of_the_environment_serves),
		cmocka_unit_test(a_wrong_key_says_what_to_check),
		cmocka_unit_test(a_missing_container_is_told_from_a_missing_blob),
	};

	return cmocka_run_group_tests(tests, bed_up, bed_down);
}
