/* SPDX-License-Identifier: Apache-2.0 */
#include "image/verify.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "image/digest.h"
#include "image/publish.h"

/* One image_verify(). */
struct verifying {
	struct image_site site;
	struct manifest *m;
	struct image_tree *tree;
	struct run_units units;
	struct crew crew;
	struct verify_report *report;
	pthread_mutex_t lock; /* of report */
};

static void note_bad(struct verifying *v, uint64_t block)
{
	uint64_t off = block << BLOCK_SHIFT;

	pthread_mutex_lock(&v->lock);
	if (!v->report->bad_blocks++ || off < v->report->first_bad_off)
		v->report->first_bad_off = off;
	pthread_mutex_unlock(&v->lock);
}

static const char *blob_url(const struct verifying *v, uint32_t blob, char *buf, size_t len)
{
	return origin_url(v->site.origin, v->m->blobs[blob].name, buf, len);
}

static uint64_t bytes_needed(const struct manifest_part *parts, uint32_t n, uint32_t blob)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < n; i++)
		if (parts[i].blob == blob && parts[i].blob_off + parts[i].len > end)
			end = parts[i].blob_off + parts[i].len;
	return end;
}

/* A blob that was copied or written again has another ETag; what counts is what it holds. */
static int adopt_etag(struct verifying *v, struct manifest_blob *blob, const char *etag,
		      struct err *err)
{
	char *copy;

	if (strcmp(blob->etag, etag) == 0)
		return 0;
	copy = strdup(etag);
	if (!copy)
		return err_set(err, -ENOMEM, "no memory for an ETag");
	v->report->new_etags += blob->etag[0] != 0;
	free(blob->etag);
	blob->etag = copy;
	return 0;
}

