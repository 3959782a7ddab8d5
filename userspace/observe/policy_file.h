/* SPDX-License-Identifier: Apache-2.0 */
/* What `cairn tune --save` keeps: policy.json in the store's folder.
 *
 *	{"format": "cairn-policy", "version": 1,
 *	 "images":  {"sha256:.." or URL: {KEY: VALUE, ..}, ..},
 *	 "cgroups": {PATH: {KEY: VALUE, ..}, ..}}
 *
 * Written whole or not at all. A file that is not like this is advice that was lost: it is moved
 * aside, said, and everything goes on without. One thread at a time.
 */
#ifndef OBSERVE_POLICY_FILE_H
#define OBSERVE_POLICY_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "observe/tune.h"

#define POLICY_FILE_NAME    "policy.json"
#define POLICY_FILE_ENTRIES 4096 /* at most */
#define POLICY_FILE_LIMIT   (4UL << 20)

struct policy_entry {
	bool is_cgroup;
	char *subject; /* an image's digest or URL; a cgroup's path */
	struct tuning tuning;
};

struct policy_file {
	struct policy_entry *list;
	size_t n;
};

/* A file that is not there is an empty one. -EINVAL: it is damaged or of another version, was
 * renamed to PATH.damaged, and *out is empty; the text says all that. */
int policy_file_load(const char *path, struct policy_file *out, struct err *err);
int policy_file_save(const char *path, const struct policy_file *f, struct err *err);
void policy_file_free(struct policy_file *f);

/* NULL: none. Valid until the next put. */
const struct tuning *policy_file_find(const struct policy_file *f, bool is_cgroup,
				      const char *subject);

/* Merge @change into the subject's entry; one with no key left goes. -ENOSPC, -ENOMEM. */
int policy_file_put(struct policy_file *f, bool is_cgroup, const char *subject,
		    const struct tuning *change, struct err *err);

#endif
