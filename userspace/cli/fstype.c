/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/fstype.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"

static const struct {
	const char *name;
	unsigned at, len;
	uint8_t magic[4];
	const char *options;
} known[] = {
	{"erofs", 1024, 4, {0xe2, 0xe1, 0xf5, 0xe0}, NULL},
	{"ext4",
	 1080,
	 2,
	 {0x53, 0xef},
	 "noload"}, /* ext2 and ext3 too: the ext4 driver reads all */
	{"xfs", 0, 4, {'X', 'F', 'S', 'B'}, "norecovery"},
	{"squashfs", 0, 4, {'h', 's', 'q', 's'}, NULL},
};
#define KNOWN (sizeof(known) / sizeof(known[0]))

int fstype_detect(const char *device, char out[FSTYPE_MAX], struct err *err)
{
	uint8_t head[4096];
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	int rc = fd < 0 ? -errno : pread_all(fd, head, sizeof(head), 0);

	if (fd >= 0)
		close(fd);
	if (rc)
		return err_set(err, rc, "reading %s: %s", device, strerror(-rc));
	for (size_t i = 0; i < KNOWN; i++) {
		if (memcmp(head + known[i].at, known[i].magic, known[i].len) == 0) {
			strcpy(out, known[i].name);
			return 0;
		}
	}
	return err_set(err, -EINVAL,
		       "the image holds no erofs, ext4, xfs or squashfs; name its file system "
		       "with --fs, or use cairn attach");
}

const char *fstype_options(const char *fs)
{
	for (size_t i = 0; i < KNOWN; i++)
		if (strcmp(known[i].name, fs) == 0)
			return known[i].options;
	return NULL;
}
