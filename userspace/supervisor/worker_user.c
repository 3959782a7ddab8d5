/* SPDX-License-Identifier: Apache-2.0 */
/* The store may have been root's, of a version whose worker was root or of [daemon] user = root,
 * and files may have been put back by hand. Its user is not trusted with more than the store: what
 * lies there is looked at by descriptor, links are not followed, what has a second name or lies on
 * another file system is left alone, and only names that the store itself gives are touched.
 */
#include "supervisor/worker_user.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "supervisor/listen.h"

/* ---- who ---- */

static const struct passwd *passwd_find(const char *name)
{
	char *end;
	unsigned long uid = strtoul(name, &end, 10);

	if (isdigit((unsigned char)name[0]) && !*end && uid <= INT_MAX)
		return getpwuid((uid_t)uid);
	return getpwnam(name);
}

static int user_find(const char *name, struct worker_user *u, struct err *err)
{
	const struct passwd *p = passwd_find(name);

	if (!p)
		return err_set(
			err, -ENOENT,
			"[daemon] user = %s: there is no such user; make it with "
			"`systemd-sysusers` (after an installation) or `useradd --system "
			"--user-group --no-create-home --shell /usr/sbin/nologin %s`, or set "
			"another, `user = root` if need be",
			name, name);
	u->uid = p->pw_uid;
	u->gid = p->pw_gid;
	u->changes = u->uid != 0;
	u->ngroups = WORKER_GROUPS_MAX;
	if (getgrouplist(p->pw_name, p->pw_gid, u->groups, &u->ngroups) < 0)
		return err_set(err, -EINVAL, "[daemon] user = %s: it is in more than %d groups",
			       name, WORKER_GROUPS_MAX);
	return 0;
}

/* ---- the store ---- */

struct giving {
	const struct worker_user *to;
	dev_t dev; /* of the store's folder */
	unsigned given, left;
};

static void give_fd(struct giving *g, int fd, const struct stat *st, const char *name)
{
	if (st->st_uid == g->to->uid)
		return;
	if (fchownat(fd, "", g->to->uid, g->to->gid, AT_EMPTY_PATH) == 0) {
		g->given++;
		return;
	}
	g->left++;
	log_warn("supervisor", "a file of the store can't be given to the worker's user",
		 "name=%.64s why=\"%s\"", name, strerror(errno));
}

/* A descriptor (O_PATH) of the plain file or folder @name in @dir, or -1: anything else is left. */
static int entry_open(const struct giving *g, int dir, const char *name, struct stat *st)
{
	int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	bool good = fd >= 0 && fstat(fd, st) == 0 && st->st_dev == g->dev &&
		    (S_ISDIR(st->st_mode) || (S_ISREG(st->st_mode) && st->st_nlink == 1));

	if (good)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static void give_entry(struct giving *g, int dir, const char *name, unsigned depth);

static void give_all_in(struct giving *g, int path_fd, unsigned depth)
{
	int fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d && fd >= 0)
		close(fd);
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			give_entry(g, dirfd(d), e->d_name, depth);
	if (d)
		closedir(d);
}

/* @depth: how many levels of folders may follow. */
static void give_entry(struct giving *g, int dir, const char *name, unsigned depth)
{
	struct stat st;
	int fd = entry_open(g, dir, name, &st);

	if (fd < 0)
		return;
	if (!S_ISDIR(st.st_mode)) {
		give_fd(g, fd, &st, name);
	} else if (depth) {
		give_all_in(g, fd, depth - 1);
		give_fd(g, fd, &st, name);
	}
	close(fd);
}

static int store_folder(const char *path, struct err *err)
{
	char parent[CONFIG_PATH_MAX];
	int rc, fd;

	strcpy(parent, path);
	*strrchr(parent, '/') = 0;
	rc = parent[0] ? folder_make(parent, err) : 0;
	if (!rc && mkdir(path, 0700) && errno != EEXIST)
		rc = err_set(err, -errno, "[store] path = %s: %s", path, strerror(errno));
	if (rc)
		return rc;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? err_set(err, -errno, "[store] path = %s: %s", path, strerror(errno)) : fd;
}

/* A folder with something else in it is no store: it is not ours to give away. */
static bool is_store_or_empty(int fd)
{
	DIR *d = fdopendir(fcntl(fd, F_DUPFD_CLOEXEC, 3));
	bool empty = true, store = false;
	struct dirent *e;

	while (d && (e = readdir(d))) {
		bool dots = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;

		store = store || strcmp(e->d_name, "version") == 0;
		empty = empty && (dots || strcmp(e->d_name, "lost+found") == 0);
	}
	if (d)
		closedir(d);
	return empty || store;
}

static int store_give(const char *path, const struct worker_user *to, struct err *err)
{
	static const struct {
		const char *name;
		unsigned depth;
	} own[] = {{"lock", 0},
		   {"version", 0},
		   {"clean", 0},
		   {"policy.json", 0},
		   {"policy.json.damaged", 0},
		   {"urls", 1},
		   {"objects", 2}};
	struct giving g = {.to = to};
	struct stat st;
	int fd = store_folder(path, err), rc = 0;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st))
		rc = -errno;
	g.dev = st.st_dev;
	for (size_t i = 0; !rc && i < sizeof(own) / sizeof(own[0]); i++)
		give_entry(&g, fd, own[i].name, own[i].depth);
	if (!rc && st.st_uid != to->uid) {
		if (!is_store_or_empty(fd))
			rc = err_set(
				err, -EINVAL,
				"[store] path = %s is another user's and holds other things than "
				"a store: name an empty folder, or `chown` it",
				path);
		else if (fchmod(fd, 0700) || fchown(fd, to->uid, to->gid))
			rc = err_set(err, -errno, "[store] path = %s: giving it to user %u: %s",
				     path, to->uid, strerror(errno));
	}
	close(fd);
	if (g.given)
		log_info("supervisor", "the store is the worker's user's now",
			 "path=%s uid=%u files=%u left=%u", path, to->uid, g.given, g.left);
	return rc;
}

int worker_user_prepare(const struct config *cfg, struct worker_user *out, struct err *err)
{
	int rc;

	*out = (struct worker_user){.uid = geteuid(), .gid = getegid()};
	if (out->uid != 0)
		return 0;
	rc = user_find(cfg->user, out, err);
	return rc ? rc : store_give(cfg->store_path, out, err);
}

/* ---- becoming it ---- */

/* A worker that stays root keeps what reading any origin file and a store of any owner needs. */
static bool root_keeps(int cap)
{
	static const int kept[] = {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER};

	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		if (kept[i] == cap)
			return true;
	return false;
}

/* The bounding set first, while CAP_SETPCAP is there. EPERM without root: nothing to drop then. */
static void bounding_drop(bool stays_root)
{
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (!stays_root || !root_keeps(cap))
			prctl(PR_CAPBSET_DROP, cap);
}

/* A change from root to another user leaves the inheritable set, and exec() gives root all that is
 * in the bounding set again. */
static int capabilities_clear(bool stays_root)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}, {0}};

	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (stays_root)
		return 0;
	return syscall(SYS_capset, &h, d) ? -errno : 0;
}

int worker_user_become(const struct worker_user *u)
{
	bool stays_root = !u->changes && geteuid() == 0;

	bounding_drop(stays_root);
	if (u->changes && (setgroups((size_t)u->ngroups, u->groups) ||
			   setresgid(u->gid, u->gid, u->gid) || setresuid(u->uid, u->uid, u->uid)))
		return -errno;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return capabilities_clear(stays_root);
}
