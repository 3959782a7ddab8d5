/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/listen.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

int folder_make(const char *path, struct err *err)
{
	char part[PATH_MAX];
	size_t len = strlen(path);

	if (len >= sizeof(part))
		return err_set(err, -ENAMETOOLONG, "%.100s..: path too long", path);
	memcpy(part, path, len + 1);
	for (size_t i = 1; i <= len; i++) {
		if (part[i] != '/' && part[i])
			continue;
		part[i] = 0;
		if (mkdir(part, 0755) && errno != EEXIST)
			return err_set(err, -errno, "can't make the folder %s: %s", part,
				       strerror(errno));
		part[i] = path[i];
	}
	return 0;
}

/* A daemon that was killed answers for some milliseconds more, until all its threads are gone; so a
 * listener counts as living only when it still answers after a second. */
#define DYING_TRIES  50
#define DYING_NAP_US 20000

static int connect_once(const struct sockaddr_un *a, int *rc)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	*rc = connect(fd, (const struct sockaddr *)a, sizeof(*a)) ? -errno : 0;
	close(fd);
	return 0;
}

static int is_living(const struct sockaddr_un *a, int *rc)
{
	for (int i = 0; i < DYING_TRIES; i++) {
		int error = connect_once(a, rc);

		if (error)
			return error;
		if (*rc && *rc != -EAGAIN) /* EAGAIN: it lives, and its backlog is full */
			return 0;
		usleep(DYING_NAP_US);
	}
	return 0;
}

/* 0 when the way is free now. */
static int stale_remove(const char *path, const struct sockaddr_un *a, const char *key,
			struct err *err)
{
	struct stat st;
	int rc = 0, error;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, -EEXIST, "%s is there and is no socket; move it away or set %s",
			       path, key);
	error = is_living(a, &rc);
	if (error)
		return err_set(err, error, "socket: %s", strerror(-error));
	if (rc == 0 || rc == -EAGAIN)
		return err_set(err, -EADDRINUSE, "another daemon listens on %s; stop it or set %s",
			       path, key);
	if (rc != -ECONNREFUSED && rc != -ENOENT)
		return err_set(err, rc, "%s: %s", path, strerror(-rc));
	log_info("supervisor", "replacing the socket of a daemon that is gone", "path=%s", path);
	unlink(path);
	return 0;
}

int listen_unix(const char *path, const char *key, struct err *err)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char folder[PATH_MAX];
	mode_t mask;
	int fd, rc;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: %s is longer than a socket's path may be",
			       key, path);
	strcpy(a.sun_path, path);
	snprintf(folder, sizeof(folder), "%s", path);
	*strrchr(folder, '/') = 0;
	rc = folder[0] ? folder_make(folder, err) : 0;
	if (!rc)
		rc = stale_remove(path, &a, key, err);
	if (rc)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, "socket: %s", strerror(errno));
	mask = umask(0177);
	rc = bind(fd, (struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
	umask(mask);
	if (!rc && listen(fd, 1024))
		rc = -errno;
	if (rc) {
		close(fd);
		return err_set(err, rc, "can't listen on %s: %s", path, strerror(-rc));
	}
	return fd;
}

int listen_share(const char *path, const char *group)
{
	struct group *g = getgrnam(group);

	if (!g)
		return -ENOENT;
	if (chown(path, (uid_t)-1, g->gr_gid) || chmod(path, 0660))
		return -errno;
	return 0;
}
