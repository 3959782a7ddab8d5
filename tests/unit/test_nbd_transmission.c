/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "nbd/budget.h"
#include "nbd/transmission.h"

#define SIZE (1ULL << 30)

static const struct nbd_terms simple = {false, false};
static const struct nbd_terms structured = {true, false};
static const struct nbd_terms with_context = {true, true};

static uint32_t check(uint16_t type, uint16_t flags, uint64_t off, uint32_t len,
		      const struct nbd_terms *t)
{
	struct nbd_request r = {.type = type, .flags = flags, .off = off, .len = len};

	return nbd_request_check(&r, t, SIZE);
}

static void request_is_read_as_the_wire_has_it(void **state)
{
	static const uint8_t wire[28] = {0x25, 0x60, 0x95, 0x13, 0, 8, 0, 7, 1,	 2, 3, 4, 5, 6,
					 7,    8,    0,	   0,	 0, 1, 0, 0, 16, 0, 0, 2, 0, 1};
	struct nbd_request r;

	(void)state;
	assert_int_equal(nbd_request_parse(wire, &r), 0);
	assert_int_equal(r.flags, NBD_CMD_FLAG_REQ_ONE);
	assert_int_equal(r.type, NBD_CMD_BLOCK_STATUS);
	assert_memory_equal(&r.cookie, wire + 8, 8);
	assert_true(r.off == 0x100001000ULL);
	assert_int_equal(r.len, 0x20001);
}

static void wrong_magic_is_no_request(void **state)
{
	static const uint8_t wire[28] = {0x25, 0x60, 0x95, 0x14};
	struct nbd_request r;

	(void)state;
	assert_int_equal(nbd_request_parse(wire, &r), -EPROTO);
}

static void reads_inside_the_export_are_lawful(void **state)
{
	(void)state;
	assert_int_equal(check(NBD_CMD_READ, 0, 0, 1, &simple), NBD_OK);
	assert_int_equal(check(NBD_CMD_READ, 0, SIZE - 1, 1, &simple), NBD_OK);
	assert_int_equal(check(NBD_CMD_READ, 0, SIZE, 0, &simple), NBD_OK);
	assert_int_equal(check(NBD_CMD_READ, 0, 3, NBD_PAYLOAD_MAX, &simple), NBD_OK);
}

static void reads_past_the_end_are_invalid(void **state)
{
	(void)state;
	assert_int_equal(check(NBD_CMD_READ, 0, SIZE, 1, &simple), NBD_EINVAL);
	assert_int_equal(check(NBD_CMD_READ, 0, SIZE - 1, 2, &simple), NBD_EINVAL);
	assert_int_equal(check(NBD_CMD_READ, 0, SIZE + 1, 0, &simple), NBD_EINVAL);
	assert_int_equal(check(NBD_CMD_READ, 0, UINT64_MAX, UINT32_MAX, &simple), NBD_EINVAL);
	assert_int_equal(check(NBD_CMD_READ, 0, UINT64_MAX - 100, 200, &simple), NBD_EINVAL);
}

static void oversized_reads_overflow_only_with_df(void **state)
{
	(void)state;
	assert_int_equal(check(NBD_CMD_READ, 0, 0, NBD_PAYLOAD_MAX + 1, &simple), NBD_EINVAL);
	assert_int_equal(check(NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, NBD_PAYLOAD_MAX + 1, &structured),
			 NBD_EOVERFLOW);
}

static void df_needs_structured_replies(void **state)
{
	(void)state;
	assert_int_equal(check(NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 1, &simple), NBD_EINVAL);
	assert_int_equal(check(NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 1, &structured), NBD_OK);
}

static void whatever_would_write_is_not_permitted(void **state)
{
	(void)state;
	assert_int_equal(check(NBD_CMD_WRITE, 0, 0, 512, &simple), NBD_EPERM);
	assert_int_equal(check(NBD_CMD_TRIM, 0, 0, 512, &simple), NBD_EPERM);
	assert_int_equal(check(NBD_CMD_WRITE_ZEROES, 0xffff, 0, 512, &structured), NBD_EPERM);
}

