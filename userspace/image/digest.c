/* SPDX-License-Identifier: Apache-2.0 */
#include "image/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOCAL_UNIT_SHIFT 20 /* read and hashed at once; fits a core's cache */
#define LEAF_SHIFT	 27 /* one leaf block covers 128 MiB */

static int temp_file(struct err *err)
{
	const char *dir = getenv("TMPDIR");
	char path[4096];
	int fd;

	if (!dir || !*dir)
		dir = "/var/tmp";
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	snprintf(path, sizeof(path), "%s/cairn-tree-XXXXXX",
		 dir); /* no O_TMPFILE on overlayfs < 6.1 */
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "can't make a temporary file in %s: %s; set TMPDIR",
			       dir, strerror(errno));
	unlink(path);
	return fd;
}

int image_tree_new(uint64_t length, struct image_tree **out, struct err *err)
{
	struct image_tree *t = calloc(1, sizeof(*t));

	if (!t)
		return err_set(err, -ENOMEM, "no memory for a tree");
	if (tree_geometry(length, &t->geometry)) {
		free(t);
		return err_set(err, -ERANGE, "an image has 1 byte to 1 PiB, not %llu bytes",
			       (unsigned long long)length);
	}
	t->fd = temp_file(err);
	if (t->fd < 0) {
		int rc = t->fd;

		free(t);
		return rc;
	}
	*out = t;
	return 0;
}

void image_tree_free(struct image_tree *t)
{
	if (!t)
		return;
	runs_clear(&t->data);
	runs_clear(&t->blocks);
	close(t->fd);
	free(t);
}

static int tree_io_failed(int rc, struct err *err)
{
	return err_set(err, rc, "the tree's temporary file: %s%s", strerror(-rc),
		       rc == -ENOSPC ? "; set TMPDIR to a larger place" : "");
}

static int write_tree(const struct image_tree *t, const void *buf, size_t len, uint64_t off,
		      struct err *err)
{
	int rc = pwrite_all(t->fd, buf, len, off);

	return rc ? tree_io_failed(rc, err) : 0;
}

int image_tree_block(const struct image_tree *t, uint64_t tree_block, uint8_t *out, struct err *err)
{
	uint64_t off = tree_block << BLOCK_SHIFT;
	uint32_t level;
	uint64_t index;
	int rc;

	if (!runs_at(&t->blocks, off)) {
		tree_locate(&t->geometry, tree_block, &level, &index);
		tree_zero_block(&t->geometry, level, index, out);
		return 0;
	}
	rc = pread_all(t->fd, out, BLOCK_SIZE, off);
	return rc ? tree_io_failed(rc, err) : 0;
}

int image_tree_hashes(const struct image_tree *t, uint64_t first, uint32_t n, uint8_t *out,
		      struct err *err)
{
	if (t->geometry.levels == 0) {
		memcpy(out, t->root, SHA256_LEN);
		return 0;
	}
	while (n) {
		uint64_t off = tree_leaf_off(&t->geometry, first);
		uint32_t here = TREE_ARITY - (uint32_t)(first % TREE_ARITY);

		if (here > n)
			here = n;
		if (runs_at(&t->blocks, off & ~(uint64_t)(BLOCK_SIZE - 1))) {
			int rc = pread_all(t->fd, out, here * SHA256_LEN, off);

			if (rc)
				return tree_io_failed(rc, err);
		} else {
			for (uint32_t i = 0; i < here; i++)
				memcpy(out + i * SHA256_LEN, tree_zero_hash(0), SHA256_LEN);
		}
		out += here * SHA256_LEN;
		first += here;
		n -= here;
	}
	return 0;
}

void image_hash_blocks(uint8_t *buf, uint64_t len, uint8_t *out)
{
	uint64_t n = (len + BLOCK_SIZE - 1) >> BLOCK_SHIFT;

	memset(buf + len, 0, (n << BLOCK_SHIFT) - len);
	for (uint64_t i = 0; i < n; i++)
		sha256(buf + (i << BLOCK_SHIFT), BLOCK_SIZE, out + i * SHA256_LEN);
}

/* Which tree blocks have data under them, as runs of the tree in stored order: top level first. */
static int plan_blocks(struct image_tree *t)
{
	const struct tree_geometry *g = &t->geometry;
	int rc = 0;

	for (uint32_t l = g->levels; l-- > 0 && !rc;) {
		unsigned covers = LEAF_SHIFT + 11 * l; /* log2 of bytes of image under one block */

		for (uint32_t i = 0; i < t->data.n && !rc; i++) {
			const struct run *r = &t->data.v[i];
			uint64_t first = r->off >> covers, last = (r->off + r->len - 1) >> covers;

			rc = runs_add(&t->blocks, g->level_off[l] + (first << BLOCK_SHIFT),
				      (last - first + 1) << BLOCK_SHIFT);
		}
	}
	return rc;
}

/* Every planned block as if it stood over holes; hashes of what is data come on top. */
static int lay_zero_blocks(struct image_tree *t, uint64_t off, uint64_t len, struct err *err)
{
	uint8_t block[BLOCK_SIZE];
	uint32_t level;
	uint64_t index;
	int rc = 0;

	for (uint64_t at = off; at < off + len && !rc; at += BLOCK_SIZE) {
		tree_locate(&t->geometry, at >> BLOCK_SHIFT, &level, &index);
		tree_zero_block(&t->geometry, level, index, block);
		rc = write_tree(t, block, BLOCK_SIZE, at, err);
	}
	return rc;
}

/* From the leaves up. Stored order is top first, so walking backwards meets every block after all
 * those under it. */
