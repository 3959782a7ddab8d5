/* SPDX-License-Identifier: Apache-2.0 */
/* The mark of an orderly stop: boot id, and size, mtime and ctime of every object's files.
 *
 * It vouches for an object only in the same boot (a power cut loses pages) and only while its files
 * are as they were left: whoever writes to them through the file system changes their ctime. Damage
 * below the file system is not seen here.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "store/store_impl.h"

#define CLEAN_LIMIT (64U << 20)
#define BOOT_ID	    "/proc/sys/kernel/random/boot_id"

struct clean {
	char *text; /* lines, as object_stamp() makes them */
};

static int file_stamp(int fd, char *buf, size_t len)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	snprintf(buf, len, "%" PRIu64 " %" PRIu64 " %" PRId64 ".%09ld %" PRId64 ".%09ld",
		 (uint64_t)st.st_ino, (uint64_t)st.st_size, (int64_t)st.st_mtim.tv_sec,
		 st.st_mtim.tv_nsec, (int64_t)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
	return 0;
}

int object_stamp(const struct object *o, char *buf, size_t len)
{
	char data[128], present[128], sums[128] = "-";

	if (file_stamp(o->data_fd, data, sizeof(data)) < 0 ||
	    file_stamp(o->present_fd, present, sizeof(present)) < 0 ||
	    (o->sums_fd >= 0 && file_stamp(o->sums_fd, sums, sizeof(sums)) < 0))
		return -EIO;
	snprintf(buf, len, "%s %s %s %s\n", o->name, data, present, sums);
	return 0;
}

static int boot_line(char *buf, size_t len)
{
	char *id;
	size_t n;
	int rc = file_read_all(BOOT_ID, 256, &id, &n);

	if (rc)
		return rc;
	snprintf(buf, len, "boot %s", id); /* ends in a newline of its own */
	free(id);
	return 0;
}

struct clean *clean_take(struct store *s)
{
	struct clean *c = NULL;
	char boot[300], *text = NULL;
	size_t len;

	if (attr_read(s->dir_fd, "clean", CLEAN_LIMIT, &text, &len) < 0)
		return NULL;
	if (unlinkat(s->dir_fd, "clean", 0) < 0 || boot_line(boot, sizeof(boot)) < 0 ||
	    strncmp(text, boot, strlen(boot)) != 0) {
		free(text);
		return NULL;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		free(text);
		return NULL;
	}
	c->text = text;
	return c;
}

bool clean_vouches(const struct clean *c, const struct object *o)
{
	char line[600];
	const char *at;

	if (!c || object_stamp(o, line, sizeof(line)) < 0)
		return false;
	at = strstr(c->text, line);
	return at && at[-1] == '\n'; /* never the first line: that is the boot's */
}

void clean_free(struct clean *c)
{
	if (!c)
		return;
	free(c->text);
	free(c);
}

int clean_leave(struct store *s)
{
	char line[600], *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int rc;

	if (!f)
		return -ENOMEM;
	rc = boot_line(line, sizeof(line));
	if (!rc)
		fputs(line, f);
	for (uint64_t i = 0; !rc && i < s->nobjects; i++) {
		rc = object_stamp(s->objects[i], line, sizeof(line));
		if (!rc)
			fputs(line, f);
	}
	if (fclose(f) != 0 && !rc)
		rc = -ENOMEM;
	if (!rc)
		rc = attr_write_soon(s->dir_fd, "clean", text,
				     len); /* of this boot, or not at all */
	free(text);
	return rc;
}
