/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest: the small JSON that names an image's length, digest, ordered parts and tree.
 * docs/image-format.md is its description; this is its reader and writer, pure.
 *
 * For an image at URL .../NAME the manifest is the blob NAME.cairn.json beside it; blobs it names
 * are relative to it and may not contain "..", start with '/' or hold a scheme.
 */
#ifndef IMAGE_MANIFEST_H
#define IMAGE_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "image/tree.h"
#include "origin/origin.h"

#define MANIFEST_SUFFIX	   ".cairn.json"
#define MANIFEST_VERSION   1
#define MANIFEST_LIMIT	   (16U << 20) /* bytes of JSON a reader believes */
#define MANIFEST_PARTS_MAX 65536       /* data and tree parts together */
#define MANIFEST_BLOBS_MAX 4096

struct manifest_blob {
	char *name;
	char *etag; /* "" when unknown */
};

/* A run of the image (or tree) and where its bytes are. Parts are in order, without gap or overlap,
 * cover [0, length) exactly; offsets of all but the last part's end are multiples of 64 KiB. */
struct manifest_part {
	uint64_t off, len;
	uint64_t blob_off;
	uint32_t blob; /* index in blobs; MANIFEST_ZERO for holes (tree: blocks over holes) */
};
#define MANIFEST_ZERO UINT32_MAX

struct manifest {
	uint64_t length;
	uint8_t digest[SHA256_LEN], root[SHA256_LEN];
	struct tree_geometry geometry;
	struct manifest_blob *blobs;
	uint32_t nblobs;
	struct manifest_part *parts; /* data */
	uint32_t nparts;
	struct manifest_part *tree_parts;
	uint32_t ntree_parts;
};

/* Everything a reader may rely on is checked here: version, limits, order, coverage, that digest,
 * root and length belong together. -EINVAL (malformed or inconsistent), -ENOTSUP (needs a newer
 * reader), -EFBIG. @what names the manifest in the text. */
int manifest_parse(const char *json, size_t len, const char *what, struct manifest **out,
		   struct err *err);

/* True if a manifest may name @s: relative, no "..", no scheme, no control characters, no '\\'. */
bool manifest_name_is_safe(const char *s);

/* Fresh memory, the caller frees; NULL when out of memory. Deterministic. */
char *manifest_format(const struct manifest *m);
void manifest_free(struct manifest *m);

/* The part that holds byte @off of the data (or tree); @off < length. */
const struct manifest_part *manifest_find(const struct manifest_part *parts, uint32_t n,
					  uint64_t off);

#endif