static int hash_levels(struct image_tree *t, struct err *err)
{
	uint8_t block[BLOCK_SIZE], hash[SHA256_LEN];
	int rc;

	for (uint32_t i = t->blocks.n; i-- > 0;) {
		const struct run *r = &t->blocks.v[i];

		for (uint64_t at = r->off + r->len; at > r->off; at -= BLOCK_SIZE) {
			uint64_t b = (at >> BLOCK_SHIFT) - 1;
			uint64_t parent = tree_parent_off(&t->geometry, b);

			rc = image_tree_block(t, b, block, err);
			if (rc)
				return rc;
			sha256(block, BLOCK_SIZE, hash);
			if (parent != UINT64_MAX &&
			    (rc = write_tree(t, hash, SHA256_LEN, parent, err)))
				return rc;
		}
	}
	if (t->geometry.levels && (rc = image_tree_block(t, 0, block, err)))
		return rc;
	if (t->geometry.levels)
		sha256(block, BLOCK_SIZE, t->root);
	else if (t->data.n == 0)
		memcpy(t->root, tree_zero_hash(0), SHA256_LEN);
	image_digest(t->geometry.length, t->root, t->digest);
	return 0;
}

/* What one build carries: bytes come from a file or from a blob. */
struct building {
	struct image_tree *t;
	struct run_units units;
	struct crew crew;
	int fd;
	const struct image_blob *blob; /* NULL: read fd */
};

static int read_unit(struct building *b, struct crew_hand *hand, struct run u, struct err *err)
{
	int rc;

	if (b->blob)
		return origin_pread(hand->client, b->blob->origin, b->blob->name, b->blob->etag,
				    u.off, (uint32_t)u.len, hand->scratch, err);
	rc = pread_all(b->fd, hand->scratch, u.len, u.off);
	return rc ? err_set(err, rc, "reading the image at byte %llu: %s",
			    (unsigned long long)u.off,
			    rc == -ENODATA ? "it became shorter" : strerror(-rc))
		  : 0;
}

static int hash_unit(void *arg, struct crew_hand *hand, uint64_t i, struct err *err)
{
	struct building *b = arg;
	struct run u = run_unit(&b->units, i, NULL);
	uint8_t hashes[EXTENT_BLOCKS * SHA256_LEN];
	uint64_t n = (u.len + BLOCK_SIZE - 1) >> BLOCK_SHIFT;
	int rc = read_unit(b, hand, u, err);

	if (rc)
		return rc;
	image_hash_blocks(hand->scratch, u.len, hashes);
	atomic_fetch_add(&b->crew.done, u.len);
	if (b->t->geometry.levels == 0) {
		memcpy(b->t->root, hashes, SHA256_LEN);
		return 0;
	}
	return write_tree(b->t, hashes, n * SHA256_LEN,
			  tree_leaf_off(&b->t->geometry, u.off >> BLOCK_SHIFT), err);
}

static int build(struct building *b, unsigned shift, struct err *err)
{
	struct image_tree *t = b->t;
	int rc = plan_blocks(t);

	if (!rc)
		rc = run_units_init(&b->units, &t->data, shift);
	if (rc)
		return err_set(err, rc, "no memory for the tree");
	for (uint32_t i = 0; i < t->blocks.n && !rc; i++)
		rc = lay_zero_blocks(t, t->blocks.v[i].off, t->blocks.v[i].len, err);
	b->crew.jobs = b->units.n;
	b->crew.scratch = (size_t)1 << shift;
	b->crew.run = hash_unit;
	b->crew.arg = b;
	b->crew.phase = "hashing";
	b->crew.total = runs_total(&t->data);
	if (!rc)
		rc = crew_run(&b->crew, err);
	run_units_clear(&b->units);
	return rc ? rc : hash_levels(t, err);
}

int image_tree_build(int fd, uint64_t length, unsigned threads,
		     const struct image_progress *progress, struct image_tree **out,
		     struct err *err)
{
	struct building b = {.fd = fd, .crew = {.threads = threads, .progress = progress}};
	int rc = image_tree_new(length, &b.t, err);

	if (rc)
		return rc;
	rc = runs_find(fd, length, &b.t->data, err);
	if (!rc)
		rc = build(&b, LOCAL_UNIT_SHIFT, err);
	if (rc)
		image_tree_free(b.t);
	else
		*out = b.t;
	return rc;
}

int image_tree_build_blob(const struct image_blob *blob, const struct origin_config *config,
			  unsigned threads, const struct image_progress *progress,
			  struct image_tree **out, struct err *err)
{
	struct building b = {
		.blob = blob,
		.crew = {.threads = threads, .progress = progress, .config = config},
	};
	int rc = image_tree_new(blob->length, &b.t, err);

	if (rc)
		return rc;
	rc = runs_add(&b.t->data, 0, blob->length);
	rc = rc ? err_set(err, rc, "no memory for the tree") : build(&b, EXTENT_SHIFT, err);
	if (rc)
		image_tree_free(b.t);
	else
		*out = b.t;
	return rc;
}

int image_tree_limit_runs(struct image_tree *t, uint32_t max, struct err *err)
{
	struct runs was = {0};
	int rc = 0;

	for (uint32_t i = 0; i < t->blocks.n && !rc; i++)
		rc = runs_add(&was, t->blocks.v[i].off, t->blocks.v[i].len);
	if (!rc)
		rc = runs_limit(&t->blocks, max);
	if (rc)
		err_set(err, rc, "no memory for the tree");
	for (uint32_t i = 0; i + 1 < was.n && !rc; i++) {
		uint64_t end = was.v[i].off + was.v[i].len;

		if (runs_at(&t->blocks, end))
			rc = lay_zero_blocks(t, end, was.v[i + 1].off - end, err);
	}
	runs_clear(&was);
	return rc;
}
