/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd_handshake_bed.h"

static void greeting_is_fixed_newstyle_and_offers_no_zeroes(void **state)
{
	struct bed *b = *state;
	struct nbd_wire_greeting g;

	hear(b, &g, sizeof(g));
	assert_memory_equal(&g.magic, "NBDMAGIC", 8);
	assert_memory_equal(&g.option_magic, "IHAVEOPT", 8);
	assert_int_equal(be16toh(g.flags), 3);
}

static void client_without_fixed_newstyle_is_dropped(void **state)
{
	greet(*state, 0);
	assert_int_equal(((struct bed *)*state)->h.state, NBD_HANDSHAKE_BROKEN);
}

static void client_with_unknown_flags_is_dropped(void **state)
{
	greet(*state, NBD_FLAG_FIXED_NEWSTYLE | 1 << 7);
	assert_int_equal(((struct bed *)*state)->h.state, NBD_HANDSHAKE_BROKEN);
}

static void client_that_speaks_something_else_is_dropped(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	say(b, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 35);
	feed(b, 4096);
	assert_int_equal(b->h.state, NBD_HANDSHAKE_BROKEN);
}

static void go_leads_to_a_read_only_shared_export(void **state)
{
	struct bed *b = *state;
	uint16_t flags;

	greet_well(b);
	say_go(b, NBD_OPT_GO, "two");
	say(b, "tail", 4);
	feed(b, 4096);
	flags = expect_go(b, NBD_OPT_GO, 16384);
	assert_int_equal(flags, NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_CAN_MULTI_CONN |
					NBD_FLAG_SEND_CACHE);
	assert_int_equal(b->h.state, NBD_HANDSHAKE_READY);
	assert_ptr_equal(b->h.export, &exports[1]);
	assert_int_equal(b->in_len, 4); /* what follows belongs to transmission */
}

static void empty_name_goes_to_the_only_export(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	say_go(b, NBD_OPT_GO, "");
	feed(b, 4096);
	expect_go(b, NBD_OPT_GO, 8192);
}

static void asked_name_and_description_are_told_once_each(void **state)
{
	struct bed *b = *state;
	const uint8_t *data;
	uint32_t len;

	greet_well(b);
	say_option(b, NBD_OPT_INFO, 4 + 0 + 2 + 2 * 5);
	say_string(b, "");
	say_u16(b, 5);
	say_u16(b, NBD_INFO_NAME);
	say_u16(b, NBD_INFO_DESCRIPTION);
	say_u16(b, NBD_INFO_NAME);
	say_u16(b, NBD_INFO_EXPORT);
	say_u16(b, 999);
	feed(b, 4096);
	expect(b, NBD_OPT_INFO, NBD_REP_INFO, NULL);
	expect(b, NBD_OPT_INFO, NBD_REP_INFO, NULL);
	data = expect(b, NBD_OPT_INFO, NBD_REP_INFO, &len);
	assert_memory_equal(data, "\0\1one", len);
	data = expect(b, NBD_OPT_INFO, NBD_REP_INFO, &len);
	assert_memory_equal(data, "\0\2the first", len);
	expect(b, NBD_OPT_INFO, NBD_REP_ACK, NULL);
	assert_int_equal(unheard(b), 0);
	assert_int_equal(b->h.state, NBD_HANDSHAKE_OPTIONS); /* INFO does not begin */
}

static void unknown_export_is_refused_and_framing_kept(void **state)
{
	greet_well(*state);
	say_go(*state, NBD_OPT_GO, "three");
	expect_refusal(*state, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN);
}

static void closing_export_is_unknown(void **state)
{
	struct bed *b = *state;

	atomic_store(&exports[1].closing, true);
	greet_well(b);
	say_go(b, NBD_OPT_GO, "two");
	expect_refusal(b, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN);
}

static void unknown_options_are_refused_and_framing_kept(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	say_option(b, 5, 0);  /* STARTTLS */
	say_option(b, 11, 0); /* EXTENDED_HEADERS */
	say_option(b, 0xdeadbeef, 7);
	say(b, "unknown", 7);
	feed(b, 4096);
	expect(b, 5, NBD_REP_ERR_UNSUP, NULL);
	expect(b, 11, NBD_REP_ERR_UNSUP, NULL);
	expect_refusal(b, 0xdeadbeef, NBD_REP_ERR_UNSUP);
}

