/* SPDX-License-Identifier: Apache-2.0 */
/* What origins and token endpoints answer: headers in lines, then what they allow a range read;
 * and the JSON of a token (first byte 'T') or of a refusal ('E'). */
#include <stdbool.h>

#include "fuzz.h"
#include "origin/azure_error.h"
#include "origin/http_answer.h"
#include "origin/token_answer.h"

static void headers(struct input *in)
{
	static struct http_answer a;
	uint64_t off = take_number(in, 3);
	uint32_t len = 1 + (uint32_t)take_number(in, 2), got = (uint32_t)take_number(in, 1) % len;
	uint32_t skip = 0;
	char why[128] = "", *body;
	int rc;

	http_answer_reset(&a);
	while (in->left) {
		char *line = take_string(in, '\n');

		if (!*line) {
			free(line);
			break;
		}
		/* an exact copy without a NUL, as curl gives it */
		char *exact = malloc(strlen(line));
		must(exact);
		memcpy(exact, line, strlen(line));
		http_answer_header(&a, exact, strlen(line), 1700000000);
		free(exact);
		free(line);
	}
	must(memchr(a.etag, 0, sizeof(a.etag)) && memchr(a.error_code, 0, sizeof(a.error_code)));
	body = take_string(in, 0);
	a.body_len = strlen(body) < sizeof(a.body) ? strlen(body) : sizeof(a.body) - 1;
	memcpy(a.body, body, a.body_len);
	a.body[a.body_len] = 0;
	free(body);
	rc = http_answer_check_range(&a, off, len, got, &skip, why, sizeof(why));
	must(rc <= 0 && (rc == 0 || why[0]));
	/* what may fill the range begins where it was asked for */
	if (rc == 0 && a.status == 206)
		must(a.from == (int64_t)(off + got) - (int64_t)skip);
	if (rc == 0 && a.status == 200)
		must(skip == off + got);
	(void)http_status_errno(a.status);
	(void)azure_error_is_container(&a);
	(void)azure_error_is_token(&a);
}

static void token(struct input *in)
{
	static struct token_answer t;
	uint8_t *json = malloc(in->left + !in->left);
	struct err err = {0};

	must(json);
	memcpy(json, in->at, in->left);
	if (token_answer_parse((char *)json, in->left, 1700000000, &t, &err) == 0) {
		must(t.life_s > 0 && t.renew_s < t.life_s && t.token[0]);
		must(memchr(t.client, 0, sizeof(t.client)) &&
		     memchr(t.object, 0, sizeof(t.object)));
	} else {
		must(err.code < 0 && err.text[0]);
		must(!t.token[0]);
	}
	free(json);
}

static void refusal(struct input *in)
{
	char *body = take_string(in, 0), out[100];

	token_answer_error(body, "SECRET", out, sizeof(out));
	must(!strstr(out, "SECRET") && !strpbrk(out, "\r\n"));
	(void)azure_sas_time(body);
	free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len};

	switch (take_number(&in, 1)) {
	case 'T':
		token(&in);
		break;
	case 'E':
		refusal(&in);
		break;
	default:
		headers(&in);
	}
	return 0;
}
