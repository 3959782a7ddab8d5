/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "image/build.h"

#define FS_BLOCK 4096

/* A chain of hashes over every entry, in an order that no file system decides. */
struct chain {
	uint8_t hash[SHA256_LEN];
};

static void chain_add(struct chain *c, const FTSENT *e)
{
	const struct stat *st = e->fts_statp;
	uint64_t facts[] = {st->st_mode,
			    st->st_uid,
			    st->st_gid,
			    S_ISDIR(st->st_mode) ? 0 : (uint64_t)st->st_size,
			    (uint64_t)st->st_mtime,
			    st->st_rdev,
			    (uint64_t)e->fts_level};
	uint8_t buf[sizeof(c->hash) + sizeof(facts) + SHA256_LEN];

	memcpy(buf, c->hash, sizeof(c->hash));
	memcpy(buf + sizeof(c->hash), facts, sizeof(facts));
	/* The top directory's own name is no part of the image. */
	sha256(e->fts_name, e->fts_level ? e->fts_namelen : 0,
	       buf + sizeof(c->hash) + sizeof(facts));
	sha256(buf, sizeof(buf), c->hash);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static void count(struct listing *l, const FTSENT *e)
{
	const struct stat *st = e->fts_statp;
	uint64_t blocks = 0;

	l->entries++;
	if (S_ISREG(st->st_mode))
		blocks = ((uint64_t)st->st_size + FS_BLOCK - 1) / FS_BLOCK;
	if (S_ISDIR(st->st_mode) || S_ISLNK(st->st_mode))
		blocks = 1;
	/* One block of extents for each 340 that could be needed at worst is far too much: a file
	 * is written in one go. Names take 8 bytes and their length, in half-full blocks. */
	l->blocks += blocks + blocks / 2048;
	if (e->fts_namelen > 0 && l->entries % 64 == 0)
		l->blocks += 4;
	if ((uint64_t)st->st_mtime > l->newest && st->st_mtime > 0)
		l->newest = (uint64_t)st->st_mtime;
}

static int take(struct listing *l, struct chain *c, const FTSENT *e, struct err *err)
{
	switch (e->fts_info) {
	case FTS_DP:
		return 0;
	case FTS_DNR:
	case FTS_ERR:
	case FTS_NS:
		return err_set(err, -e->fts_errno, "can't read %s: %s", e->fts_path,
			       strerror(e->fts_errno));
	case FTS_DC:
		return err_set(err, -ELOOP, "%s contains itself", e->fts_path);
	default:
		count(l, e);
		chain_add(c, e);
		return 0;
	}
}

int listing_read(const char *dir, struct listing *out, struct err *err)
{
	char *paths[] = {(char *)dir, NULL};
	struct listing l = {0};
	struct chain c = {{0}};
	struct stat st;
	FTSENT *e;
	FTS *fts;
	int rc = 0;

	if (stat(dir, &st))
		return err_set(err, -errno, "can't read %s: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "%s is not a directory", dir);
	fts = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
	if (!fts)
		return err_set(err, -errno, "can't read %s: %s", dir, strerror(errno));
	while (!rc && (errno = 0, e = fts_read(fts)))
		rc = take(&l, &c, e, err);
	if (!rc && errno)
		rc = err_set(err, -errno, "can't read %s: %s", dir, strerror(errno));
	fts_close(fts);
	if (rc)
		return rc;
	c.hash[6] = (c.hash[6] & 0x0f) | 0x80; /* RFC 9562: version 8, ours to define */
	c.hash[8] = (c.hash[8] & 0x3f) | 0x80;
	snprintf(l.uuid, sizeof(l.uuid),
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", c.hash[0],
		 c.hash[1], c.hash[2], c.hash[3], c.hash[4], c.hash[5], c.hash[6], c.hash[7],
		 c.hash[8], c.hash[9], c.hash[10], c.hash[11], c.hash[12], c.hash[13], c.hash[14],
		 c.hash[15]);
	l.root.mode = st.st_mode;
	l.root.uid = st.st_uid;
	l.root.gid = st.st_gid;
	l.root.mtime = st.st_mtime > 0 ? (uint64_t)st.st_mtime : 0;
	*out = l;
	return 0;
}