static int check_blobs(struct verifying *v, struct err *err)
{
	char url[ORIGIN_URL_MAX];

	for (uint32_t i = 0; i < v->m->nblobs; i++) {
		uint64_t data = bytes_needed(v->m->parts, v->m->nparts, i);
		uint64_t tree = bytes_needed(v->m->tree_parts, v->m->ntree_parts, i);
		uint64_t need = data > tree ? data : tree;
		struct origin_stat st;
		int rc = origin_stat(v->site.client, v->site.origin, v->m->blobs[i].name, &st, err);

		if (rc == -ENOENT)
			return err_set(err, -EBADMSG,
				       "blob %s, which the manifest names, is missing",
				       blob_url(v, i, url, sizeof(url)));
		if (rc)
			return rc;
		if (st.length < need)
			return err_set(err, -EBADMSG,
				       "blob %s is truncated: %llu bytes where %llu are due",
				       blob_url(v, i, url, sizeof(url)),
				       (unsigned long long)st.length, (unsigned long long)need);
		rc = adopt_etag(v, &v->m->blobs[i], st.etag, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* [r.off, r.off + r.len) of the image or the tree, over as many parts as it takes. */
static int read_run(struct verifying *v, struct crew_hand *hand, const struct manifest_part *parts,
		    uint32_t n, struct run r, struct err *err)
{
	uint8_t *dst = hand->scratch;

	while (r.len) {
		const struct manifest_part *p = manifest_find(parts, n, r.off);
		const struct manifest_blob *blob = &v->m->blobs[p->blob];
		uint64_t skip = r.off - p->off, here = p->len - skip;
		int rc;

		if (here > r.len)
			here = r.len;
		rc = origin_pread(hand->client, v->site.origin, blob->name, blob->etag,
				  p->blob_off + skip, (uint32_t)here, dst, err);
		if (rc)
			return rc;
		dst += here;
		r.off += here;
		r.len -= here;
	}
	return 0;
}

static int fetch_tree_unit(void *arg, struct crew_hand *hand, uint64_t i, struct err *err)
{
	struct verifying *v = arg;
	struct run u = run_unit(&v->units, i, NULL);
	int rc = read_run(v, hand, v->m->tree_parts, v->m->ntree_parts, u, err);

	if (rc)
		return rc;
	rc = pwrite_all(v->tree->fd, hand->scratch, u.len, u.off);
	if (rc)
		return err_set(err, rc, "the tree's temporary file: %s", strerror(-rc));
	atomic_fetch_add(&v->crew.done, u.len);
	return 0;
}

static int check_data_unit(void *arg, struct crew_hand *hand, uint64_t i, struct err *err)
{
	struct verifying *v = arg;
	struct run u = run_unit(&v->units, i, NULL);
	uint64_t first = u.off >> BLOCK_SHIFT, n = (u.len + BLOCK_SIZE - 1) >> BLOCK_SHIFT;
	uint8_t want[EXTENT_BLOCKS * SHA256_LEN], got[EXTENT_BLOCKS * SHA256_LEN];
	int rc = read_run(v, hand, v->m->parts, v->m->nparts, u, err);

	if (!rc)
		rc = image_tree_hashes(v->tree, first, (uint32_t)n, want, err);
	if (rc)
		return rc;
	image_hash_blocks(hand->scratch, u.len, got);
	for (uint64_t b = 0; b < n; b++)
		if (memcmp(want + b * SHA256_LEN, got + b * SHA256_LEN, SHA256_LEN) != 0)
			note_bad(v, first + b);
	atomic_fetch_add(&v->crew.done, u.len);
	return 0;
}

static int run_crew(struct verifying *v, const struct runs *runs, const char *phase,
		    int (*run)(void *, struct crew_hand *, uint64_t, struct err *), struct err *err)
{
	int rc = run_units_init(&v->units, runs, EXTENT_SHIFT);

	if (rc)
		return err_set(err, rc, "no memory for the parts of the image");
	v->crew.jobs = v->units.n;
	v->crew.scratch = EXTENT_SIZE;
	v->crew.config = &v->site.config;
	v->crew.run = run;
	v->crew.arg = v;
	v->crew.phase = phase;
	v->crew.total = runs_total(runs);
	atomic_store(&v->crew.done, 0);
	rc = crew_run(&v->crew, err);
	run_units_clear(&v->units);
	return rc;
}

static int add_runs(struct runs *runs, const struct manifest_part *parts, uint32_t n,
		    struct err *err)
{
	int rc = 0;

	for (uint32_t i = 0; i < n && !rc; i++)
		if (parts[i].blob != MANIFEST_ZERO)
			rc = runs_add(runs, parts[i].off, parts[i].len);
	return rc ? err_set(err, rc, "no memory for the parts of the image") : 0;
}

static int tree_is_bad(const struct verifying *v, uint64_t tree_block, struct err *err)
{
	const struct manifest_part *p =
		manifest_find(v->m->tree_parts, v->m->ntree_parts, tree_block << BLOCK_SHIFT);
	char url[ORIGIN_URL_MAX];

	if (p->blob == MANIFEST_ZERO)
		return err_set(
			err, -EBADMSG,
			"tree block %llu is said to stand over holes, but the tree says otherwise",
			(unsigned long long)tree_block);
	return err_set(
		err, -EBADMSG,
		"tree block %llu does not match its parent's hash: bytes %llu to %llu of %s are "
		"damaged, or are another image's tree",
		(unsigned long long)tree_block,
		(unsigned long long)(p->blob_off + (tree_block << BLOCK_SHIFT) - p->off),
		(unsigned long long)(p->blob_off + (tree_block << BLOCK_SHIFT) - p->off +
				     BLOCK_SIZE),
		blob_url(v, p->blob, url, sizeof(url)));
}

/* The children of tree block (@level, @index), @block, that stand over holes. */
static int check_absent_children(struct verifying *v, uint32_t level, uint64_t index,
				 const uint8_t *block, struct err *err)
{
	const struct tree_geometry *g = &v->tree->geometry;
	uint64_t first = index * TREE_ARITY, n = g->level_hashes[level] - first;
	uint8_t zero[BLOCK_SIZE];

	tree_zero_block(g, level, index, zero);
	for (uint64_t i = 0; i < n && i < TREE_ARITY; i++) {
		uint64_t child = (g->level_off[level - 1] >> BLOCK_SHIFT) + first + i;

		if (!runs_at(&v->tree->blocks, child << BLOCK_SHIFT) &&
		    memcmp(block + i * SHA256_LEN, zero + i * SHA256_LEN, SHA256_LEN) != 0)
			return tree_is_bad(v, child, err);
	}
	return 0;
}

/* Stored order is top first, so a block's parent was checked before it. */
static int check_tree_block(struct verifying *v, uint64_t b, struct err *err)
{
	const struct tree_geometry *g = &v->tree->geometry;
	uint64_t at = tree_parent_off(g, b), index;
	uint8_t block[BLOCK_SIZE], parent[BLOCK_SIZE], hash[SHA256_LEN];
	const uint8_t *want = v->m->root;
	uint32_t level;
	int rc = image_tree_block(v->tree, b, block, err);

	if (!rc && at != UINT64_MAX) {
		rc = image_tree_block(v->tree, at >> BLOCK_SHIFT, parent, err);
		want = parent + at % BLOCK_SIZE;
	}
	if (rc)
		return rc;
	sha256(block, BLOCK_SIZE, hash);
	if (memcmp(hash, want, SHA256_LEN) != 0)
		return tree_is_bad(v, b, err);
	tree_locate(g, b, &level, &index);
	return level ? check_absent_children(v, level, index, block, err) : 0;
}

static int check_tree(struct verifying *v, struct err *err)
{
	const struct runs *blocks = &v->tree->blocks;
	int rc = 0;

	if (v->tree->geometry.levels && !runs_at(blocks, 0))
		rc = check_tree_block(v, 0, err);
	for (uint32_t i = 0; i < blocks->n && !rc; i++) {
		const struct run *r = &blocks->v[i];

		for (uint64_t at = r->off; at < r->off + r->len && !rc; at += BLOCK_SIZE)
			rc = check_tree_block(v, at >> BLOCK_SHIFT, err);
	}
	v->report->tree_blocks = runs_total(blocks) >> BLOCK_SHIFT;
	return rc;
}

/* Zero parts hold no bytes, but the tree must agree that they are zeros. */
static int check_zero_part(struct verifying *v, const struct manifest_part *p, struct err *err)
{
	uint64_t b = p->off >> BLOCK_SHIFT, end = (p->off + p->len + BLOCK_SIZE - 1) >> BLOCK_SHIFT;
	uint8_t hashes[BLOCK_SIZE];

	while (b < end) {
		uint64_t n = TREE_ARITY - b % TREE_ARITY;
		int rc;

		if (n > end - b)
			n = end - b;
		rc = image_tree_hashes(v->tree, b, (uint32_t)n, hashes, err);
		if (rc)
			return rc;
		for (uint64_t i = 0; i < n; i++)
			if (memcmp(hashes + i * SHA256_LEN, tree_zero_hash(0), SHA256_LEN) != 0)
				note_bad(v, b + i);
		b += n;
	}
	return 0;
}

static int summarise(const struct verifying *v, struct err *err)
{
	const struct verify_report *r = v->report;
	const struct manifest_part *p;
	char url[ORIGIN_URL_MAX];

	if (!r->bad_blocks)
		return 0;
	p = manifest_find(v->m->parts, v->m->nparts, r->first_bad_off);
	if (p->blob == MANIFEST_ZERO)
		return err_set(
			err, -EBADMSG,
			"%llu blocks are damaged, the first at byte %llu: the manifest calls it a "
			"hole, the tree says it holds data",
			(unsigned long long)r->bad_blocks, (unsigned long long)r->first_bad_off);
	return err_set(
		err, -EBADMSG,
		"%llu blocks are damaged, the first at byte %llu of the image: byte %llu of %s; "
		"restore that blob, or publish the image again under another name",
		(unsigned long long)r->bad_blocks, (unsigned long long)r->first_bad_off,
		(unsigned long long)(p->blob_off + r->first_bad_off - p->off),
		blob_url(v, p->blob, url, sizeof(url)));
}

static int verify(struct verifying *v, struct err *err)
{
	struct manifest *m;
	int rc = image_open(v->site.client, v->site.origin, v->site.name, &v->m, NULL, err);

	if (rc || (rc = image_tree_new(v->m->length, &v->tree, err)))
		return rc;
	m = v->m;
	memcpy(v->tree->root, m->root, SHA256_LEN);
	memcpy(v->report->digest, m->digest, SHA256_LEN);
	v->report->length = m->length;
	if ((rc = check_blobs(v, err)) ||
	    (rc = add_runs(&v->tree->blocks, m->tree_parts, m->ntree_parts, err)) ||
	    (rc = add_runs(&v->tree->data, m->parts, m->nparts, err)) ||
	    (rc = run_crew(v, &v->tree->blocks, "reading the tree", fetch_tree_unit, err)) ||
	    (rc = check_tree(v, err)))
		return rc;
	for (uint32_t i = 0; i < m->nparts && !rc; i++)
		if (m->parts[i].blob == MANIFEST_ZERO)
			rc = check_zero_part(v, &m->parts[i], err);
	if (!rc)
		rc = run_crew(v, &v->tree->data, "verifying", check_data_unit, err);
	if (rc)
		return rc;
	v->report->blocks = (runs_total(&v->tree->data) + BLOCK_SIZE - 1) >> BLOCK_SHIFT;
	return summarise(v, err);
}

int image_verify(const char *url, unsigned threads, const struct image_progress *progress,
		 struct verify_report *out, struct err *err)
{
	struct verifying v = {
		.report = out,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.crew = {.threads = threads ? threads : PUBLISH_THREADS, .progress = progress},
	};
	int rc;

	memset(out, 0, sizeof(*out));
	rc = image_site_open(&v.site, url, err);
	if (!rc)
		rc = verify(&v, err);
	image_tree_free(v.tree);
	manifest_free(v.m);
	image_site_close(&v.site);
	pthread_mutex_destroy(&v.lock);
	return rc;
}