static void go_whose_lengths_do_not_add_up_is_invalid(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	say_option(b, NBD_OPT_GO, 0);
	say_option(b, NBD_OPT_GO, 4 + 3); /* no count */
	say_string(b, "one");
	say_option(b, NBD_OPT_GO, 4 + 2); /* a name longer than the option */
	say_u32(b, 0xffffffff);
	say_u16(b, 0);
	say_option(b, NBD_OPT_GO, 4 + 3 + 2 + 1); /* one byte too many */
	say_string(b, "one");
	say_u16(b, 0);
	say(b, "x", 1);
	say_option(b, NBD_OPT_GO, 4 + 3 + 2); /* informations missing */
	say_string(b, "one");
	say_u16(b, 3);
	feed(b, 4096);
	for (int i = 0; i < 4; i++)
		expect(b, NBD_OPT_GO, NBD_REP_ERR_INVALID, NULL);
	expect_refusal(b, NBD_OPT_GO, NBD_REP_ERR_INVALID);
}

static void long_names_are_refused_by_what_is_wrong_with_them(void **state)
{
	struct bed *b = *state;
	char name[NBD_STRING_MAX + 2];

	memset(name, 'n', sizeof(name));
	greet_well(b);
	name[NBD_NAME_MAX + 1] = 0;
	say_go(b, NBD_OPT_GO, name);
	name[NBD_NAME_MAX + 1] = 'n';
	name[NBD_STRING_MAX + 1] = 0;
	say_go(b, NBD_OPT_INFO, name);
	say_option(b, NBD_OPT_GO, 4 + 3 + 2);
	say_u32(b, 3);
	say(b, "o\0e", 3);
	say_u16(b, 0);
	feed(b, 4096);
	expect(b, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, NULL);
	expect(b, NBD_OPT_INFO, NBD_REP_ERR_TOO_BIG, NULL);
	expect_refusal(b, NBD_OPT_GO, NBD_REP_ERR_INVALID);
}

static void oversized_options_are_skipped_and_refused(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	say_option(b, NBD_OPT_GO, NBD_OPTION_SKIP_MAX);
	b->in_len += NBD_OPTION_SKIP_MAX;
	expect_refusal(b, NBD_OPT_GO, NBD_REP_ERR_TOO_BIG);
}

static void options_past_all_limits_end_the_connection(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	say_option(b, NBD_OPT_GO, NBD_OPTION_SKIP_MAX + 1);
	feed(b, 4096);
	assert_int_equal(b->h.state, NBD_HANDSHAKE_BROKEN);
	assert_int_equal(nbd_handshake_feed(&b->h, b->in, b->in_len), 0);
}

static void export_name_pads_unless_no_zeroes_was_agreed(void **state)
{
	struct bed *b = *state;
	struct nbd_wire_export_name_reply r;

	greet(b, NBD_FLAG_FIXED_NEWSTYLE);
	say_option(b, NBD_OPT_EXPORT_NAME, 3);
	say(b, "two", 3);
	feed(b, 4096);
	assert_int_equal(unheard(b), 134);
	hear(b, &r, sizeof(r));
	assert_true(be64toh(r.size) == 16384);
	assert_int_equal(b->h.state, NBD_HANDSHAKE_READY);

	nbd_handshake_free(&b->h);
	nbd_handshake_init(&b->h, &directory);
	greet_well(b);
	say_option(b, NBD_OPT_EXPORT_NAME, 0);
	feed(b, 4096);
	assert_int_equal(unheard(b), 10);
}

static void unknown_export_name_ends_the_connection(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	say_option(b, NBD_OPT_EXPORT_NAME, 5);
	say(b, "three", 5);
	feed(b, 4096);
	assert_int_equal(b->h.state, NBD_HANDSHAKE_BROKEN);
}

static void list_names_each_export(void **state)
{
	struct bed *b = *state;
	const uint8_t *data;
	uint32_t len;

	greet_well(b);
	say_option(b, NBD_OPT_LIST, 0);
	feed(b, 4096);
	data = expect(b, NBD_OPT_LIST, NBD_REP_SERVER, &len);
	assert_memory_equal(data, "\0\0\0\3onethe first", len);
	data = expect(b, NBD_OPT_LIST, NBD_REP_SERVER, &len);
	assert_memory_equal(data, "\0\0\0\3twothe second", len);
	expect(b, NBD_OPT_LIST, NBD_REP_ACK, NULL);
}

static void list_and_structured_reply_with_data_are_invalid(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	say_option(b, NBD_OPT_LIST, 1);
	say(b, "x", 1);
	say_option(b, NBD_OPT_STRUCTURED_REPLY, 1);
	say(b, "x", 1);
	feed(b, 4096);
	expect(b, NBD_OPT_LIST, NBD_REP_ERR_INVALID, NULL);
	expect_refusal(b, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID);
	assert_false(b->h.structured);
}

