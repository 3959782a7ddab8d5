/* SPDX-License-Identifier: Apache-2.0 */
#include "image/publish.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/upload.h"

int publish_check_site(const struct image_site *s, struct err *err)
{
	size_t n = strlen(s->name), suffix = strlen(MANIFEST_SUFFIX);

	if (!origin_is_writable(s->origin))
		return err_set(err, -EROFS,
			       "can't publish to a plain http server; use an az:// or file:// URL");
	if (n >= suffix && strcmp(s->name + n - suffix, MANIFEST_SUFFIX) == 0)
		return err_set(err, -EINVAL, "give the image's URL, without " MANIFEST_SUFFIX);
	if (!manifest_name_is_safe(s->name))
		return err_set(
			err, -EINVAL,
			"\"%s\" can't be an image's name: no \"..\", no backslash, no control "
			"characters, no \"scheme:\"",
			s->name);
	if (n > ORIGIN_NAME_MAX - 40)
		return err_set(err, -ENAMETOOLONG, "the image's name is over %d bytes",
			       ORIGIN_NAME_MAX - 40);
	return 0;
}

int publish_find(struct image_site *s, struct manifest **out, struct err *err)
{
	int rc = image_open(s->client, s->origin, s->name, out, NULL, err);

	if (rc == -ENOENT) {
		*out = NULL;
		err->code = 0;
		return 0;
	}
	return rc;
}

int publish_compare(const struct image_site *s, const struct manifest *there,
		    const uint8_t digest[SHA256_LEN], struct err *err)
{
	char was[2 * SHA256_LEN + 1], is[2 * SHA256_LEN + 1], url[ORIGIN_URL_MAX];
	char name[ORIGIN_NAME_MAX + 1] = "";

	if (memcmp(there->digest, digest, SHA256_LEN) == 0)
		return 0;
	hex_encode(there->digest, SHA256_LEN, was);
	hex_encode(digest, SHA256_LEN, is);
	image_manifest_name(s->name, name, NULL);
	return err_set(err, -EEXIST,
		       "%.300s is already published as sha256:%s, this image is sha256:%s; choose "
		       "another name, or delete that manifest first",
		       origin_url(s->origin, name, url, sizeof(url)), was, is);
}

struct manifest *publish_draft(const struct image_tree *t, uint32_t nblobs, uint32_t nparts)
{
	struct manifest *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->length = t->geometry.length;
	m->geometry = t->geometry;
	memcpy(m->root, t->root, SHA256_LEN);
	memcpy(m->digest, t->digest, SHA256_LEN);
	m->blobs = calloc(nblobs ? nblobs : 1, sizeof(*m->blobs));
	m->parts = calloc(nparts ? nparts : 1, sizeof(*m->parts));
	if (m->blobs && m->parts)
		return m;
	manifest_free(m);
	return NULL;
}

size_t publish_parts_room(const struct runs *runs, uint64_t blob_max)
{
	return 2 * (size_t)runs->n + 2 + runs_total(runs) / blob_max;
}

uint32_t publish_lay_parts(const struct runs *runs, uint64_t length, uint64_t blob_max,
			   uint32_t first_blob, struct manifest_part *out)
{
	uint64_t at = 0, pos = 0;
	uint32_t n = 0;

	for (uint32_t i = 0; i < runs->n; i++) {
		uint64_t end = runs->v[i].off + runs->v[i].len;

		if (runs->v[i].off > at)
			out[n++] =
				(struct manifest_part){at, runs->v[i].off - at, 0, MANIFEST_ZERO};
		for (at = runs->v[i].off; at < end;) {
			uint64_t room = blob_max - pos % blob_max;
			uint64_t len = end - at < room ? end - at : room;

			out[n++] = (struct manifest_part){at, len, pos % blob_max,
							  first_blob + (uint32_t)(pos / blob_max)};
			at += len;
			pos += len;
		}
	}
	if (at < length)
		out[n++] = (struct manifest_part){at, length - at, 0, MANIFEST_ZERO};
	return n;
}

