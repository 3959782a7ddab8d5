/* SPDX-License-Identifier: Apache-2.0 */
/* A file system that stands on a folder and does what disks do on bad days.
 *
 *	baddisk FOLDER CONTROL MOUNTPOINT
 *
 * Everything passes through to FOLDER, which the test may look at behind its back. The file CONTROL
 *is read at each operation; each of its lines is a fault, for files whose path holds TEXT (all when
 *there is none):
 *
 *	read EIO [TEXT]		write EIO [TEXT]	write ENOSPC [TEXT]	sync EIO [TEXT]
 *	read flip [TEXT]	write flip [TEXT]	a bit of each 64 KiB is turned, and success
 *told write short [TEXT]	half of it is written, then told write lose [TEXT]	nothing is
 *written, and success told change EROFS [TEXT]	whatever would change a name, a length or a hole,
 *and opening for writing
 *
 * The kernel's page cache stands above this, as above a disk: what is in it is not asked for here.
 */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define BLOCK	  65536
#define FLIPPED	  100 /* which byte of a block has its bit turned */
#define WRITE_MAX (1 << 20)

static const char *control;
static int root = -1;

static const char *rel(const char *path)
{
	return path[1] ? path + 1 : ".";
}

/* Is @what done so to files like @path? */
static bool has_fault(const char *what, const char *how, const char *path)
{
	char line[256], w[16], h[16], text[200];
	bool found = false;
	FILE *f = fopen(control, "re");

	while (f && !found && fgets(line, sizeof(line), f)) {
		int n = sscanf(line, "%15s %15s %199s", w, h, text);

		found = n >= 2 && !strcmp(w, what) && !strcmp(h, how) &&
			(n < 3 || strstr(path, text));
	}
	if (f)
		fclose(f);
	return found;
}

static int may_change(const char *path)
{
	return has_fault("change", "EROFS", path) ? -EROFS : 0;
}

static int result(int rc)
{
	return rc < 0 ? -errno : 0;
}

static void flip(char *buf, size_t len, off_t off)
{
	off_t at = off / BLOCK * BLOCK + FLIPPED;

	for (at = at < off ? at + BLOCK : at; at < off + (off_t)len; at += BLOCK)
		buf[at - off] ^= 1;
}

static int bad_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	return result(fi ? fstat((int)fi->fh, st)
			 : fstatat(root, rel(path), st, AT_SYMLINK_NOFOLLOW));
}

static int bad_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off,
		       struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	int fd = openat(root, rel(path), O_RDONLY | O_DIRECTORY);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	(void)off, (void)fi, (void)flags;
	if (!d)
		return -errno;
	while ((e = readdir(d)))
		fill(buf, e->d_name, NULL, 0, 0);
	closedir(d);
	return 0;
}

static int bad_open(const char *path, struct fuse_file_info *fi)
{
	int rc = fi->flags & (O_ACCMODE | O_TRUNC) ? may_change(path) : 0, fd;

	if (rc)
		return rc;
	fd = openat(root, rel(path), fi->flags & ~O_CREAT);
	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	fi->keep_cache = 1;
	return 0;
}

static int bad_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	int rc = may_change(path), fd;

	if (rc)
		return rc;
	if (has_fault("write", "ENOSPC", path))
		return -ENOSPC;
	fd = openat(root, rel(path), fi->flags | O_CREAT, mode);
	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	return 0;
}

static int bad_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	return result(close((int)fi->fh));
}

static int bad_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	ssize_t n;

	if (has_fault("read", "EIO", path))
		return -EIO;
	n = pread((int)fi->fh, buf, len, off);
	if (n > 0 && has_fault("read", "flip", path))
		flip(buf, (size_t)n, off);
	return n < 0 ? -errno : (int)n;
}

static int bad_write(const char *path, const char *buf, size_t len, off_t off,
		     struct fuse_file_info *fi)
{
	static _Thread_local char copy[WRITE_MAX];
	ssize_t n;

