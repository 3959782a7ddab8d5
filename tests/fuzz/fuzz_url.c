/* SPDX-License-Identifier: Apache-2.0 */
/* URLs of images: taken apart, encoded and decoded, and their secrets masked. */
#include <stdbool.h>

#include "fuzz.h"
#include "origin/origin.h"
#include "origin/url.h"

static void encoding_comes_back(const char *s)
{
	size_t need = url_encode(s, "/", NULL, 0);
	char *coded = malloc(need + 1), *back = malloc(strlen(s) + 1);

	must(coded && back);
	must(url_encode(s, "/", coded, need + 1) == need && strlen(coded) == need);
	must(url_decode(coded, need, back, strlen(s) + 1) == 0);
	must(strcmp(s, back) == 0);
	free(coded);
	free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct url_hints hints = {.account = "acc",
					       .blob_endpoint = "http://127.0.0.1:10000/acc",
					       .suffix = "core.windows.net"};
	struct input in = {data, len};
	bool hinted = take_number(&in, 1) & 1;
	char *s = take_string(&in, 0), account[AZURE_ACCOUNT_MAX + 1];
	struct url *u = malloc(sizeof(*u));
	struct err err = {0};
	char masked[64], value[64];

	must(u);
	encoding_comes_back(s);
	if (url_parse(s, hinted ? &hints : NULL, u, &err) == 0) {
		must(url_name_is_valid(u->name));
		must(u->kind != URL_AZURE || u->container[0]);
		must(!u->folder[0] || u->folder[strlen(u->folder) - 1] == '/');
		encoding_comes_back(u->name);
		(void)url_query_value(u->query, "sig", value, sizeof(value));
	} else {
		must(err.text[0]);
	}
	(void)url_endpoint_account(s, hinted ? "core.windows.net" : NULL, account);
	origin_redact_url(s, masked, sizeof(masked));
	must(memchr(masked, 0, sizeof(masked)));
	free(u);
	free(s);
	return 0;
}
