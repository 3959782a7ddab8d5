/* SPDX-License-Identifier: Apache-2.0 */
/* Publish a local image. */
#ifndef IMAGE_PUSH_H
#define IMAGE_PUSH_H

#include "image/publish.h"

/* Hash @path, send its data and its tree, and put the manifest last. For image NAME with a digest
 * that starts 0123..:
 *   NAME.0123456789abcdef.data   the data, holes left out (.data.0000, .. when in several blobs)
 *   NAME.0123456789abcdef.tree   the tree, likewise; none for an image of one block or of holes
 *   NAME.cairn.json		  the manifest
 * Nothing is at NAME, so what is half published can't be seen. Killed and run again it sends only
 * what is missing.
 * -EEXIST: another image has that name. -ESTALE: the file changed meanwhile: nothing published. */
int image_push(const char *path, const char *url, const struct publish_options *opt,
	       struct publish_result *res, struct err *err);

/* A blob that is at @url already gets a tree and a manifest beside it, and stays as it is.
 * -ENOENT; -ESTALE when the blob changed while it was read. */
int image_seal(const char *url, const struct publish_options *opt, struct publish_result *res,
	       struct err *err);

#endif
