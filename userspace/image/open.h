/* SPDX-License-Identifier: Apache-2.0 */
/* From an image's URL to its manifest. */
#ifndef IMAGE_OPEN_H
#define IMAGE_OPEN_H

#include "base/err.h"
#include "base/loop.h"
#include "image/manifest.h"
#include "origin/origin.h"

/* The manifest's name for image @name: NAME.cairn.json, or @name itself when it is one already.
 * @out: ORIGIN_NAME_MAX + 1 bytes. -ENAMETOOLONG. */
int image_manifest_name(const char *name, char *out, struct err *err);

/* Fetch and check the manifest of image @name (which may already end in .cairn.json). Its blobs are
 * names in @o. -ENOENT when there is none: a plain blob, or nothing at all. @etag may be NULL; it
 * is the manifest's own. Runs the client's loop. The caller frees *out. */
int image_open(struct origin_client *c, struct origin *o, const char *name, struct manifest **out,
	       char etag[ORIGIN_ETAG_MAX], struct err *err);

/* Where an image's URL leads, ready for calls from this thread. */
struct image_site {
	struct origin_config config;
	struct origin *origin;
	struct loop *loop;
	struct origin_client *client;
	char name[ORIGIN_NAME_MAX + 1];
};

/* Credentials come from the environment and the URL. Close also after an error. */
int image_site_open(struct image_site *s, const char *url, struct err *err);
void image_site_close(struct image_site *s);

#endif
