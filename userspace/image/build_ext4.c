/* SPDX-License-Identifier: Apache-2.0 */
/* ext4 by mke2fs -d, made reproducible: a configuration, features, UUID, hash seed and clock of our
 * own, names in the tool's sorted order (it calls scandir), and then the two times that mke2fs
 * copies but a tree does not own: reading a file changes its atime, `cp -a` its ctime.
 *
 * No journal (read-only) and no metadata checksums: the tree over the image covers those blocks,
 * and changing an inode in place would mean changing its checksum.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "image/build.h"

#define EXT4_BLOCK  4096
#define INODE_SIZE  256
#define TRIES	    5
#define SPARE_BYTES (16 * MIB)

#define FEATURES                                                                                   \
	"none,extent,64bit,flex_bg,huge_file,dir_nlink,extra_isize,dir_index,filetype,"            \
	"sparse_super,large_file,ext_attr"

static const char mke2fs_conf[] = "[defaults]\n\tblocksize = 4096\n[fs_types]\n\text4 = {\n\t}\n"
				  "\tcairn = {\n\t}\n";

static int conf_file(struct err *err)
{
	int fd = memfd_create("mke2fs.conf", 0); /* inherited on purpose */

	if (fd < 0)
		return err_set(err, -errno, "can't hold mke2fs's configuration: %s",
			       strerror(errno));
	if (pwrite_all(fd, mke2fs_conf, sizeof(mke2fs_conf) - 1, 0)) {
		close(fd);
		return err_set(err, -EIO, "can't hold mke2fs's configuration");
	}
	return fd;
}

static int make_sparse(const char *path, uint64_t len, struct err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), rc = 0;

	if (fd < 0 || ftruncate(fd, (off_t)len))
		rc = err_set(err, -errno, "can't make %s of %llu bytes: %s", path,
			     (unsigned long long)len, strerror(errno));
	if (fd >= 0)
		close(fd);
	return rc;
}

