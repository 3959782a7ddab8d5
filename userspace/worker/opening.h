/* SPDX-License-Identifier: Apache-2.0 */
/* Opening an image by URL: its manifest from the store or the origin, or the plain blob. */
#ifndef WORKER_OPENING_H
#define WORKER_OPENING_H

#include <stdbool.h>

#include "base/config.h"
#include "base/err.h"
#include "fill/fill.h"
#include "image/source.h"
#include "origin/origin.h"
#include "store/store.h"
#include "worker/secrets.h"

struct opener {
	struct store *store;
	struct fill *fill;
	const struct config *cfg;
	struct origin_config origin;
	char *secrets[SECRETS]; /* what origin points to */
};

/* Read the secrets that @cfg names files for (worker/secrets.h has @secrets_fd), and the
 * environment. */
int opener_init(struct opener *o, const struct config *cfg, int secrets_fd, struct err *err);
void opener_free(struct opener *o);

/* Blocks on the origin; any control thread. @refresh asks the origin for the manifest although the
 * store has a fresh one. */
int opener_open(struct opener *o, const char *url, bool refresh, struct image_source **out,
		struct err *err);

/* What is known of an image that was open before. */
struct opener_known {
	const char *digest; /* "sha256:.."; "" = not sealed */
	const char *etag;   /* not sealed */
	uint64_t length;    /* 0 = nothing is known */
};

/* The very image that was open, by what the store keeps, whatever its age; the origin is not asked.
 * -ENOENT: the store has it no longer. */
int opener_reopen(struct opener *o, const char *url, const struct opener_known *k,
		  struct image_source **out, struct err *err);

#endif