static void unknown_commands_and_flags_are_invalid(void **state)
{
	(void)state;
	assert_int_equal(check(NBD_CMD_FLUSH, 0, 0, 0, &simple), NBD_EINVAL);
	assert_int_equal(check(8, 0, 0, 1, &simple), NBD_EINVAL);
	assert_int_equal(check(0xffff, 0, 0, 1, &simple), NBD_EINVAL);
	assert_int_equal(check(NBD_CMD_READ, 1, 0, 1, &simple), NBD_EINVAL);
	assert_int_equal(check(NBD_CMD_CACHE, 1, 0, 1, &simple), NBD_EINVAL);
	assert_int_equal(check(NBD_CMD_BLOCK_STATUS, 1, 0, 1, &with_context), NBD_EINVAL);
}

static void block_status_needs_its_context(void **state)
{
	(void)state;
	assert_int_equal(check(NBD_CMD_BLOCK_STATUS, 0, 0, 1, &simple), NBD_EINVAL);
	assert_int_equal(check(NBD_CMD_BLOCK_STATUS, 0, 0, 1, &structured), NBD_EINVAL);
	assert_int_equal(check(NBD_CMD_BLOCK_STATUS, 0, 0, 1, &with_context), NBD_OK);
	assert_int_equal(check(NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 0, SIZE, &with_context),
			 NBD_OK);
	assert_int_equal(check(NBD_CMD_BLOCK_STATUS, 0, 0, 0, &with_context), NBD_EINVAL);
	assert_int_equal(check(NBD_CMD_BLOCK_STATUS, 0, 1, SIZE, &with_context), NBD_EINVAL);
}

static void cache_may_ask_for_more_than_one_payload(void **state)
{
	(void)state;
	assert_int_equal(check(NBD_CMD_CACHE, 0, 0, SIZE, &simple), NBD_OK);
	assert_int_equal(check(NBD_CMD_CACHE, 0, 1, SIZE, &simple), NBD_EINVAL);
}

static void only_a_write_brings_a_payload(void **state)
{
	struct nbd_request r = {.len = 4096};

	(void)state;
	for (r.type = 0; r.type < 9; r.type++)
		assert_int_equal(nbd_request_payload(&r), r.type == NBD_CMD_WRITE ? 4096 : 0);
}

static void read_headers_are_what_was_agreed(void **state)
{
	struct nbd_request r = {.cookie = 0x1122334455667788ULL, .off = 0x10000, .len = 0x20};
	uint8_t out[NBD_READ_HEADER_MAX];
	static const uint8_t chunk[] = {0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1};
	static const uint8_t rest[] = {0, 0, 0, 0x28, 0, 0, 0, 0, 0, 1, 0, 0};

	(void)state;
	assert_int_equal(nbd_put_read_header(out, &r, &simple), 16);
	assert_memory_equal(out, "\x67\x44\x66\x98\0\0\0\0", 8);
	assert_memory_equal(out + 8, &r.cookie, 8);
	assert_int_equal(nbd_put_read_header(out, &r, &structured), 28);
	assert_memory_equal(out, chunk, sizeof(chunk));
	assert_memory_equal(out + 8, &r.cookie, 8);
	assert_memory_equal(out + 16, rest, sizeof(rest));
}

static void empty_structured_read_has_no_data_chunk(void **state)
{
	struct nbd_request r = {.cookie = 1};
	uint8_t out[NBD_READ_HEADER_MAX];
	static const uint8_t none[] = {0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 0};

	(void)state;
	assert_int_equal(nbd_put_read_header(out, &r, &structured), 20);
	assert_memory_equal(out, none, sizeof(none));
	assert_memory_equal(out + 16, "\0\0\0\0", 4);
}

static void errors_of_reads_are_chunks_once_agreed(void **state)
{
	struct nbd_request r = {.type = NBD_CMD_READ};
	uint8_t out[NBD_REPLY_MAX];
	static const uint8_t chunk[] = {0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1};
	static const uint8_t rest[] = {0, 0, 0, 6, 0, 0, 0, 5, 0, 0};

	(void)state;
	assert_int_equal(nbd_put_plain(out, &r, &simple, NBD_EIO), 16);
	assert_memory_equal(out, "\x67\x44\x66\x98\0\0\0\5", 8);
	assert_int_equal(nbd_put_plain(out, &r, &structured, NBD_EIO), 26);
	assert_memory_equal(out, chunk, sizeof(chunk));
	assert_memory_equal(out + 16, rest, sizeof(rest));
	r.type = NBD_CMD_CACHE;
	assert_int_equal(nbd_put_plain(out, &r, &structured, NBD_OK), 16);
}

