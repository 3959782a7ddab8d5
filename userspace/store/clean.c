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
#include <unistd.h>

#include "base/log.h"
#include "store/store_impl.h"

#define CLEAN_LIMIT (64U << 20)
#define BOOT_ID	    "/proc/sys/kernel/random/boot_id"

struct clean {
	char *text;	    /* cut into lines, as object_stamp() makes them */
	const char **lines; /* sorted; the boot's is not among them */
	size_t n;
};

static void stamp_text(const struct file_stamp *f, char *buf, size_t len)
{
	snprintf(buf, len, "%" PRIu64 " %" PRIu64 " %" PRId64 ".%09ld %" PRId64 ".%09ld", f->ino,
		 f->size, (int64_t)f->mtime.tv_sec, f->mtime.tv_nsec, (int64_t)f->ctime.tv_sec,
		 f->ctime.tv_nsec);
}

int object_stamp(struct object *o, char *buf, size_t len)
{
	char data[128], present[128], sums[128] = "-";
	struct object_stamps stamps;
	int rc = object_stamps(o, &stamps);

	if (rc)
		return rc;
	stamp_text(&stamps.data, data, sizeof(data));
	stamp_text(&stamps.present, present, sizeof(present));
	if (o->own_sums)
		stamp_text(&stamps.sums, sums, sizeof(sums));
	snprintf(buf, len, "%s %s %s %s", o->name, data, present, sums);
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

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The lines of @text, which it takes; a last one that was cut off is none. */
static struct clean *clean_new(char *text)
{
	struct clean *c = calloc(1, sizeof(*c));
	size_t most = 0, i = 0;

	for (const char *p = text; (p = strchr(p, '\n')); p++)
		most++;
	if (c)
		c->lines = calloc(most + 1, sizeof(*c->lines));
	if (!c || !c->lines) {
		free(c);
		free(text);
		return NULL;
	}
	c->text = text;
	for (char *p = text, *end; (end = strchr(p, '\n')); p = end + 1) {
		*end = 0;
		if (i++)
			c->lines[c->n++] = p;
	}
	qsort(c->lines, c->n, sizeof(*c->lines), by_text);
	return c;
}

struct clean *clean_take(struct store *s)
{
	char boot[300], *text = NULL;
	size_t len;

	if (attr_read(s->dir_fd, "clean", CLEAN_LIMIT, &text, &len) < 0)
		return NULL;
	if (unlinkat(s->dir_fd, "clean", 0) < 0 || boot_line(boot, sizeof(boot)) < 0 ||
	    strncmp(text, boot, strlen(boot)) != 0) {
		free(text);
		return NULL;
	}
	return clean_new(text);
}

bool clean_vouches(const struct clean *c, struct object *o)
{
	char line[600];
	const char *key = line;

	if (!c || object_stamp(o, line, sizeof(line)) < 0)
		return false;
	return bsearch(&key, c->lines, c->n, sizeof(*c->lines), by_text);
}

void clean_free(struct clean *c)
{
	if (!c)
		return;
	free(c->lines);
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
	for (uint64_t i = 0; !rc && i < s->nobjects; i++)
		if (!object_stamp(s->objects[i], line, sizeof(line)))
			fprintf(f, "%s\n", line); /* an object without a line is rechecked */
	if (fclose(f) != 0 && !rc)
		rc = -ENOMEM;
	if (!rc)
		rc = attr_write_soon(s->dir_fd, "clean", text,
				     len); /* of this boot, or not at all */
	free(text);
	return rc;
}
