/* SPDX-License-Identifier: Apache-2.0 */
/* Promotion: the device of an image that is complete on this node reads the store's file by itself,
 * and needs neither the worker nor its helper.
 *
 * Sealed images only: of others nobody can say that the file is right. A device is promoted as soon
 * as its image is complete; but if one may have a file system mounted that the kernel shuts at such
 * a swap (since 6.6 ext4 and xfs; erofs goes on), only while it is being attached.
 *
 * One thread looks once a second, and more often while it fetches (worker/whole.h).
 */
#ifndef WORKER_PROMOTE_H
#define WORKER_PROMOTE_H

#include <stdbool.h>

#include "base/err.h"
#include "worker/exports.h"

struct promoter;

int promoter_start(struct exports *x, int supervisor_fd, struct promoter **out, struct err *err);
void promoter_stop(struct promoter *p);
/* Have it look now. NULL: there is none. */
void promoter_wake(struct promoter *p);

/* Whether the export's device may be promoted: "auto" or "never", which takes a promotion back. Or
 * "erofs-file": the store's file itself is to be mounted; -EAGAIN: not complete yet; -ENOTSUP.
 * @fresh: the device was made just now, and nobody has it mounted. An image that can't be promoted
 * is no error: the export's promote_note says why. -EINVAL; -ENOENT; what kept it from being taken
 * back. Told in @out. By control threads: asks the supervisor. */
int exports_set_promote(struct exports *x, const char *key, const char *promote, bool fresh,
			struct export_info *out, struct err *err);

/* The export has to go: -EBUSY while the store's file is mounted as such, unless @force: then it
 * stays in the store until that ends. */
int exports_promotion_end(struct exports *x, const char *key, bool force, struct err *err);

/* As the supervisor says of the device, to who has x->promoting since before it was asked. */
void exports_note_promoted(struct exports *x, const char *name, bool promoted);

#endif