int publish_add_blob(struct manifest *m, const char *name, const char *kind, struct err *err)
{
	struct manifest_blob *blob = &m->blobs[m->nblobs];
	char hex[2 * 8 + 1];

	hex_encode(m->digest, 8, hex);
	if (asprintf(&blob->name, "%s.%s.%s", name, hex, kind) < 0) {
		blob->name = NULL;
		return err_set(err, -ENOMEM, "no memory for a blob's name");
	}
	m->nblobs++;
	return 0;
}

int publish_tree(struct image_site *s, const struct publish_options *opt, struct image_tree *t,
		 struct manifest *m, struct publish_result *res, struct err *err)
{
	struct upload u = {
		.origin = s->origin,
		.config = &s->config,
		.threads = opt->threads ? opt->threads : PUBLISH_THREADS,
		.progress = opt->progress,
		.phase = "sending the tree",
		.fd = t->fd,
	};
	struct manifest_part *parts;
	uint32_t n = 0;
	int rc = image_tree_limit_runs(t, PUBLISH_TREE_RUNS, err);

	if (rc)
		return rc;
	m->tree_parts = calloc(publish_parts_room(&t->blocks, UINT64_MAX), sizeof(*m->tree_parts));
	parts = calloc(t->blocks.n + 1, sizeof(*parts));
	if (!m->tree_parts || !parts) {
		free(parts);
		return err_set(err, -ENOMEM, "no memory for the tree's parts");
	}
	m->ntree_parts = publish_lay_parts(&t->blocks, t->geometry.tree_len, UINT64_MAX, m->nblobs,
					   m->tree_parts);
	for (uint32_t i = 0; i < m->ntree_parts; i++)
		if (m->tree_parts[i].blob != MANIFEST_ZERO)
			parts[n++] = m->tree_parts[i];
	if (n) {
		rc = publish_add_blob(m, s->name, "tree", err);
		u.name = rc ? NULL : m->blobs[m->nblobs - 1].name;
		u.parts = parts;
		u.nparts = n;
		if (!rc)
			rc = upload_blob(&u, s->client, err);
		if (!rc && !(m->blobs[m->nblobs - 1].etag = strdup(u.etag)))
			rc = err_set(err, -ENOMEM, "no memory for an ETag");
	}
	free(parts);
	res->tree_len = runs_total(&t->blocks);
	res->sent += u.sent;
	return rc;
}

/* Two pushes of one image may lay its data out in different ways (other holes) under the same blob
 * names: the one whose blob was overwritten meanwhile must not publish. */
static int check_blobs(struct image_site *s, const struct manifest *m, struct err *err)
{
	struct origin_stat st;

	for (uint32_t i = 0; i < m->nblobs; i++) {
		int rc = origin_stat(s->client, s->origin, m->blobs[i].name, &st, err);

		if (rc)
			return rc;
		if (strcmp(st.etag, m->blobs[i].etag) != 0)
			return err_set(
				err, -ESTALE,
				"blob %s was changed by somebody else meanwhile; nothing was "
				"published, run it again",
				m->blobs[i].name);
	}
	return 0;
}

int publish_manifest(struct image_site *s, const struct manifest *m, struct publish_result *res,
		     struct err *err)
{
	char name[ORIGIN_NAME_MAX + 1], *json;
	struct manifest *check = NULL;
	int rc = image_manifest_name(s->name, name, err);

	if (!rc)
		rc = check_blobs(s, m, err);
	if (rc)
		return rc;
	json = manifest_format(m);
	if (!json)
		return err_set(err, -ENOMEM, "no memory for the manifest");
	/* A manifest that no reader would take must not be published. */
	rc = manifest_parse(json, strlen(json), name, &check, err);
	if (!rc)
		rc = origin_put(s->client, s->origin, name, json, strlen(json), true, err);
	manifest_free(check);
	free(json);
	if (rc == -EEXIST) {
		rc = publish_find(s, &check, err);
		if (!rc && check)
			rc = publish_compare(s, check, m->digest, err);
		res->was_there = rc == 0;
		if (check)
			manifest_free(check);
	}
	return rc;
}
