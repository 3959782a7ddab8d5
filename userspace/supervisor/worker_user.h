/* SPDX-License-Identifier: Apache-2.0 */
/* Whom the worker runs as, [daemon] user, and what that user has to own. The supervisor's thread.
 */
#ifndef SUPERVISOR_WORKER_USER_H
#define SUPERVISOR_WORKER_USER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/config.h"
#include "base/err.h"

#define WORKER_GROUPS_MAX 64

struct worker_user {
	bool changes; /* false: the worker stays what cairnd was started as */
	uid_t uid;
	gid_t gid;
	gid_t groups[WORKER_GROUPS_MAX];
	int ngroups;
};

/* Finds [daemon] user and makes [store] path its own: the folder with mode 0700, and of what is in
 * it the store's own files, never by a link. Without root nothing changes. -ENOENT: no such user,
 * and the text says how to get it; -EINVAL, -ENOTDIR, -EACCES.. name the path. */
int worker_user_prepare(const struct config *cfg, struct worker_user *out, struct err *err);

/* In the child that becomes the worker: the user, its groups, no capability that could be had
 * again, no_new_privs. 0 or a negative errno, after which the child may do nothing but end. */
int worker_user_become(const struct worker_user *u);

#endif