static int run_mke2fs(const char *dir, const char *path, const struct listing *l, uint64_t inodes,
		      char *said, size_t said_len, struct err *err)
{
	char count[24], extended[160], conf[64], fake[64];
	char *const argv[] = {"mke2fs",
			      "-q",
			      "-F",
			      "-t",
			      "ext4",
			      "-T",
			      "cairn",
			      "-O",
			      FEATURES,
			      "-b",
			      "4096",
			      "-I",
			      "256",
			      "-m",
			      "0",
			      "-N",
			      count,
			      "-U",
			      (char *)l->uuid,
			      "-E",
			      extended,
			      "-d",
			      (char *)dir,
			      (char *)path,
			      NULL};
	char *const env[] = {
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC", conf, fake, NULL};
	int fd = conf_file(err), rc;

	if (fd < 0)
		return fd;
	snprintf(count, sizeof(count), "%llu", (unsigned long long)inodes);
	snprintf(extended, sizeof(extended),
		 "hash_seed=%s,lazy_itable_init=0,nodiscard,root_owner=%u:%u", l->uuid, l->root.uid,
		 l->root.gid);
	snprintf(conf, sizeof(conf), "MKE2FS_CONFIG=/proc/self/fd/%d", fd);
	snprintf(fake, sizeof(fake), "E2FSPROGS_FAKE_TIME=%llu", (unsigned long long)l->newest);
	rc = tool_run(argv, env, "e2fsprogs", said, said_len, err);
	close(fd);
	return rc;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

/* Offsets of struct ext4_inode: i_mode 0, i_uid 2, i_atime 8, i_ctime 12, i_mtime 16, i_gid 24,
 * l_i_uid_high 120, l_i_gid_high 122, i_extra_isize 128, i_ctime_extra 132, i_mtime_extra 136,
 * i_atime_extra 140. */
static void settle_times(uint8_t *inode)
{
	memcpy(inode + 8, inode + 16, 4);
	memcpy(inode + 12, inode + 16, 4);
	memcpy(inode + 132, inode + 136, 4);
	memcpy(inode + 140, inode + 136, 4);
}

/* mke2fs leaves the mode and time of the top directory alone. */
static void settle_root(uint8_t *inode, const struct listing *l)
{
	inode[0] = (uint8_t)l->root.mode;
	inode[1] = (uint8_t)(l->root.mode >> 8);
	put32(inode + 16, (uint32_t)l->root.mtime);
	put32(inode + 136, (uint32_t)(l->root.mtime >> 32) & 3);
}

/* All inodes of group @group: its table is @n inodes at @off. */
static int settle_table(int fd, uint64_t off, uint32_t n, bool first, const struct listing *l)
{
	uint8_t buf[64 * INODE_SIZE];

	for (uint32_t i = 0; i < n; i += 64) {
		uint32_t here = n - i < 64 ? n - i : 64;
		uint64_t at = off + (uint64_t)i * INODE_SIZE;
		int rc = pread_all(fd, buf, here * INODE_SIZE, at);

		if (rc)
			return rc;
		if (bytes_are_zero(buf, here * INODE_SIZE))
			continue; /* keeps holes holes */
		if (first && i == 0)
			settle_root(buf + INODE_SIZE, l); /* inode 2 */
		for (uint32_t k = 0; k < here; k++)
			settle_times(buf + k * INODE_SIZE);
		rc = pwrite_all(fd, buf, here * INODE_SIZE, at);
		if (rc)
			return rc;
	}
	return 0;
}

/* Superblock at 1024: s_inodes_count 0, s_blocks_count_lo 4, s_blocks_per_group 32,
 * s_inodes_per_group 40, s_magic 56, s_inode_size 88, s_desc_size 254, s_blocks_count_hi 336.
 * Group descriptors from block 1: bg_inode_table_lo 8, _hi 40. */
static int settle_inodes(const char *path, const struct listing *l, struct err *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), rc;
	uint8_t sb[1024], desc[64];
	uint64_t blocks, groups;

	if (fd < 0)
		return err_set(err, -errno, "can't open %s: %s", path, strerror(errno));
	rc = pread_all(fd, sb, sizeof(sb), 1024);
	if (!rc && (sb[56] != 0x53 || sb[57] != 0xef || get32(sb + 88) % 65536 != INODE_SIZE ||
		    sb[254] != sizeof(desc)))
		rc = -EBADMSG;
	blocks = rc ? 0 : get32(sb + 4) | (uint64_t)get32(sb + 336) << 32;
	groups = rc ? 0 : (blocks + get32(sb + 32) - 1) / get32(sb + 32);
	for (uint64_t g = 0; g < groups && !rc; g++) {
		rc = pread_all(fd, desc, sizeof(desc), EXT4_BLOCK + g * sizeof(desc));
		if (!rc)
			rc = settle_table(fd,
					  (get32(desc + 8) | (uint64_t)get32(desc + 40) << 32) *
						  EXT4_BLOCK,
					  get32(sb + 40), g == 0, l);
	}
	close(fd);
	return rc ? err_set(err, rc, "can't settle the times in %s: %s", path, strerror(-rc)) : 0;
}

int build_ext4(const char *dir, const char *path, const struct listing *l, struct err *err)
{
	uint64_t inodes = l->entries + 32;
	uint64_t len = l->blocks * EXT4_BLOCK + inodes * INODE_SIZE;
	char said[2048];
	int rc = 0;

	/* Free space is a hole: it costs nothing to send, keep or read. */
	len += len / 50 + SPARE_BYTES;
	for (int i = 0; i < TRIES; i++) {
		len = (len + MIB - 1) & ~(MIB - 1);
		rc = make_sparse(path, len, err);
		if (rc)
			return rc;
		rc = run_mke2fs(dir, path, l, inodes, said, sizeof(said), err);
		/* Extended attributes and long directories can't be foreseen. */
		if (rc != -EIO || (!strstr(said, "allocate") && !strstr(said, "free space")))
			break;
		len += len / 4;
		inodes += inodes / 8;
	}
	return rc ? rc : settle_inodes(path, l, err);
}