static void errno_becomes_an_error_of_the_wire(void **state)
{
	(void)state;
	assert_int_equal(nbd_error_of(0), NBD_OK);
	assert_int_equal(nbd_error_of(-ENOMEM), NBD_ENOMEM);
	assert_int_equal(nbd_error_of(-EROFS), NBD_EPERM);
	assert_int_equal(nbd_error_of(-ESHUTDOWN), NBD_ESHUTDOWN);
	assert_int_equal(nbd_error_of(-ETIMEDOUT), NBD_EIO);
	assert_int_equal(nbd_error_of(-12345), NBD_EIO);
}

static void status_runs_become_lawful(void **state)
{
	struct nbd_request r = {.type = NBD_CMD_BLOCK_STATUS, .len = 100};
	struct nbd_extent runs[] = {{0, 1}, {30, 0}, {30, 0}, {20, 3}, {999, 0}, {7, 3}};

	(void)state;
	assert_int_equal(nbd_status_trim(&r, runs, 6), 3);
	assert_int_equal(runs[0].len, 60);
	assert_int_equal(runs[1].len, 20);
	assert_int_equal(runs[1].flags, 3);
	assert_int_equal(runs[2].len, 20); /* cut at the request's end */
	r.flags = NBD_CMD_FLAG_REQ_ONE;
	assert_int_equal(nbd_status_trim(&r, runs, 3), 1);
	runs[0].len = 0;
	assert_int_equal(nbd_status_trim(&r, runs, 1), 0);
}

static void status_reply_carries_context_and_runs(void **state)
{
	struct nbd_request r = {.type = NBD_CMD_BLOCK_STATUS, .len = 100};
	struct nbd_extent runs[] = {{60, 0}, {40, 3}};
	uint8_t out[NBD_REPLY_MAX];
	static const uint8_t rest[] = {0, 0, 0, 20, 0, 0, 0, 1,	 0, 0, 0, 60,
				       0, 0, 0, 0,  0, 0, 0, 40, 0, 0, 0, 3};

	(void)state;
	assert_int_equal(nbd_put_status(out, &r, runs, 2), 40);
	assert_memory_equal(out + 16, rest, sizeof(rest));
}

/* The budget of misses. */

static int grants;

static void count_grant(struct nbd_budget_wait *w)
{
	(void)w;
	grants++;
}

static void budget_lets_one_pass_however_large(void **state)
{
	struct nbd_budget b;
	struct nbd_budget_share s;
	struct nbd_budget_wait w = {.granted = count_grant};

	(void)state;
	grants = 0;
	nbd_budget_init(&b, 100);
	nbd_budget_share_init(&s);
	assert_true(nbd_budget_take(&b, &s, 1000, &w));
	assert_false(nbd_budget_take(&b, &s, 1, &w));
	nbd_budget_give(&b, &s, 1000);
	assert_int_equal(grants, 1);
	nbd_budget_give(&b, &s, 1);
	nbd_budget_free(&b);
}

static void budget_lets_nobody_overtake(void **state)
{
	struct nbd_budget b;
	struct nbd_budget_share s[3];
	struct nbd_budget_wait none, large = {.granted = count_grant},
				     little = {.granted = count_grant};

	(void)state;
	grants = 0;
	nbd_budget_init(&b, 100);
	for (int i = 0; i < 3; i++)
		nbd_budget_share_init(&s[i]);
	assert_true(nbd_budget_take(&b, &s[0], 60, &none));
	assert_false(nbd_budget_take(&b, &s[1], 50, &large));
	assert_false(nbd_budget_take(&b, &s[2], 1, &little)); /* would fit, but stands behind */
	nbd_budget_give(&b, &s[0], 60);
	assert_int_equal(grants, 2);
	nbd_budget_give(&b, &s[1], 50);
	nbd_budget_give(&b, &s[2], 1);
	assert_int_equal(b.sharers, 0);
	nbd_budget_free(&b);
}