	if (has_fault("write", "EIO", path))
		return -EIO;
	if (has_fault("write", "ENOSPC", path))
		return -ENOSPC;
	if (has_fault("change", "EROFS", path))
		return -EROFS;
	if (has_fault("write", "lose", path))
		return (int)len;
	if (has_fault("write", "short", path) && len > 1)
		len /= 2;
	if (has_fault("write", "flip", path) && len <= sizeof(copy)) {
		memcpy(copy, buf, len);
		flip(copy, len, off);
		buf = copy;
	}
	n = pwrite((int)fi->fh, buf, len, off);
	return n < 0 ? -errno : (int)n;
}

static int bad_fsync(const char *path, int data_only, struct fuse_file_info *fi)
{
	if (has_fault("sync", "EIO", path))
		return -EIO;
	return result(data_only ? fdatasync((int)fi->fh) : fsync((int)fi->fh));
}

static int bad_truncate(const char *path, off_t len, struct fuse_file_info *fi)
{
	int rc = may_change(path), fd;

	if (rc)
		return rc;
	fd = fi ? (int)fi->fh : openat(root, rel(path), O_WRONLY);
	if (fd < 0)
		return -errno;
	rc = result(ftruncate(fd, len));
	if (!fi)
		close(fd);
	return rc;
}

static int bad_fallocate(const char *path, int mode, off_t off, off_t len,
			 struct fuse_file_info *fi)
{
	int rc = may_change(path);

	return rc ? rc : result(fallocate((int)fi->fh, mode, off, len));
}

static off_t bad_lseek(const char *path, off_t off, int whence, struct fuse_file_info *fi)
{
	off_t at = lseek((int)fi->fh, off, whence);

	(void)path;
	return at < 0 ? -errno : at;
}

static int bad_mkdir(const char *path, mode_t mode)
{
	int rc = may_change(path);

	if (!rc && has_fault("write", "ENOSPC", path))
		rc = -ENOSPC;
	return rc ? rc : result(mkdirat(root, rel(path), mode));
}

static int bad_unlink(const char *path)
{
	int rc = may_change(path);

	return rc ? rc : result(unlinkat(root, rel(path), 0));
}

static int bad_rmdir(const char *path)
{
	int rc = may_change(path);

	return rc ? rc : result(unlinkat(root, rel(path), AT_REMOVEDIR));
}

static int bad_rename(const char *from, const char *to, unsigned flags)
{
	int rc = may_change(to);

	return rc ? rc : result(renameat2(root, rel(from), root, rel(to), flags));
}

static int bad_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	(void)fi;
	return result(fchmodat(root, rel(path), mode, 0));
}

static int bad_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
	(void)fi;
	return result(fchownat(root, rel(path), uid, gid, AT_SYMLINK_NOFOLLOW));
}

static int bad_utimens(const char *path, const struct timespec at[2], struct fuse_file_info *fi)
{
	(void)fi;
	return result(utimensat(root, rel(path), at, AT_SYMLINK_NOFOLLOW));
}

static int bad_statfs(const char *path, struct statvfs *st)
{
	(void)path;
	return result(fstatvfs(root, st));
}

static void *bad_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
	/* A page that was read or written stays, as above a disk. */
	conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	cfg->kernel_cache = 1;
	cfg->use_ino = 1;
	cfg->hard_remove = 1;
	return NULL;
}

static const struct fuse_operations ops = {
	.init = bad_init,
	.getattr = bad_getattr,
	.readdir = bad_readdir,
	.open = bad_open,
	.create = bad_create,
	.release = bad_release,
	.read = bad_read,
	.write = bad_write,
	.fsync = bad_fsync,
	.truncate = bad_truncate,
	.fallocate = bad_fallocate,
	.lseek = bad_lseek,
	.mkdir = bad_mkdir,
	.unlink = bad_unlink,
	.rmdir = bad_rmdir,
	.rename = bad_rename,
	.chmod = bad_chmod,
	.chown = bad_chown,
	.utimens = bad_utimens,
	.statfs = bad_statfs,
};

int main(int argc, char **argv)
{
	char *args[] = {argv[0], "-f", "-o", "allow_other,fsname=baddisk", argv[3], NULL};

	if (argc != 4) {
		fprintf(stderr, "usage: baddisk FOLDER CONTROL MOUNTPOINT\n");
		return 2;
	}
	control = argv[2];
	root = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0) {
		perror(argv[1]);
		return 1;
	}
	return fuse_main(5, args, &ops, NULL);
}
