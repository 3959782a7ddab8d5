/* SPDX-License-Identifier: Apache-2.0 */
/* An image of a directory: erofs or ext4, the same bytes for the same tree. */
#ifndef IMAGE_BUILD_H
#define IMAGE_BUILD_H

#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

enum build_fs { BUILD_EROFS, BUILD_EXT4 };

/* mkfs.erofs or mke2fs makes IMAGE.tmp, which becomes @image when it is whole; what was there stays
 * until then. Both tools copy sockets, devices and pipes as such.
 * -EEXIST unless @force; -EINVAL when @image is in @dir; -ENOENT names the missing package. */
int image_build(const char *dir, const char *image, enum build_fs fs, bool force, struct err *err);

/* What a directory holds, as far as an image of it needs to know beforehand. Depends on names,
 * types, owners, modes, sizes and times in whole seconds only, so a `cp -a` copy has the same. */
struct listing {
	uint64_t entries; /* names */
	uint64_t blocks;  /* of 4 KiB, at least, for files, directories and links */
	uint64_t newest;  /* mtime, seconds */
	char uuid[37];
	struct {
		mode_t mode;
		uid_t uid;
		gid_t gid;
		uint64_t mtime;
	} root;
};
int listing_read(const char *dir, struct listing *out, struct err *err);

/* Those that would end this process: block them around tool_run() and what cleans up after it. */
void tool_signals(sigset_t *set);

/* Run @argv with exactly @env and wait. What it prints is kept for the error and for @said (may be
 * NULL; @said_len bytes). A blocked signal of tool_signals() ends the tool: -EINTR, and the signal
 * is still pending. -ENOENT names @package. */
int tool_run(char *const argv[], char *const env[], const char *package, char *said,
	     size_t said_len, struct err *err);

/* mke2fs into @path, which does not exist yet. */
int build_ext4(const char *dir, const char *path, const struct listing *l, struct err *err);

#endif
