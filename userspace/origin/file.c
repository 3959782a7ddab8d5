/* SPDX-License-Identifier: Apache-2.0 */
/* The file origin: a local (or mounted) folder.
 *
 * Reads block the calling thread.  The ETag is "MTIME-SIZE-INODE".  What is published appears by
 * rename or link, synced before, so that a name is never seen half-written; staged blocks are files
 * in the folder .NAME.cairn-stage beside the blob.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "origin/origin_impl.h"

#define STAGE_SUFFIX ".cairn-stage"
#define PATH_LEN     (2 * ORIGIN_NAME_MAX + 160)

static const char *file_show(const struct origin *o, const char *name, char *buf, size_t len)
{
	char path[PATH_LEN], enc[3 * PATH_LEN];

	snprintf(path, sizeof(path), "%s%s", o->url.folder, name);
	url_encode(path, "/!$&'()*+,;=:@", enc, sizeof(enc));
	snprintf(buf, len, "file://%s", enc);
	return buf;
}

static void path_of(const struct origin *o, const char *name, char path[PATH_LEN])
{
	snprintf(path, PATH_LEN, "%s%s", o->url.folder, name);
}

/* "DIR/.LEAF" and @suffix: hidden, and beside the blob so that rename stays in one file system. */
static void hidden_path(const struct origin *o, const char *name, const char *suffix,
			char path[PATH_LEN])
{
	const char *slash = strrchr(name, '/'), *leaf = slash ? slash + 1 : name;

	snprintf(path, PATH_LEN, "%s%.*s.%s%s", o->url.folder, (int)(leaf - name), name, leaf,
		 suffix);
}

/* Returns @rc (or what it means here) with the path, the reason and the remedy. */
static int explain(const char *path, const char *what, int rc, struct err *err)
{
	switch (rc) {
	case -ENOENT:
	case -ENOTDIR:
		return err_set(
			err, -ENOENT,
			"file://%.400s: %s: no such file or folder: check the path, or create the "
			"folder",
			path, what);
	case -EACCES:
	case -EPERM:
		return err_set(err, -EACCES,
			       "file://%.400s: %s: permission denied: let user %u at it", path,
			       what, geteuid());
	case -ENOSPC:
	case -EDQUOT:
		return err_set(err, rc,
			       "file://%.400s: %s: the file system is full: free space there", path,
			       what);
	case -EROFS:
		return err_set(err, rc, "file://%.400s: %s: the file system is mounted read-only",
			       path, what);
	}
	return err_set(err, rc, "file://%.400s: %s: %s", path, what, strerror(-rc));
}

static void etag_of(const struct stat *st, char etag[ORIGIN_ETAG_MAX])
{
	snprintf(etag, ORIGIN_ETAG_MAX, "%lld.%09ld-%llu-%llu", (long long)st->st_mtim.tv_sec,
		 st->st_mtim.tv_nsec, (unsigned long long)st->st_size,
		 (unsigned long long)st->st_ino);
}

/* A descriptor (>= 0) of the blob with its state, or an error. */
static int open_blob(const struct origin *o, const char *name, struct stat *st, char path[PATH_LEN],
		     struct err *err)
{
	int fd, rc;

