/* SPDX-License-Identifier: Apache-2.0 */
/* Seals a tile of the bench's origin, or a file as it is, without reading it whole.
 *
 *	sealtile DIR NAME BYTES FILE
 *
 * NAME is DIR's FILE repeated until there are BYTES (see origin.c), so FILE is hashed once and its
 * leaf hashes repeat. Writes NAME.<16 hex>.tree and NAME.cairn.json into DIR, as `cairn image seal`
 * would: same digest, same tree, same ETags. To repeat, a FILE has whole blocks of 64 KiB.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "etag.h"
#include "image/digest.h"
#include "image/manifest.h"

struct sealed {
	const char *name;
	char *tree_name;
	char etag[ETAG_MAX], tree_etag[ETAG_MAX];
	struct manifest manifest;
};

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "sealtile: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	exit(1);
}

/* The hashes of the *n blocks of @file, which the caller frees. */
static uint8_t *hash_file(const char *file, struct stat *st, uint32_t *n)
{
	struct image_tree *t;
	struct err err = {0};
	uint8_t *hashes;
	int fd = open(file, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, st) < 0)
		die("%s: %s", file, strerror(errno));
	*n = (uint32_t)((st->st_size + BLOCK_SIZE - 1) / BLOCK_SIZE);
	hashes = malloc((size_t)*n * SHA256_LEN + 1);
	if (!hashes)
		die("no memory for its hashes");
	if (image_tree_build(fd, (uint64_t)st->st_size, 0, NULL, &t, &err) ||
	    image_tree_hashes(t, 0, *n, hashes, &err))
		die("%s: %s", file, err.text);
	image_tree_free(t);
	close(fd);
	return hashes;
}

/* Stored order is top first, so walking backwards meets each block after all those below it. */
static uint8_t *make_tree(struct manifest *m, const uint8_t *hashes, uint64_t period)
{
	const struct tree_geometry *g = &m->geometry;
	uint8_t *tree = calloc(1, g->tree_len);

	if (!tree || g->levels == 0)
		die("no memory for the tree, or an image of one block");
	for (uint64_t b = 0; b < g->blocks; b++)
		memcpy(tree + tree_leaf_off(g, b), hashes + b % period * SHA256_LEN, SHA256_LEN);
	for (uint64_t b = g->tree_len / BLOCK_SIZE; b-- > 1;)
		sha256(tree + b * BLOCK_SIZE, BLOCK_SIZE, tree + tree_parent_off(g, b));
	sha256(tree, BLOCK_SIZE, m->root);
	image_digest(m->length, m->root, m->digest);
	return tree;
}

/* Readers find all of it or nothing. */
static void write_file(const char *name, const void *data, size_t len, struct stat *st)
{
	char part[256];
	int fd;

	snprintf(part, sizeof(part), "%s.part", name);
	fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || pwrite_all(fd, data, len, 0) || fstat(fd, st) < 0 || close(fd) < 0 ||
	    rename(part, name) < 0)
		die("%s: %s", name, strerror(errno));
}

static void write_tree(struct sealed *s, const uint8_t *tree)
{
	char hex[2 * 8 + 1];
	struct stat st;

	hex_encode(s->manifest.digest, 8, hex);
	if (asprintf(&s->tree_name, "%s.%s.tree", s->name, hex) < 0)
		die("no memory");
	write_file(s->tree_name, tree, s->manifest.geometry.tree_len, &st);
	etag_of(&st, (uint64_t)st.st_size, s->tree_etag);
}

static void write_manifest(struct sealed *s)
{
	struct manifest *m = &s->manifest;
	struct manifest_blob blobs[] = {{(char *)s->name, s->etag}, {s->tree_name, s->tree_etag}};
	struct manifest_part data = {.len = m->length};
	struct manifest_part tree = {.len = m->geometry.tree_len, .blob = 1};
	char name[256], hex[2 * SHA256_LEN + 1], *json;
	struct stat st;

	m->blobs = blobs;
	m->nblobs = 2;
	m->parts = &data;
	m->tree_parts = &tree;
	m->nparts = m->ntree_parts = 1;
	json = manifest_format(m);
	if (!json)
		die("no memory for the manifest");
	snprintf(name, sizeof(name), "%s" MANIFEST_SUFFIX, s->name);
	write_file(name, json, strlen(json), &st);
	free(json);
	hex_encode(m->digest, SHA256_LEN, hex);
	printf("sha256:%s\n", hex);
}

int main(int argc, char **argv)
{
	struct sealed s = {0};
	uint8_t *hashes, *tree;
	struct stat st;
	uint32_t n;

	if (argc != 5)
		die("usage: sealtile DIR NAME BYTES FILE");
	if (chdir(argv[1]) < 0)
		die("%s: %s", argv[1], strerror(errno));
	s.name = argv[2];
	s.manifest.length = strtoull(argv[3], NULL, 10);
	if (tree_geometry(s.manifest.length, &s.manifest.geometry))
		die("no image has %s bytes", argv[3]);
	hashes = hash_file(argv[4], &st, &n);
	if (st.st_size % BLOCK_SIZE && (uint64_t)st.st_size != s.manifest.length)
		die("%s: its length is no multiple of 64 KiB", argv[4]);
	etag_of(&st, s.manifest.length, s.etag);
	tree = make_tree(&s.manifest, hashes, n);
	write_tree(&s, tree);
	write_manifest(&s);
	free(s.tree_name);
	free(hashes);
	free(tree);
	return 0;
}
