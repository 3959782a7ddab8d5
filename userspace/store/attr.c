/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes: small files that are there whole or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store_impl.h"

static int write_whole(int dir_fd, const char *name, const void *buf, size_t len, bool sync)
{
	char tmp[256];
	int fd, rc;

	snprintf(tmp, sizeof(tmp), ".%s.%d", name, gettid());
	fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	rc = pwrite_all(fd, buf, len, 0);
	/* Without this a power cut may leave the new name with no bytes behind it. */
	if (!rc && sync && fdatasync(fd) < 0)
		rc = -errno;
	close(fd);
	if (!rc && renameat(dir_fd, tmp, dir_fd, name) < 0)
		rc = -errno;
	if (rc)
		unlinkat(dir_fd, tmp, 0);
	return rc;
}

int attr_write(int dir_fd, const char *name, const void *buf, size_t len)
{
	return write_whole(dir_fd, name, buf, len, true);
}

int attr_write_soon(int dir_fd, const char *name, const void *buf, size_t len)
{
	return write_whole(dir_fd, name, buf, len, false);
}

int attr_read(int dir_fd, const char *name, size_t limit, char **buf, size_t *len)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC), rc;
	struct stat st;
	char *p = NULL;

	if (fd < 0)
		return -errno;
	rc = fstat(fd, &st) < 0 ? -errno : 0;
	if (!rc && (uint64_t)st.st_size > limit)
		rc = -EFBIG;
	if (!rc && !(p = malloc((size_t)st.st_size + 1)))
		rc = -ENOMEM;
	if (!rc)
		rc = pread_all(fd, p, (size_t)st.st_size, 0);
	close(fd);
	if (rc) {
		free(p);
		return rc;
	}
	p[st.st_size] = 0;
	*buf = p;
	*len = (size_t)st.st_size;
	return 0;
}

static void url_file(const char *url, char name[2 * SHA256_LEN + 1])
{
	uint8_t sum[SHA256_LEN];

	sha256(url, strlen(url), sum);
	hex_encode(sum, sizeof(sum), name);
}

int store_url_write(struct store *s, const char *url, const void *buf, size_t len)
{
	char name[2 * SHA256_LEN + 1];

	url_file(url, name);
	return attr_write(s->urls_fd, name, buf, len);
}

int store_url_read(struct store *s, const char *url, size_t limit, char **buf, size_t *len)
{
	char name[2 * SHA256_LEN + 1];

	url_file(url, name);
	return attr_read(s->urls_fd, name, limit, buf, len);
}
