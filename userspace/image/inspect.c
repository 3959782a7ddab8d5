/* SPDX-License-Identifier: Apache-2.0 */
#include "image/inspect.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>

#include "image/open.h"

struct summary {
	uint64_t data_len, zero_len, tree_len;
	uint32_t holes;
};

static struct summary summarise(const struct manifest *m)
{
	struct summary s = {0};

	for (uint32_t i = 0; i < m->nparts; i++) {
		bool hole = m->parts[i].blob == MANIFEST_ZERO;

		*(hole ? &s.zero_len : &s.data_len) += m->parts[i].len;
		s.holes += hole;
	}
	for (uint32_t i = 0; i < m->ntree_parts; i++)
		if (m->tree_parts[i].blob != MANIFEST_ZERO)
			s.tree_len += m->tree_parts[i].len;
	return s;
}

static void show_text(const struct manifest *m, const char *url, FILE *out)
{
	struct summary s = summarise(m);
	char hex[2 * SHA256_LEN + 1], a[24];

	hex_encode(m->digest, SHA256_LEN, hex);
	fprintf(out, "manifest  %s\ndigest    sha256:%s\n", url, hex);
	fprintf(out, "length    %s (%llu bytes, %llu blocks of 64 KiB)\n",
		bytes_format(m->length, a, sizeof(a)), (unsigned long long)m->length,
		(unsigned long long)m->geometry.blocks);
	fprintf(out, "data      %s in %u parts\n", bytes_format(s.data_len, a, sizeof(a)),
		m->nparts - s.holes);
	fprintf(out, "holes     %s in %u parts\n", bytes_format(s.zero_len, a, sizeof(a)), s.holes);
	fprintf(out, "tree      %s of ", bytes_format(s.tree_len, a, sizeof(a)));
	fprintf(out, "%s, %u levels\n", bytes_format(m->geometry.tree_len, a, sizeof(a)),
		m->geometry.levels);
	for (uint32_t i = 0; i < m->nblobs; i++)
		fprintf(out, "%s  %s  %s\n", i ? "        " : "blobs   ", m->blobs[i].name,
			m->blobs[i].etag);
}

static cJSON *blobs_json(const struct manifest *m)
{
	cJSON *array = cJSON_CreateArray();

	for (uint32_t i = 0; i < m->nblobs; i++) {
		cJSON *blob = cJSON_CreateObject();

		cJSON_AddStringToObject(blob, "name", m->blobs[i].name);
		cJSON_AddStringToObject(blob, "etag", m->blobs[i].etag);
		cJSON_AddItemToArray(array, blob);
	}
	return array;
}

static int show_json(const struct manifest *m, const char *url, FILE *out)
{
	struct summary s = summarise(m);
	char digest[8 + 2 * SHA256_LEN] = "sha256:", root[2 * SHA256_LEN + 1], *text;
	cJSON *top = cJSON_CreateObject();

	hex_encode(m->digest, SHA256_LEN, digest + 7);
	hex_encode(m->root, SHA256_LEN, root);
	cJSON_AddStringToObject(top, "manifest", url);
	cJSON_AddStringToObject(top, "digest", digest);
	cJSON_AddStringToObject(top, "root_hash", root);
	cJSON_AddNumberToObject(top, "length", (double)m->length);
	cJSON_AddNumberToObject(top, "blocks", (double)m->geometry.blocks);
	cJSON_AddNumberToObject(top, "data_bytes", (double)s.data_len);
	cJSON_AddNumberToObject(top, "zero_bytes", (double)s.zero_len);
	cJSON_AddNumberToObject(top, "tree_bytes", (double)m->geometry.tree_len);
	cJSON_AddNumberToObject(top, "tree_stored_bytes", (double)s.tree_len);
	cJSON_AddNumberToObject(top, "tree_levels", m->geometry.levels);
	cJSON_AddNumberToObject(top, "parts", m->nparts);
	cJSON_AddNumberToObject(top, "tree_parts", m->ntree_parts);
	cJSON_AddItemToObject(top, "blobs", blobs_json(m));
	text = cJSON_Print(top);
	cJSON_Delete(top);
	if (!text)
		return -ENOMEM;
	fprintf(out, "%s\n", text);
	free(text);
	return 0;
}

int image_inspect(const char *url, bool json, FILE *out, struct err *err)
{
	struct image_site s;
	struct manifest *m = NULL;
	char name[ORIGIN_NAME_MAX + 1], shown[ORIGIN_URL_MAX];
	int rc = image_site_open(&s, url, err);

	if (!rc)
		rc = image_open(s.client, s.origin, s.name, &m, NULL, err);
	if (!rc)
		rc = image_manifest_name(s.name, name, err);
	if (!rc) {
		origin_url(s.origin, name, shown, sizeof(shown));
		if (!json)
			show_text(m, shown, out);
		else if (show_json(m, shown, out))
			rc = err_set(err, -ENOMEM, "no memory for the JSON");
	}
	manifest_free(m);
	image_site_close(&s);
	return rc;
}