	path_of(o, name, path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would block */
	if (fd < 0 || fstat(fd, st) < 0) {
		rc = explain(path, "opening", -errno, err);
	} else if (!S_ISREG(st->st_mode)) {
		rc = err_set(err, -EINVAL, "file://%.400s: is not a regular file", path);
	} else {
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

static int read_checked(struct origin_read *r, int fd, const struct stat *st, const char *path)
{
	struct stat after;
	int rc;

	etag_of(st, r->got_etag);
	if (r->etag && *r->etag && strcmp(r->etag, r->got_etag) != 0)
		return err_set(&r->err, -ESTALE,
			       "file://%.400s: the file changed since its manifest was written: "
			       "publish it again",
			       path);
	if (r->off > (uint64_t)st->st_size || r->len > (uint64_t)st->st_size - r->off)
		return err_set(&r->err, -ERANGE, "file://%.400s: the file ends before byte %llu",
			       path, (unsigned long long)r->off + r->len);
	rc = pread_all(fd, r->dst, r->len, r->off);
	if (rc == -ENODATA ||
	    (!rc && r->etag && *r->etag && !fstat(fd, &after) &&
	     (after.st_size != st->st_size || after.st_mtim.tv_nsec != st->st_mtim.tv_nsec ||
	      after.st_mtim.tv_sec != st->st_mtim.tv_sec)))
		return err_set(&r->err, -ESTALE,
			       "file://%.400s: the file changed while it was read", path);
	return rc ? explain(path, "reading", rc, &r->err) : 0;
}

static void file_read(struct origin_client *c, struct origin_read *r)
{
	char path[PATH_LEN];
	struct stat st;
	int fd = open_blob(r->origin, r->name, &st, path, &r->err);
	int rc = fd;

	if (fd >= 0) {
		rc = read_checked(r, fd, &st, path);
		close(fd);
	}
	origin_counters.get_requests++;
	if (rc)
		origin_counters.errors++;
	else
		origin_counters.get_bytes += r->len;
	if (!rc && r->progress)
		r->progress(r, r->len);
	origin_read_finish(c, r, rc);
}

static void file_cancel(struct origin_client *c, struct origin_read *r)
{
	(void)c; /* a read that is not due any more is done */
	(void)r;
}

static int file_stat(struct origin_client *c, struct origin *o, const char *name,
		     struct origin_stat *out, struct err *err)
{
	char path[PATH_LEN];
	struct stat st;
	int fd = open_blob(o, name, &st, path, err);

	(void)c;
	if (fd < 0)
		return fd;
	close(fd);
	origin_counters.head_requests++;
	out->length = (uint64_t)st.st_size;
	etag_of(&st, out->etag);
	return 0;
}

static int get_from(int fd, const struct stat *st, const char *path, size_t limit,
		    const char *if_none_match, char **buf, size_t *len, char *etag, struct err *err)
{
	char now[ORIGIN_ETAG_MAX], *p;
	int rc;

	etag_of(st, now);
	if (if_none_match && strcmp(if_none_match, now) == 0)
		return err_set(err, -EALREADY, "file://%.400s: not changed", path);
	if ((uint64_t)st->st_size > limit)
		return err_set(err, -EFBIG,
			       "file://%.400s: has %lld bytes, more than the %zu expected at most",
			       path, (long long)st->st_size, limit);
	p = malloc((size_t)st->st_size + 1);
	if (!p)
		return err_set(err, -ENOMEM, "no memory to read %.400s", path);
	rc = pread_all(fd, p, (size_t)st->st_size, 0);
	if (rc) {
		free(p);
		return explain(path, "reading", rc, err);
	}
	p[st->st_size] = 0;
	*buf = p;
	*len = (size_t)st->st_size;
	if (etag)
		strcpy(etag, now);
	return 0;
}

static int file_get(struct origin_client *c, struct origin *o, const char *name, size_t limit,
		    const char *if_none_match, char **buf, size_t *len, char *etag, struct err *err)
{
	char path[PATH_LEN];
	struct stat st;
	int fd = open_blob(o, name, &st, path, err), rc;

	(void)c;
	if (fd < 0)
		return fd;
	rc = get_from(fd, &st, path, limit, if_none_match, buf, len, etag, err);
	close(fd);
	origin_counters.get_requests++;
	if (!rc)
		origin_counters.get_bytes += *len;
	return rc;
}

/* --- publishing ----------------------------------------------------------------------------- */

/* The folders of @name below the origin's own, which must be there. */
static int make_folders(const struct origin *o, const char *name)
{
	char path[PATH_LEN];
	size_t at = strlen(o->url.folder);

	path_of(o, name, path);
	for (char *p = path + at; (p = strchr(p, '/')); p++) {
		*p = 0;
		if (mkdir(path, 0777) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

static int sync_folder_of(const char *path)
{
	char dir[PATH_LEN];
	int fd, rc = 0;

	snprintf(dir, sizeof(dir), "%s", path);
	*(strrchr(dir, '/') + 1) = 0;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0 && errno != EINVAL) /* some network file systems can't */
		rc = -errno;
	close(fd);
	return rc;
}

/* Give the whole, synced file @temp its name; @temp is gone afterwards. */
static int publish(const char *temp, const char *path, bool exclusive)
{
	int rc = 0;

	if (!exclusive)
		rc = rename(temp, path) < 0 ? -errno : 0;
	else if (link(temp, path) < 0) /* rename would replace */
		rc = -errno;
	if (rc || exclusive)
		unlink(temp);
	return rc ? rc : sync_folder_of(path);
}

/* A new hidden file beside the blob (its descriptor, >= 0); its path goes to @temp. */
static int open_temp(const struct origin *o, const char *name, char temp[PATH_LEN])
{
	int rc = make_folders(o, name), fd;

	if (rc)
		return rc;
	hidden_path(o, name, ".cairn-XXXXXX", temp);
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	fchmod(fd, 0644); /* a published blob is for all to read */
	return fd;
}

static int write_synced(int fd, const void *buf, size_t len)
{
	int rc = pwrite_all(fd, buf, len, 0);

	if (!rc && fsync(fd) < 0)
		rc = -errno;
	return rc;
}

static int file_put(struct origin_client *c, struct origin *o, const char *name, const void *buf,
		    size_t len, bool exclusive, struct err *err)
{
	char path[PATH_LEN], temp[PATH_LEN];
	int fd = open_temp(o, name, temp), rc = fd;

	(void)c;
	path_of(o, name, path);
	if (fd >= 0) {
		rc = write_synced(fd, buf, len);
		close(fd);
		if (rc)
			unlink(temp);
		else
			rc = publish(temp, path, exclusive);
	}
	origin_counters.put_requests++;
	if (rc == -EEXIST)
		return err_set(
			err, rc,
			"file://%.400s: exists already; a published name is never overwritten",
			path);
	if (rc)
		return explain(path, "writing", rc, err);
	origin_counters.put_bytes += len;
	return 0;
}

static int file_stage(struct origin_client *c, struct origin *o, const char *name, const char *id,
		      const void *buf, size_t len, struct err *err)
{
	char dir[PATH_LEN], block[PATH_LEN + 80], temp[PATH_LEN + 80];
	int fd, rc = make_folders(o, name);

	(void)c;
	hidden_path(o, name, STAGE_SUFFIX, dir);
	if (!rc && mkdir(dir, 0777) < 0 && errno != EEXIST)
		rc = -errno;
	if (rc)
		return explain(dir, "staging", rc, err);
	snprintf(block, sizeof(block), "%s/%s", dir, id);
	snprintf(temp, sizeof(temp), "%s/.%s.XXXXXX", dir, id);
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0)
		return explain(dir, "staging", -errno, err);
	rc = write_synced(fd, buf, len); /* listed means whole, also after a crash */
	close(fd);
	if (!rc && rename(temp, block) < 0)
		rc = -errno;
	if (rc) {
		unlink(temp);
		return explain(block, "staging", rc, err);
	}
	origin_counters.put_requests++;
	origin_counters.put_bytes += len;
	return 0;
}

/* Append the whole of @in at *@to of @out; by reference where the file system can. */
static int append(int out, int in, uint64_t *to)
{
	static const size_t chunk = 1 << 20;
	char *buf = NULL;
	off_t at = (off_t)*to;
	ssize_t n;

	while ((n = copy_file_range(in, NULL, out, &at, SSIZE_MAX & ~4095L, 0)) > 0)
		;
	if (n < 0 &&
	    (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) {
		buf = malloc(chunk);
		if (!buf)
			return -ENOMEM;
		while ((n = read(in, buf, chunk)) > 0) {
			int rc = pwrite_all(out, buf, (size_t)n, (uint64_t)at);

			if (rc) {
				free(buf);
				return rc;
			}
			at += n;
		}
	}
	free(buf);
	*to = (uint64_t)at;
	return n < 0 ? -errno : 0;
}

static int assemble(int out, const char *dir, const char *const *ids, size_t n, struct err *err)
{
	char block[PATH_LEN + 80];
	uint64_t to = 0;

	for (size_t i = 0; i < n; i++) {
		int in, rc;

		snprintf(block, sizeof(block), "%s/%s", dir, ids[i]);
		in = open(block, O_RDONLY | O_CLOEXEC);
		if (in < 0 && (errno == ENOENT || errno == ENOTDIR))
			return err_set(
				err, -EINVAL,
				"file://%.400s: block %s of the list is not staged (any more): "
				"publish again",
				dir, ids[i]);
		rc = in < 0 ? -errno : append(out, in, &to);
		if (in >= 0)
			close(in);
		if (rc)
			return explain(block, "committing", rc, err);
	}
	return fsync(out) < 0 ? explain(dir, "committing", -errno, err) : 0;
}

static void remove_stage(const char *dir)
{
	char path[PATH_LEN + 300];
	DIR *d = opendir(dir);
	struct dirent *e;

	if (!d)
		return;
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		unlink(path);
	}
	closedir(d);
	rmdir(dir);
}

static int file_commit(struct origin_client *c, struct origin *o, const char *name,
		       const char *const *ids, size_t n, char *etag, struct err *err)
{
	char path[PATH_LEN], temp[PATH_LEN], dir[PATH_LEN];
	struct stat st;
	int fd = open_temp(o, name, temp), rc;

	(void)c;
	path_of(o, name, path);
	hidden_path(o, name, STAGE_SUFFIX, dir);
	if (fd < 0)
		return explain(path, "committing", fd, err);
	rc = assemble(fd, dir, ids, n, err);
	if (!rc && fstat(fd, &st) < 0)
		rc = explain(path, "committing", -errno, err);
	close(fd);
	if (rc) {
		unlink(temp);
		return rc;
	}
	rc = publish(temp, path, false);
	if (rc)
		return explain(path, "committing", rc, err);
	etag_of(&st, etag);
	remove_stage(dir);
	origin_counters.put_requests++;
	return 0;
}

static int file_staged(struct origin_client *c, struct origin *o, const char *name,
		       void (*fn)(void *arg, const char *id, uint64_t len), void *arg,
		       struct err *err)
{
	char dir[PATH_LEN];
	struct dirent *e;
	struct stat st;
	DIR *d;

	(void)c;
	hidden_path(o, name, STAGE_SUFFIX, dir);
	d = opendir(dir);
	if (!d)
		return errno == ENOENT ? 0 : explain(dir, "listing", -errno, err);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.' && fstatat(dirfd(d), e->d_name, &st, 0) == 0)
			fn(arg, e->d_name, (uint64_t)st.st_size);
	closedir(d);
	return 0;
}

const struct origin_ops file_origin_ops = {
	.name = "file",
	.writable = true,
	.read = file_read,
	.cancel = file_cancel,
	.show = file_show,
	.stat = file_stat,
	.get = file_get,
	.put = file_put,
	.stage = file_stage,
	.commit = file_commit,
	.staged = file_staged,
};
