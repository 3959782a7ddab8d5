/* SPDX-License-Identifier: Apache-2.0 */
/* Which file's bytes are where on a mounted device, and which file has which inode number: asked of
 * the file system by FIEMAP, which ext4 and erofs both answer. A child walks the mount, since it
 * may hang in it, and is lost after FILES_WAIT_MS or FILES_MAX files; what it found until then is
 * used. The walk reads the folders and inodes of the image, through the device.
 */
#ifndef CLI_FILES_H
#define CLI_FILES_H

#include <stdbool.h>
#include <stdint.h>

#define FILES_WAIT_MS 2000
#define FILES_MAX     200000U

struct files;

/* Begin to walk the file system on @device ("/dev/loop0"). NULL: it is mounted nowhere that we see.
 */
struct files *files_start(const char *device);
void files_free(struct files *f);

/* It is still mounted there. */
bool files_stand(const struct files *f);

const char *files_mount_point(const struct files *f);

/* Wait for the walk's end, at most until its time is over; with @patiently false only look. */
void files_settle(struct files *f, bool patiently);

/* The file, relative to the mount point, with most bytes in [off, off + len), and how many others
 * have some; NULL: none that is known. */
const char *files_of_range(const struct files *f, uint64_t off, uint64_t len, uint32_t *others);
const char *files_of_inode(const struct files *f, uint64_t ino);

#endif
