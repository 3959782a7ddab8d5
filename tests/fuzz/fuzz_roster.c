/* SPDX-License-Identifier: Apache-2.0 */
/* The roster: a memfd of any bytes, and one whose two slots were written over anywhere (a writer
 * killed, a memory gone bad): loading gives a roster that was saved, or says it is damaged. An
 * input that begins with 'J' is JSON under a right sum. */
#include <errno.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "fuzz.h"
#include "worker/roster.h"

#define SLOT (64 * MIB)

static bool ends(const char *s, size_t room)
{
	return memchr(s, 0, room) != NULL;
}

static int load(int fd, struct roster_entry **e, size_t *n)
{
	struct err err = {0};
	int rc = roster_load(fd, e, n, &err);

	must(rc == 0 || (rc < 0 && err.text[0]));
	for (size_t i = 0; !rc && i < *n; i++) {
		struct roster_entry *at = &(*e)[i];

		must(ends(at->url, sizeof(at->url)) && ends(at->name, sizeof(at->name)));
		must(ends(at->device, sizeof(at->device)) && ends(at->way, sizeof(at->way)));
	}
	return rc;
}

static void save(int fd, const struct roster_entry *e, size_t n)
{
	const char **texts = calloc(n + 1, sizeof(*texts));

	must(texts);
	for (size_t i = 0; i < n; i++)
		must(texts[i] = roster_text(&e[i]));
	must(roster_save(fd, NULL, texts, n) == 0);
	for (size_t i = 0; i < n; i++)
		free((char *)texts[i]);
	free(texts);
}

/* As roster.c lays a slot out. */
static void json_with_sum(int fd, const uint8_t *json, size_t len)
{
	struct {
		uint64_t magic;
		uint32_t version, reserved;
		uint64_t sequence, len;
		uint8_t sum[SHA256_LEN];
	} h = {0x54534f5243524e43ULL, 1, 0, 1, len, {0}};
	uint64_t frame[2] = {h.sequence, h.len};
	uint8_t both[SHA256_LEN + sizeof(frame)];

	sha256(json, len, both);
	memcpy(both + SHA256_LEN, frame, sizeof(frame));
	sha256(both, sizeof(both), h.sum);
	must(pwrite_all(fd, &h, sizeof(h), 0) == 0 && pwrite_all(fd, json, len, sizeof(h)) == 0);
}

/* Two rosters are saved; then the input is written over one slot. */
static void written_over(int fd, struct input *in)
{
	struct roster_entry one = {.url = "file:///d/one", .name = "one"}, *e = NULL;
	uint64_t at = take_number(in, 1) & 1 ? SLOT : 0;
	size_t n = 0;

	save(fd, &one, 1);
	strcpy(one.name, "two");
	save(fd, &one, 1);
	at += take_number(in, 1);
	must(pwrite_all(fd, in->at, in->left, at) == 0);
	must(load(fd, &e, &n) == 0); /* the other slot is whole */
	must(n == 1 && (strcmp(e->name, "one") == 0 || strcmp(e->name, "two") == 0));
	free(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	struct roster_entry *e = NULL;
	size_t n = 0;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	must(fd >= 0);
	switch (take_number(&in, 1)) {
	case 'J':
		json_with_sum(fd, in.at, in.left);
		break;
	case 'W':
		written_over(fd, &in);
		break;
	default:
		must(in.left == 0 || pwrite_all(fd, in.at, in.left, 0) == 0);
	}
	if (load(fd, &e, &n) == 0) {
		must((n == 0) == (e == NULL));
		save(fd, e, n); /* what was loaded can be saved.. */
		free(e);
		must(load(fd, &e, &n) == 0); /* ..and comes back */
		free(e);
	}
	close(fd);
	return 0;
}
