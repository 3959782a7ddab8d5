/* SPDX-License-Identifier: Apache-2.0 */
/* Objects that are whole on this node, and those of them that are read past the worker.
 *
 * DIR/complete holds the stamps of the object's files as they were when each block of it had been
 * verified (stored, or known to be zeros) and data and present had reached the disk. So it vouches
 * for all blocks in any later boot, whatever stopped the machine: while the stamps are the same
 * nobody has written to the files since. It is gone from the disk before the first hole is.
 *
 * A sealed object's data file has mode 0400, and this process holds no descriptor that writes to
 * it: a stray write fails instead of changing what others read.
 *
 * DIR/promoted holds the boot id while someone else may read the data file: the next worker keeps
 * the object before it looks at anything else. Neither loop devices nor mounts outlive a boot. It
 * is let go only when the kernel says that nobody has the file open: a write lease is given on no
 * others.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/process.h"
#include "store/store_impl.h"

#define COMPLETE    "complete"
#define PROMOTED    "promoted"
#define STAMP_LIMIT 600
#define PATH_LEN    112

bool object_is_complete(const struct object *o)
{
	for (uint64_t i = 0; i < o->extents; i++)
		if (atomic_load(&o->ready[i]) != object_mask(o, i))
			return false;
	return true;
}

bool object_has_all(const struct object *o)
{
	return atomic_load(&o->stored_blocks) + atomic_load(&o->zero_blocks) >=
	       (o->id.length + STORE_BLOCK - 1) / STORE_BLOCK;
}

/* The same number, another open file: readers of it go on. */
static int data_reopen(struct object *o, int dir, int flags)
{
	int fd = openat(dir, "data", flags | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	file_skip_atime(fd);
	if (dup3(fd, o->data_fd, O_CLOEXEC) < 0)
		rc = -errno;
	object_pages_advise(o);
	close(fd);
	return rc;
}

static int mark_write(struct object *o, int dir)
{
	char line[STAMP_LIMIT];
	int rc = object_stamp(o, line, sizeof(line));

	if (!rc)
		rc = attr_write(dir, COMPLETE, line, strlen(line));
	if (!rc && fsync(dir))
		rc = -errno;
	return rc;
}

static int seal(struct object *o, int dir)
{
	int rc = fsync(o->data_fd) || fsync(o->present_fd) || fchmod(o->data_fd, 0400) ? -errno : 0;

	if (!rc)
		rc = data_reopen(o, dir, O_RDONLY);
	return rc ? rc : mark_write(o, dir);
}

int object_seal(struct object *o)
{
	int rc = 0, dir;

	if (!o->sealed && fsync(o->data_fd)) /* what takes long, before others have to wait */
		return -errno;
	pthread_mutex_lock(&o->store->lock);
	if (o->sealed)
		goto out;
	if (o->own_sums || !object_is_complete(o)) {
		rc = -EAGAIN;
		goto out;
	}
	dir = object_dir_open(o);
	if (dir < 0) {
		rc = dir;
		goto out;
	}
	rc = seal(o, dir);
	close(dir);
	o->sealed = !rc;
	if (rc)
		object_unseal(o);
out:
	pthread_mutex_unlock(&o->store->lock);
	return rc;
}

static int unseal(struct object *o, int dir)
{
	if (unlinkat(dir, COMPLETE, 0) && errno != ENOENT)
		return -errno;
	if (fsync(dir) || fchmod(o->data_fd, 0600))
		return -errno;
	o->sealed = false;
	return data_reopen(o, dir, O_RDWR);
}

int object_unseal(struct object *o)
{
	int dir = object_dir_open(o), rc;

	if (dir < 0)
		return dir;
	rc = unseal(o, dir);
	close(dir);
	return rc;
}

/* One of the small files in the object's folder. */
static void path_of(const struct object *o, const char *name, char out[PATH_LEN])
{
	snprintf(out, PATH_LEN, "%s/%s", o->name, name);
}

bool object_is_marked(const struct object *o)
{
	char path[PATH_LEN];

	path_of(o, COMPLETE, path);
	return !faccessat(o->store->objects_fd, path, F_OK, 0);
}

bool object_is_vouched(struct object *o)
{
	char line[STAMP_LIMIT], path[PATH_LEN], *text;
	size_t len;
	bool same;

	path_of(o, COMPLETE, path);
	if (object_stamp(o, line, sizeof(line)) ||
	    attr_read(o->store->objects_fd, path, STAMP_LIMIT, &text, &len))
		return false;
	same = strcmp(line, text) == 0;
	free(text);
	return same;
}

void object_load_promoted(struct object *o)
{
	char boot[BOOT_ID_LEN], path[PATH_LEN], *text;
	size_t len;

	path_of(o, PROMOTED, path);
	if (attr_read(o->store->objects_fd, path, BOOT_ID_LEN, &text, &len))
		return;
	if (!boot_id(boot) && strcmp(text, boot) == 0) {
		o->orphan = true;
		atomic_fetch_add(&o->kept, 1);
	} else {
		unlinkat(o->store->objects_fd, path, 0);
	}
	free(text);
}

static int promoted_write(struct object *o)
{
	char boot[BOOT_ID_LEN];
	int rc = boot_id(boot), dir;

	if (rc)
		return rc;
	dir = object_dir_open(o);
	if (dir < 0)
		return dir;
	rc = attr_write_soon(dir, PROMOTED, boot, strlen(boot));
	close(dir);
	return rc;
}

int object_promote(struct object *o)
{
	int rc;

	object_keep(o);
	rc = object_seal(o);
	if (!rc && !(rc = promoted_write(o))) {
		object_promoted(o);
		object_let_go(o);
		return 0;
	}
	object_let_go(o);
	return rc;
}

void object_promoted(struct object *o)
{
	pthread_mutex_lock(&o->store->lock);
	if (o->orphan)
		o->orphan = false; /* kept since it was loaded */
	else
		atomic_fetch_add(&o->kept, 1);
	o->promotions++;
	pthread_mutex_unlock(&o->store->lock);
}

bool object_is_read_elsewhere(struct object *o)
{
	bool is = true;

	if (object_files_open(o))
		return true;
	object_direct_close(o);
	if (!fcntl(o->data_fd, F_SETLEASE, F_WRLCK)) {
		fcntl(o->data_fd, F_SETLEASE, F_UNLCK);
		is = false;
	}
	object_files_close(o);
	return is;
}

/* Under the lock. */
static void let_go_unread(struct object *o)
{
	char path[PATH_LEN];

	if (!o->orphan || object_is_read_elsewhere(o))
		return;
	o->orphan = false;
	path_of(o, PROMOTED, path);
	unlinkat(o->store->objects_fd, path, 0);
	atomic_fetch_sub(&o->kept, 1);
}

void object_release(struct object *o)
{
	pthread_mutex_lock(&o->store->lock);
	if (--o->promotions)
		atomic_fetch_sub(&o->kept, 1);
	else
		o->orphan = true;
	let_go_unread(o);
	pthread_mutex_unlock(&o->store->lock);
}

void store_let_go_unread(struct store *s)
{
	pthread_mutex_lock(&s->lock);
	for (uint64_t i = 0; i < s->nobjects; i++)
		let_go_unread(s->objects[i]);
	pthread_mutex_unlock(&s->lock);
}

int object_data_path(const struct object *o, char *out, size_t room)
{
	int n = snprintf(out, room, "%s/objects/%s/data", o->store->path, o->name);

	return n < 0 || (size_t)n >= room ? -ENAMETOOLONG : 0;
}
