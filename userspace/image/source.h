/* SPDX-License-Identifier: Apache-2.0 */
/* An image as the fill layer sees it: where the bytes of its blocks and of its tree are, and which
 * hash vouches for which. The one place that turns a manifest into fills. */
#ifndef IMAGE_SOURCE_H
#define IMAGE_SOURCE_H

#include "base/err.h"
#include "fill/fill.h"
#include "image/manifest.h"
#include "origin/origin.h"
#include "store/store.h"

struct image_source {
	struct fill_source data;
	struct fill_source tree; /* .object NULL: no tree (one block, or unsealed) */
	_Atomic uint32_t refs;
	struct origin *origin;
	struct manifest *manifest;  /* NULL: unsealed */
	char *name;		    /* unsealed: the blob */
	char etag[ORIGIN_ETAG_MAX]; /* unsealed: the blob's */
	uint64_t length;	    /* of the image, bytes */
	uint64_t device_len;	    /* rounded up to DEVICE_ALIGN */
	struct image_etag *etags;   /* one a blob */
	char what[512];		    /* "image URL", without secrets */
};

/* A sealed image: consumes @manifest (also on error). Objects are opened in @store. */
int image_source_sealed(struct store *store, struct fill *fill, struct origin *origin,
			const char *name, struct manifest **manifest, struct image_source **out,
			struct err *err);

/* A plain blob: identity is URL, ETag and length. */
int image_source_unsealed(struct store *store, struct fill *fill, struct origin *origin,
			  const char *name, const struct origin_stat *stat,
			  struct image_source **out, struct err *err);

/* One reference is the opener's, others are of flights. */
void image_source_unref(struct image_source *s);

/* True if [off, off + n) of the data is zeros by the manifest's word alone; n is its length. */
bool image_source_hole(struct image_source *s, uint64_t off, uint64_t *n);

#endif
