/* SPDX-License-Identifier: Apache-2.0 */
/* Records between worker and supervisor: what passes the check holds strings that end, and numbers
 * within their arrays. The input's rest is copied over a good record from its front on, so that the
 * fields behind the magic are reached, too. */
#include <stdbool.h>
#include <supervisor_protocol.h>

#include "fuzz.h"

/* An array of exactly @room bytes: reading past it is seen. */
static bool ends(const char *s, size_t room)
{
	char *copy = malloc(room);
	bool good;

	must(copy);
	memcpy(copy, s, room);
	good = strlen(copy) < room;
	free(copy);
	return good;
}

static void request(const uint8_t *data, size_t len, size_t at)
{
	struct supervisor_request *m = calloc(1, sizeof(*m));
	size_t said = sizeof(*m);

	must(m);
	*m = (struct supervisor_request){.magic = SUPERVISOR_MAGIC,
					 .version = SUPERVISOR_VERSION,
					 .op = SUPERVISOR_ATTACH,
					 .name = "one"};
	at %= sizeof(*m);
	memcpy((uint8_t *)m + at, data, len < sizeof(*m) - at ? len : sizeof(*m) - at);
	if (len > sizeof(*m))
		said = len;
	if (supervisor_request_check(m, said) == 0) {
		must(said == sizeof(*m) && m->magic == SUPERVISOR_MAGIC);
		must(ends(m->name, sizeof(m->name)) && ends(m->way, sizeof(m->way)));
		must(ends(m->identity, sizeof(m->identity)));
		must(m->queues <= SUPERVISOR_LINKS_MAX && m->nfds <= SUPERVISOR_FDS_MAX);
		must(m->name[0] || !supervisor_op_has_name(m->op));
	}
	free(m);
}

static void reply(const uint8_t *data, size_t len, size_t at)
{
	struct supervisor_reply *m = calloc(1, sizeof(*m));

	must(m);
	*m = (struct supervisor_reply){.magic = SUPERVISOR_MAGIC, .version = SUPERVISOR_VERSION};
	at %= sizeof(*m);
	memcpy((uint8_t *)m + at, data, len < sizeof(*m) - at ? len : sizeof(*m) - at);
	if (supervisor_reply_check(m, sizeof(*m)) == 0) {
		must(ends(m->device, sizeof(m->device)) && ends(m->way, sizeof(m->way)));
		must(ends(m->text, sizeof(m->text)));
		must(m->code <= 0 && m->nfds <= SUPERVISOR_FDS_MAX);
	}
	free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	bool is_reply = take_number(&in, 1) & 1;
	size_t at = take_number(&in, 2);

	if (!in.left)
		return 0;
	if (is_reply)
		reply(in.at, in.left, at);
	else
		request(in.at, in.left, at);
	return 0;
}