static void abort_is_acknowledged_and_ends(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	say_option(b, NBD_OPT_ABORT, 0);
	say_option(b, NBD_OPT_LIST, 0);
	feed(b, 4096);
	expect(b, NBD_OPT_ABORT, NBD_REP_ACK, NULL);
	assert_int_equal(unheard(b), 0);
	assert_int_equal(b->h.state, NBD_HANDSHAKE_GOODBYE);
}

static void df_is_offered_with_structured_replies_only(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	agree_on_structured(b);
	say_go(b, NBD_OPT_GO, "one");
	feed(b, 4096);
	assert_true(expect_go(b, NBD_OPT_GO, 8192) & NBD_FLAG_SEND_DF);
}

static void conversation_is_the_same_however_it_is_cut(void **state)
{
	struct bed *b = *state;
	uint8_t *whole = NULL;
	size_t whole_len = 0;

	for (size_t chunk = 4096; chunk; chunk = chunk == 4096 ? 33 : chunk - 1) {
		nbd_handshake_free(&b->h);
		nbd_handshake_init(&b->h, &directory);
		b->in_len = 0;
		say_u32(b, 3);
		say_option(b, 77, 3);
		say(b, "abc", 3);
		say_option(b, NBD_OPT_STRUCTURED_REPLY, 0);
		say_option(b, NBD_OPT_LIST, NBD_OPTION_DATA_MAX + 1);
		b->in_len += NBD_OPTION_DATA_MAX + 1;
		say_context(b, NBD_OPT_SET_META_CONTEXT, "one", "base:allocation");
		say_go(b, NBD_OPT_INFO, "two");
		say_go(b, NBD_OPT_GO, "one");
		feed(b, chunk);
		assert_int_equal(b->h.state, NBD_HANDSHAKE_READY);
		assert_true(b->h.context);
		if (chunk == 4096) {
			whole_len = b->h.out_len;
			whole = malloc(whole_len);
			memcpy(whole, b->h.out, whole_len);
		}
		assert_int_equal(b->h.out_len, whole_len);
		assert_memory_equal(b->h.out, whole, whole_len);
	}
	free(whole);
}

static void random_options_neither_crash_nor_leak(void **state)
{
	struct bed *b = *state;
	uint32_t seed = 1;

	for (int round = 0; round < 20000; round++) {
		nbd_handshake_free(&b->h);
		nbd_handshake_init(&b->h, &directory);
		b->in_len = 0;
		say_u32(b, 3);
		for (int i = 0; i < 6; i++) {
			uint32_t len = (uint32_t)rand_r(&seed) % 40;

			say_option(b, (uint32_t)rand_r(&seed) % 12, len);
			for (uint32_t j = 0; j < len; j++) {
				uint8_t byte =
					rand_r(&seed) % 3 ? 0 : (uint8_t)(rand_r(&seed) % 16);

				say(b, &byte, 1);
			}
		}
		feed(b, 1 + (size_t)rand_r(&seed) % 100);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(greeting_is_fixed_newstyle_and_offers_no_zeroes),
		T(client_without_fixed_newstyle_is_dropped),
		T(client_with_unknown_flags_is_dropped),
		T(client_that_speaks_something_else_is_dropped),
		T(go_leads_to_a_read_only_shared_export),
		T(empty_name_goes_to_the_only_export),
		T(asked_name_and_description_are_told_once_each),
		T(unknown_export_is_refused_and_framing_kept),
		T(closing_export_is_unknown),
		T(unknown_options_are_refused_and_framing_kept),
		T(go_whose_lengths_do_not_add_up_is_invalid),
		T(long_names_are_refused_by_what_is_wrong_with_them),
		T(oversized_options_are_skipped_and_refused),
		T(options_past_all_limits_end_the_connection),
		T(export_name_pads_unless_no_zeroes_was_agreed),
		T(unknown_export_name_ends_the_connection),
		T(list_names_each_export),
		T(list_and_structured_reply_with_data_are_invalid),
		T(abort_is_acknowledged_and_ends),
		T(df_is_offered_with_structured_replies_only),
		T(conversation_is_the_same_however_it_is_cut),
		T(random_options_neither_crash_nor_leak),
	};

	return cmocka_run_group_tests_name("nbd_handshake", tests, NULL, NULL);
}
