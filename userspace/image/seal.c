/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/push.h"
#include "origin/url.h"

/* Sealed before, and the blob is still that one: nothing to read. */
static bool is_sealed_as(const struct manifest *there, const char *name,
			 const struct origin_stat *st)
{
	if (there->length != st->length || !st->etag[0] || there->nblobs == 0 ||
	    strcmp(there->blobs[0].name, name) != 0 || strcmp(there->blobs[0].etag, st->etag) != 0)
		return false;
	for (uint32_t i = 0; i < there->nparts; i++) {
		const struct manifest_part *p = &there->parts[i];

		if (p->blob != MANIFEST_ZERO && (p->blob != 0 || p->blob_off != p->off))
			return false;
	}
	return true;
}

/* The manifest's first blob is the sealed one; a part is where it is in the image. */
static struct manifest *draft(struct image_tree *t, const char *name, const char *etag)
{
	struct manifest *m = NULL;

	if (!runs_limit(&t->data, PUBLISH_DATA_RUNS))
		m = publish_draft(t, 2, (uint32_t)publish_parts_room(&t->data, UINT64_MAX));
	if (!m)
		return NULL;
	m->nparts = publish_lay_parts(&t->data, m->length, UINT64_MAX, 0, m->parts);
	for (uint32_t i = 0; i < m->nparts; i++)
		if (m->parts[i].blob != MANIFEST_ZERO)
			m->parts[i].blob_off = m->parts[i].off;
	m->blobs[0].name = strdup(name);
	m->blobs[0].etag = strdup(etag);
	m->nblobs = 1;
	if (m->blobs[0].name && m->blobs[0].etag)
		return m;
	manifest_free(m);
	return NULL;
}

/* A file can be read here and now, and tells where its holes are. -1: not a local one. */
static int open_local(const struct image_site *s, const struct origin_stat *st)
{
	char url[ORIGIN_URL_MAX], path[ORIGIN_URL_MAX];
	struct stat now;
	int fd;

	origin_url(s->origin, s->name, url, sizeof(url));
	if (strcmp(origin_kind(s->origin), "file") != 0 || strncmp(url, "file://", 7) != 0 ||
	    url_decode(url + 7, strlen(url + 7), path, sizeof(path)))
		return -1;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd >= 0 && (fstat(fd, &now) || (uint64_t)now.st_size != st->length)) {
		close(fd);
		return -1;
	}
	return fd;
}

static int build_local(struct image_site *s, const struct publish_options *opt, int fd,
		       const struct origin_stat *before, struct image_tree **t, struct err *err)
{
	struct origin_stat now;
	int rc = image_tree_build(fd, before->length, 0, opt->progress, t, err);

	if (!rc)
		rc = origin_stat(s->client, s->origin, s->name, &now, err);
	if (!rc && strcmp(now.etag, before->etag) != 0)
		rc = -ESTALE;
	return rc == -ENODATA ? -ESTALE : rc;
}

static int build_tree(struct image_site *s, const struct publish_options *opt,
		      const struct origin_stat *st, struct image_tree **t, struct err *err)
{
	struct image_blob blob = {
		.origin = s->origin, .name = s->name, .etag = st->etag, .length = st->length};
	int fd = open_local(s, st), rc;

	if (fd >= 0) {
		rc = build_local(s, opt, fd, st, t, err);
		close(fd);
	} else {
		rc = image_tree_build_blob(&blob, &s->config,
					   opt->threads ? opt->threads : PUBLISH_THREADS,
					   opt->progress, t, err);
	}
	if (rc == -ESTALE)
		err_set(err, rc, "blob %s changed while it was read; nothing was published",
			s->name);
	return rc;
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
	struct manifest *there = NULL;
	struct image_tree *t = NULL;
	int rc;

	if ((rc = publish_check_site(s, err)) ||
	    (rc = origin_stat(s->client, s->origin, s->name, &st, err)) ||
	    (rc = publish_find(s, &there, err)))
		return rc;
	res->length = res->data_len = st.length;
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
		rc = build_tree(s, opt, &st, &t, err);
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
