/* SPDX-License-Identifier: Apache-2.0 */
#include "image/push.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/upload.h"

#define BLOB_MAX (4 * TIB) /* 50,000 blocks of at most 100 MiB make 4.7 TiB */

/* One image_push(). */
struct push {
	const char *path;
	const struct publish_options *opt;
	struct publish_result *res;
	struct image_site site;
	struct stat before;
	int fd;
	struct image_tree *tree;
	struct manifest *manifest;
	uint64_t blob_max;
};

static int open_image(struct push *p, struct err *err)
{
	p->fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (p->fd < 0)
		return err_set(err, -errno, "can't open %s: %s", p->path, strerror(errno));
	if (fstat(p->fd, &p->before))
		return err_set(err, -errno, "%s: %s", p->path, strerror(errno));
	if (!S_ISREG(p->before.st_mode))
		return err_set(
			err, -EINVAL,
			"%s is not a regular file; copy a device into one first, or build one of "
			"a directory with `cairn image build`",
			p->path);
	if (p->before.st_size == 0)
		return err_set(err, -EINVAL, "%s is empty: an image has at least one byte",
			       p->path);
	return 0;
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static int check_unchanged(struct push *p, struct err *err)
{
	struct stat now;

	if (fstat(p->fd, &now))
		return err_set(err, -errno, "%s: %s", p->path, strerror(errno));
	if (now.st_size != p->before.st_size || !same_time(now.st_mtim, p->before.st_mtim) ||
	    !same_time(now.st_ctim, p->before.st_ctim))
		return err_set(
			err, -ESTALE,
			"%s changed while it was pushed; nothing was published. Make sure that "
			"nothing writes to it, then run this again",
			p->path);
	return 0;
}

/* Before hours of hashing: a name that is taken by an image of another length. */
static int check_name_is_free(struct push *p, struct err *err)
{
	struct manifest *there = NULL;
	char hex[2 * SHA256_LEN + 1], url[ORIGIN_URL_MAX];
	int rc = publish_find(&p->site, &there, err);

	if (!rc && there && there->length != (uint64_t)p->before.st_size) {
		hex_encode(there->digest, SHA256_LEN, hex);
		rc = err_set(
			err, -EEXIST,
			"%.300s is already published as sha256:%s of %llu bytes, but %.100s has "
			"%llu; choose another name, or delete its manifest first",
			origin_url(p->site.origin, p->site.name, url, sizeof(url)), hex,
			(unsigned long long)there->length, p->path,
			(unsigned long long)p->before.st_size);
	}
	manifest_free(there);
	return rc;
}

static int is_published(struct push *p, struct err *err)
{
	struct manifest *there = NULL;
	int rc = publish_find(&p->site, &there, err);

	if (!rc && there) {
		rc = publish_compare(&p->site, there, p->tree->digest, err);
		p->res->was_there = rc == 0;
	}
	manifest_free(there);
	return rc;
}

static int plan(struct push *p, struct err *err)
{
	struct image_tree *t = p->tree;
	uint64_t total, nblobs;
	char kind[32];
	int rc = runs_limit(&t->data, PUBLISH_DATA_RUNS);

	if (rc)
		return err_set(err, rc, "no memory for the parts of %s", p->path);
	total = runs_total(&t->data);
	p->blob_max =
		p->opt->part_size ? p->opt->part_size & ~(uint64_t)(BLOCK_SIZE - 1) : BLOB_MAX;
	if (p->blob_max == 0 || p->blob_max > BLOB_MAX)
		return err_set(err, -EINVAL, "--part-size must be between 64 KiB and 4 TiB");
	nblobs = (total + p->blob_max - 1) / p->blob_max;
	if (nblobs >= MANIFEST_BLOBS_MAX)
		return err_set(err, -EINVAL, "%llu blobs are too many: use a larger --part-size",
			       (unsigned long long)nblobs);
	p->manifest = publish_draft(t, (uint32_t)nblobs + 1,
				    (uint32_t)publish_parts_room(&t->data, p->blob_max));
	if (!p->manifest)
		return err_set(err, -ENOMEM, "no memory for the parts of %s", p->path);
	p->manifest->nparts =
		publish_lay_parts(&t->data, t->geometry.length, p->blob_max, 0, p->manifest->parts);
	for (uint64_t i = 0; i < nblobs && !rc; i++) {
		snprintf(kind, sizeof(kind), "data.%04u", (unsigned)i);
		rc = publish_add_blob(p->manifest, p->site.name,
				      nblobs > 1 || p->opt->part_size ? kind : "data", err);
	}
	p->res->data_len = total;
	p->res->nblobs = (uint32_t)nblobs;
	return rc;
}

static int send_blob(struct push *p, uint32_t i, struct manifest_part *parts, struct err *err)
{
	struct manifest *m = p->manifest;
	struct upload u = {
		.origin = p->site.origin,
		.name = m->blobs[i].name,
		.config = &p->site.config,
		.threads = p->opt->threads ? p->opt->threads : PUBLISH_THREADS,
		.progress = p->opt->progress,
		.phase = "sending",
		.done_before = i * p->blob_max,
		.total = p->res->data_len,
		.fd = p->fd,
		.parts = parts,
		.tree = p->tree,
	};
	int rc;

	for (uint32_t k = 0; k < m->nparts; k++)
		if (m->parts[k].blob == i)
			parts[u.nparts++] = m->parts[k];
	rc = upload_blob(&u, p->site.client, err);
	p->res->sent += u.sent;
	if (rc == -ESTALE)
		err_prefix(err, "%s", p->path);
	if (rc)
		return rc;
	m->blobs[i].etag = strdup(u.etag);
	return m->blobs[i].etag ? 0 : err_set(err, -ENOMEM, "no memory for an ETag");
}

static int send_data(struct push *p, struct err *err)
{
	struct manifest_part *parts = calloc(p->manifest->nparts, sizeof(*parts));
	uint32_t n = p->manifest->nblobs;
	int rc = 0;

	if (!parts)
		return err_set(err, -ENOMEM, "no memory for the parts of %s", p->path);
	for (uint32_t i = 0; i < n && !rc; i++)
		rc = send_blob(p, i, parts, err);
	free(parts);
	return rc;
}

static int push(struct push *p, struct err *err)
{
	int rc;

	p->blob_max =
		p->opt->part_size ? p->opt->part_size & ~(uint64_t)(BLOCK_SIZE - 1) : BLOB_MAX;
	if (p->blob_max == 0 || p->blob_max > BLOB_MAX)
		return err_set(err, -EINVAL, "--part-size must be between 64 KiB and 4 TiB");
	if ((rc = publish_check_site(&p->site, err)) || (rc = open_image(p, err)) ||
	    (rc = check_name_is_free(p, err)))
		return rc;
	rc = image_tree_build(p->fd, (uint64_t)p->before.st_size, 0, p->opt->progress, &p->tree,
			      err);
	if (rc)
		return err_prefix(err, "%s", p->path), rc;
	memcpy(p->res->digest, p->tree->digest, SHA256_LEN);
	p->res->length = p->tree->geometry.length;
	if ((rc = check_unchanged(p, err)) || (rc = is_published(p, err)) || p->res->was_there)
		return rc;
	if ((rc = plan(p, err)) || (rc = send_data(p, err)) ||
	    (rc = publish_tree(&p->site, p->opt, p->tree, p->manifest, p->res, err)) ||
	    (rc = check_unchanged(p, err)))
		return rc;
	return publish_manifest(&p->site, p->manifest, p->res, err);
}

int image_push(const char *path, const char *url, const struct publish_options *opt,
	       struct publish_result *res, struct err *err)
{
	struct push p = {.path = path, .opt = opt, .res = res, .fd = -1};
	char name[ORIGIN_NAME_MAX + 1];
	int rc;

	memset(res, 0, sizeof(*res));
	rc = image_site_open(&p.site, url, err);
	if (!rc)
		rc = push(&p, err);
	if (!rc && !image_manifest_name(p.site.name, name, NULL))
		origin_url(p.site.origin, name, res->url, sizeof(res->url));
	manifest_free(p.manifest);
	image_tree_free(p.tree);
	if (p.fd >= 0)
		close(p.fd);
	image_site_close(&p.site);
	return rc;
}
