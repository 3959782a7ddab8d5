/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata contexts: what is offered, what is set, and for which export it holds. */
#include "nbd_handshake_bed.h"

static void contexts_need_structured_replies(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	say_context(b, NBD_OPT_LIST_META_CONTEXT, "one", NULL);
	feed(b, 4096);
	expect(b, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ERR_INVALID, NULL);
	say_context(b, NBD_OPT_SET_META_CONTEXT, "one", "base:allocation");
	expect_refusal(b, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID);
	assert_false(b->h.context);
}

static void listing_contexts_answers_all_none_and_wildcard_queries(void **state)
{
	static const struct {
		const char *query;
		bool found;
	} cases[] = {{NULL, true},	{"base:", true},      {"base:allocation", true},
		     {"base:x", false}, {"qemu:", false},     {"", false},
		     {"base", false},	{"base:alloc", false}};
	struct bed *b = *state;

	greet_well(b);
	agree_on_structured(b);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint32_t len;

		say_context(b, NBD_OPT_LIST_META_CONTEXT, "one", cases[i].query);
		feed(b, 4096);
		if (cases[i].found)
			assert_memory_equal(
				expect(b, NBD_OPT_LIST_META_CONTEXT, NBD_REP_META_CONTEXT, &len) +
					4,
				"base:allocation", 15);
		expect(b, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK, NULL);
		assert_int_equal(unheard(b), 0);
		assert_false(b->h.context);
	}
}

static void setting_a_context_takes_its_exact_name(void **state)
{
	struct bed *b = *state;
	uint32_t id;

	greet_well(b);
	agree_on_structured(b);
	say_context(b, NBD_OPT_SET_META_CONTEXT, "one", "base:");
	feed(b, 4096);
	expect(b, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL);
	assert_false(b->h.context);
	say_context(b, NBD_OPT_SET_META_CONTEXT, "one", "base:allocation");
	feed(b, 4096);
	memcpy(&id, expect(b, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, NULL), sizeof(id));
	assert_int_equal(be32toh(id), NBD_CONTEXT_ALLOCATION_ID);
	expect(b, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL);
	say_go(b, NBD_OPT_GO, "one");
	feed(b, 4096);
	assert_true(b->h.context);
}

static void failed_set_forgets_the_context_before(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	agree_on_structured(b);
	say_context(b, NBD_OPT_SET_META_CONTEXT, "one", "base:allocation");
	say_context(b, NBD_OPT_SET_META_CONTEXT, "three", "base:allocation");
	feed(b, 4096);
	expect(b, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, NULL);
	expect(b, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL);
	expect_refusal(b, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_UNKNOWN);
	assert_false(b->h.context);
}

static void context_of_one_export_does_not_hold_for_another(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	agree_on_structured(b);
	say_context(b, NBD_OPT_SET_META_CONTEXT, "one", "base:allocation");
	say_go(b, NBD_OPT_GO, "two");
	feed(b, 4096);
	assert_int_equal(b->h.state, NBD_HANDSHAKE_READY);
	assert_false(b->h.context);
}

static void context_queries_that_do_not_add_up_are_invalid(void **state)
{
	struct bed *b = *state;

	greet_well(b);
	agree_on_structured(b);
	say_option(b, NBD_OPT_SET_META_CONTEXT, 4 + 3 + 4);
	say_string(b, "one");
	say_u32(b, 0xffffffff); /* queries that are not there */
	say_option(b, NBD_OPT_SET_META_CONTEXT, 4 + 3 + 4 + 1);
	say_string(b, "one");
	say_u32(b, 0);
	say(b, "x", 1);
	feed(b, 4096);
	expect(b, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID, NULL);
	expect_refusal(b, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(contexts_need_structured_replies),
		T(listing_contexts_answers_all_none_and_wildcard_queries),
		T(setting_a_context_takes_its_exact_name),
		T(failed_set_forgets_the_context_before),
		T(context_of_one_export_does_not_hold_for_another),
		T(context_queries_that_do_not_add_up_are_invalid),
	};

	return cmocka_run_group_tests_name("nbd_context", tests, NULL, NULL);
}
