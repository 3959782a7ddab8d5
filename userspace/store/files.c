/* SPDX-License-Identifier: Apache-2.0 */
/* An object's descriptors. They are open while somebody uses the object or works on its files, and
 * not longer: a store holds more objects than a process may have descriptors.
 *
 * What the files were like when they were closed is remembered: for the clean mark, since an
 * orderly stop need not look at those of objects that nobody uses, and for the next opening, which
 * believes nothing of files that are others by then.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "store/store_impl.h"

static int open_file(struct object *o, const char *name, int *fd)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/%s", o->name, name);
	*fd = openat(o->store->objects_fd, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	return *fd < 0 ? -errno : 0;
}

/* Refused to who does not own the file, and then it is as it was. */
void file_skip_atime(int fd)
{
	fcntl(fd, F_SETFL, O_NOATIME);
}

int object_dir_open(const struct object *o)
{
	int fd = openat(o->store->objects_fd, o->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int object_data_open(const struct object *o)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "%s/data", o->name);
	fd = openat(o->store->objects_fd, path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void close_file(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_all(struct object *o)
{
	close_file(&o->data_fd);
	close_file(&o->present_fd);
	close_file(&o->sums_fd);
	if (o->direct_fd >= 0)
		close(o->direct_fd);
	o->direct_fd = -1;
}

/* A sealed one is only read. One that was being sealed when its process ended has no mark yet, but
 * the mode. */
static int open_data(struct object *o)
{
	char path[96];
	int rc;

	snprintf(path, sizeof(path), "%s/data", o->name);
	if (o->sealed) {
		o->data_fd = openat(o->store->objects_fd, path, O_RDONLY | O_CLOEXEC);
		if (o->data_fd >= 0)
			return 0;
		o->sealed = false; /* gone: made anew, and not believed */
	}
	rc = open_file(o, "data", &o->data_fd);
	if (rc != -EACCES || fchmodat(o->store->objects_fd, path, 0600, 0))
		return rc;
	return open_file(o, "data", &o->data_fd);
}

static int open_all(struct object *o)
{
	int rc = open_data(o);

	if (!rc)
		file_skip_atime(o->data_fd);
	if (!rc)
		rc = open_file(o, "present", &o->present_fd);
	if (!rc && o->own_sums)
		rc = open_file(o, "sums", &o->sums_fd);
	if (rc)
		close_all(o);
	return rc;
}

static int stamp_take(int fd, struct file_stamp *out)
{
	struct stat st;

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) < 0)
		return -errno;
	*out = (struct file_stamp){.ino = st.st_ino,
				   .size = (uint64_t)st.st_size,
				   .mtime = st.st_mtim,
				   .ctime = st.st_ctim};
	return 0;
}

static bool stamp_is_same(const struct file_stamp *a, const struct file_stamp *b)
{
	return a->ino == b->ino && a->size == b->size && a->mtime.tv_sec == b->mtime.tv_sec &&
	       a->mtime.tv_nsec == b->mtime.tv_nsec && a->ctime.tv_sec == b->ctime.tv_sec &&
	       a->ctime.tv_nsec == b->ctime.tv_nsec;
}

static int stamps_take(const struct object *o, struct object_stamps *out)
{
	int rc = stamp_take(o->data_fd, &out->data);

	if (!rc)
		rc = stamp_take(o->present_fd, &out->present);
	return rc ? rc : stamp_take(o->sums_fd, &out->sums);
}

/* Somebody touched the files meanwhile. Nobody reads the object, so all of it can be hidden. */
static int disbelieve(struct object *o)
{
	int rc = o->sealed ? object_unseal(o) : 0;

	if (rc)
		return rc;
	log_warn("store", "files were changed while they were closed; their blocks are rechecked",
		 "object=%s", o->name);
	for (uint64_t i = 0; i < o->extents; i++) {
		uint64_t stored = atomic_load(&o->stored[i]);

		if (stored != atomic_load(&o->suspect[i]))
			atomic_store(&o->suspect[i], stored);
		if (atomic_load(&o->ready[i])) /* zeros, too: who knows what the hole holds now */
			atomic_store(&o->ready[i], 0);
	}
	atomic_store(&o->zero_blocks, 0);
	return 0;
}

static bool is_as_it_was(const struct object *o)
{
	struct object_stamps now = {0};

	return !stamps_take(o, &now) && stamp_is_same(&now.data, &o->stamps.data) &&
	       stamp_is_same(&now.present, &o->stamps.present) &&
	       stamp_is_same(&now.sums, &o->stamps.sums);
}

int object_files_open(struct object *o)
{
	int rc = 0;

	pthread_mutex_lock(&o->files_lock);
	if (!o->files_users)
		rc = open_all(o);
	if (!rc && !o->files_users && o->is_stamped && !is_as_it_was(o))
		rc = disbelieve(o);
	if (!rc)
		o->files_users++;
	else if (!o->files_users)
		close_all(o);
	pthread_mutex_unlock(&o->files_lock);
	return rc;
}

void object_files_close(struct object *o)
{
	pthread_mutex_lock(&o->files_lock);
	if (!--o->files_users) {
		o->is_stamped = !stamps_take(o, &o->stamps);
		close_all(o);
	}
	pthread_mutex_unlock(&o->files_lock);
}

void object_direct_open(struct object *o)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/data", o->name);
	pthread_mutex_lock(&o->files_lock);
	if (o->files_users && o->direct_fd < 0)
		o->direct_fd = openat(o->store->objects_fd, path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	pthread_mutex_unlock(&o->files_lock);
}

void object_direct_close(struct object *o)
{
	pthread_mutex_lock(&o->files_lock);
	if (o->direct_fd >= 0 && !atomic_load(&o->device_readers)) {
		close(o->direct_fd);
		o->direct_fd = -1;
	}
	pthread_mutex_unlock(&o->files_lock);
}

int object_stamps(struct object *o, struct object_stamps *out)
{
	int rc = 0;

	pthread_mutex_lock(&o->files_lock);
	if (o->files_users)
		rc = stamps_take(o, out);
	else if (o->is_stamped)
		*out = o->stamps;
	else
		rc = -ENODATA;
	pthread_mutex_unlock(&o->files_lock);
	return rc;
}
