/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest's reader: what it accepts keeps every promise of manifest.h, and is the same when it
 * is written and read again. */
#include <stdbool.h>

#include "fuzz.h"
#include "image/manifest.h"

static void parts_cover(const struct manifest *m, const struct manifest_part *p, uint32_t n,
			uint64_t length)
{
	uint64_t at = 0;

	for (uint32_t i = 0; i < n; i++) {
		must(p[i].off == at && p[i].len > 0 && p[i].len <= length - at);
		must(p[i].off % BLOCK_SIZE == 0);
		must(p[i].blob == MANIFEST_ZERO || p[i].blob < m->nblobs);
		must(p[i].blob == MANIFEST_ZERO || p[i].blob_off <= UINT64_MAX - p[i].len);
		must(manifest_find(p, n, at) == &p[i]);
		at += p[i].len;
		must(manifest_find(p, n, at - 1) == &p[i]);
	}
	must(at == length);
}

static void keeps_its_promises(const struct manifest *m)
{
	uint8_t digest[SHA256_LEN];

	must(m->length >= 1 && m->length <= IMAGE_LENGTH_MAX);
	must(m->geometry.length == m->length);
	image_digest(m->length, m->root, digest);
	must(memcmp(digest, m->digest, sizeof(digest)) == 0);
	must(m->nblobs <= MANIFEST_BLOBS_MAX && m->nparts + m->ntree_parts <= MANIFEST_PARTS_MAX);
	for (uint32_t i = 0; i < m->nblobs; i++)
		must(manifest_name_is_safe(m->blobs[i].name) && m->blobs[i].etag);
	parts_cover(m, m->parts, m->nparts, m->length);
	parts_cover(m, m->tree_parts, m->ntree_parts, m->geometry.tree_len);
}

/* Digest and root belong together in what is read, which no mutation gets right: an input that
 * begins with '!' says the root, and gets the digest that belongs to it at the first '@'. */
static char *with_digest(struct input *in)
{
	char *json, *mark, hex[2 * SHA256_LEN + 1];
	uint8_t root[SHA256_LEN], digest[SHA256_LEN];
	uint64_t length = take_number(in, 3);

	memset(root, (int)take_number(in, 1), sizeof(root));
	image_digest(length, root, digest);
	hex_encode(digest, sizeof(digest), hex);
	json = take_string(in, 0);
	mark = strchr(json, '@');
	if (mark && strlen(mark) >= sizeof(hex) - 1)
		memcpy(mark, hex, sizeof(hex) - 1);
	return json;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	struct manifest *m, *again;
	struct err err = {0};
	char *json, *first, *second;

	if (len && data[0] == '!') {
		take_number(&in, 1);
		json = with_digest(&in);
		len = strlen(json);
	} else {
		json = malloc(len + !len);
		must(json);
		memcpy(json, data, len);
	}
	if (manifest_parse(json, len, "fuzz", &m, &err)) {
		must(err.code < 0 && err.text[0]);
		free(json);
		return 0;
	}
	free(json);
	keeps_its_promises(m);
	first = manifest_format(m);
	must(first);
	must(manifest_parse(first, strlen(first), "fuzz", &again, &err) == 0);
	second = manifest_format(again);
	must(second && strcmp(first, second) == 0);
	free(first);
	free(second);
	manifest_free(m);
	manifest_free(again);
	return 0;
}
