/* SPDX-License-Identifier: Apache-2.0 */
/* A mount table as the kernel prints it in /proc/PID/mountinfo. Reading it touches no mount, so it
 * cannot hang on one that is stuck. */
#ifndef BASE_MOUNTS_H
#define BASE_MOUNTS_H

#include <limits.h>
#include <stdbool.h>

struct mount_entry {
	unsigned major, minor;
	char point[PATH_MAX]; /* unescaped */
	char type[32];
	char source[PATH_MAX]; /* unescaped */
};

/* One line of mountinfo; false when it is none. */
bool mount_parse(char *line, struct mount_entry *out);

/* Calls fn for each mount, oldest first, until it returns false. 0 or a negative errno. */
int mounts_each(const char *mountinfo, bool (*fn)(void *arg, const struct mount_entry *m),
		void *arg);

/* Where the block device is mounted, seen from @mountinfo: the newest such mount. */
bool mounts_find_device(const char *mountinfo, unsigned major, unsigned minor,
			struct mount_entry *out);

/* What is mounted on @point (an absolute path without links): the newest, which is what one sees.
 */
bool mounts_find_point(const char *mountinfo, const char *point, struct mount_entry *out);

#endif