static void leaving_the_line_lets_the_next_one_in(void **state)
{
	struct nbd_budget b;
	struct nbd_budget_share s[2];
	struct nbd_budget_wait none, large = {.granted = count_grant},
				     little = {.granted = count_grant};

	(void)state;
	grants = 0;
	nbd_budget_init(&b, 100);
	nbd_budget_share_init(&s[0]);
	nbd_budget_share_init(&s[1]);
	assert_true(nbd_budget_take(&b, &s[0], 60, &none));
	assert_false(nbd_budget_take(&b, &s[1], 50, &large));
	assert_false(nbd_budget_take(&b, &s[1], 40, &little));
	assert_true(nbd_budget_cancel(&b, &large));
	assert_int_equal(grants, 1);
	assert_false(nbd_budget_cancel(&b, &little));
	nbd_budget_force(&b, &s[1], 5);
	nbd_budget_give(&b, &s[1], 45);
	nbd_budget_give(&b, &s[0], 60);
	assert_int_equal(b.sharers, 0);
	nbd_budget_free(&b);
}

/* What a greedy export got, in order: 'g', and the modest one's 'm'. */
static char order[128];
static size_t got;

static void note_greedy(struct nbd_budget_wait *w)
{
	(void)w;
	order[got++] = 'g';
}

static void note_modest(struct nbd_budget_wait *w)
{
	(void)w;
	order[got++] = 'm';
}

static void one_reader_of_an_export_waits_for_one_of_anothers_sixty_four(void **state)
{
	struct nbd_budget_wait many[64], one = {.granted = note_modest};
	struct nbd_budget_share greedy, modest;
	struct nbd_budget b;

	(void)state;
	got = 0;
	nbd_budget_init(&b, 1 << 20);
	nbd_budget_share_init(&greedy);
	nbd_budget_share_init(&modest);
	for (int i = 0; i < 64; i++) {
		many[i] = (struct nbd_budget_wait){.granted = note_greedy};
		if (nbd_budget_take(&b, &greedy, 128 << 10, &many[i]))
			order[got++] = 'g';
	}
	assert_int_equal(got, 7); /* 7/8: room is left for others */
	assert_true(nbd_budget_take(&b, &modest, 128 << 10, &one));
	assert_false(nbd_budget_take(&b, &modest, 128 << 10, &one));
	/* who is over its half by now lets the other in first */
	nbd_budget_give(&b, &greedy, 128 << 10);
	assert_string_equal(order + 7, "m");
	for (int i = 0; i < 2; i++)
		nbd_budget_give(&b, &modest, 128 << 10);
	for (int i = 0; i < 63; i++)
		nbd_budget_give(&b, &greedy, 128 << 10);
	assert_int_equal(got, 65);
	nbd_budget_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(request_is_read_as_the_wire_has_it),
		cmocka_unit_test(wrong_magic_is_no_request),
		cmocka_unit_test(reads_inside_the_export_are_lawful),
		cmocka_unit_test(reads_past_the_end_are_invalid),
		cmocka_unit_test(oversized_reads_overflow_only_with_df),
		cmocka_unit_test(df_needs_structured_replies),
		cmocka_unit_test(whatever_would_write_is_not_permitted),
		cmocka_unit_test(unknown_commands_and_flags_are_invalid),
		cmocka_unit_test(block_status_needs_its_context),
		cmocka_unit_test(cache_may_ask_for_more_than_one_payload),
		cmocka_unit_test(only_a_write_brings_a_payload),
		cmocka_unit_test(read_headers_are_what_was_agreed),
		cmocka_unit_test(empty_structured_read_has_no_data_chunk),
		cmocka_unit_test(errors_of_reads_are_chunks_once_agreed),
		cmocka_unit_test(errno_becomes_an_error_of_the_wire),
		cmocka_unit_test(status_runs_become_lawful),
		cmocka_unit_test(status_reply_carries_context_and_runs),
		cmocka_unit_test(budget_lets_one_pass_however_large),
		cmocka_unit_test(budget_lets_nobody_overtake),
		cmocka_unit_test(one_reader_of_an_export_waits_for_one_of_anothers_sixty_four),
		cmocka_unit_test(leaving_the_line_lets_the_next_one_in),
	};

	return cmocka_run_group_tests_name("nbd_transmission", tests, NULL, NULL);
}
