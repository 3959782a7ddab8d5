/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/push.h"

/* Sealed before, and the blob is still that one: nothing to read. */
static bool is_sealed_as(const struct manifest *there, const char *name,
			 const struct origin_stat *st)
{
	return there->nparts == 1 && there->length == st->length &&
	       there->parts[0].blob != MANIFEST_ZERO && there->parts[0].blob_off == 0 &&
	       strcmp(there->blobs[there->parts[0].blob].name, name) == 0 && st->etag[0] &&
	       strcmp(there->blobs[there->parts[0].blob].etag, st->etag) == 0;
}

/* The manifest's first blob is the sealed one, its only data part the whole of it. */
static struct manifest *draft(const struct image_tree *t, const char *name, const char *etag)
{
	struct manifest *m = publish_draft(t, 2, 1);

	if (!m)
		return NULL;
	m->parts[0] = (struct manifest_part){.len = t->geometry.length};
	m->nparts = 1;
	m->blobs[0].name = strdup(name);
	m->blobs[0].etag = strdup(etag);
	m->nblobs = 1;
	if (m->blobs[0].name && m->blobs[0].etag)
		return m;
	manifest_free(m);
	return NULL;
}

static int publish(struct image_site *s, const struct publish_options *opt, struct image_tree *t,
		   const struct manifest *there, const char *etag, struct publish_result *res,
		   struct err *err)
{
	struct manifest *m;
	int rc;

	memcpy(res->digest, t->digest, SHA256_LEN);
	if (there) {
		rc = publish_compare(s, there, t->digest, err);
		res->was_there = rc == 0;
		return rc;
	}
	m = draft(t, s->name, etag);
	if (!m)
		return err_set(err, -ENOMEM, "no memory for the manifest");
	rc = publish_tree(s, opt, t, m, res, err);
	if (!rc)
		rc = publish_manifest(s, m, res, err);
	manifest_free(m);
	return rc;
}

static int seal(struct image_site *s, const struct publish_options *opt, struct publish_result *res,
		struct err *err)
{
	struct origin_stat st;
	struct image_blob blob = {.origin = s->origin, .name = s->name, .etag = st.etag};
	struct manifest *there = NULL;
	struct image_tree *t = NULL;
	int rc;

	if ((rc = publish_check_site(s, err)) ||
	    (rc = origin_stat(s->client, s->origin, s->name, &st, err)) ||
	    (rc = publish_find(s, &there, err)))
		return rc;
	res->length = res->data_len = blob.length = st.length;
	res->nblobs = 1;
	if (st.length == 0)
		rc = err_set(err, -EINVAL, "blob %s is empty: an image has at least one byte",
			     s->name);
	if (!rc && there && is_sealed_as(there, s->name, &st)) {
		memcpy(res->digest, there->digest, SHA256_LEN);
		res->was_there = true;
		goto out;
	}
	if (!rc)
		rc = image_tree_build_blob(&blob, &s->config,
					   opt->threads ? opt->threads : PUBLISH_THREADS,
					   opt->progress, &t, err);
	if (rc == -ESTALE)
		rc = err_set(err, rc, "blob %s changed while it was read; nothing was published",
			     s->name);
	if (!rc)
		rc = publish(s, opt, t, there, st.etag, res, err);
out:
	image_tree_free(t);
	manifest_free(there);
	return rc;
}

int image_seal(const char *url, const struct publish_options *opt, struct publish_result *res,
	       struct err *err)
{
	struct image_site s;
	char name[ORIGIN_NAME_MAX + 1];
	int rc;

	memset(res, 0, sizeof(*res));
	rc = image_site_open(&s, url, err);
	if (!rc)
		rc = seal(&s, opt, res, err);
	if (!rc && !image_manifest_name(s.name, name, NULL))
		origin_url(s.origin, name, res->url, sizeof(res->url));
	image_site_close(&s);
	return rc;
}
