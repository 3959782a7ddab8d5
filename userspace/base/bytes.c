/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int bytes_parse(const char *s, uint64_t *out)
{
	static const char units[] = "KMGTP";
	double mult = 1, v;
	char *end;

	if (s[0] < '0' || s[0] > '9')
		return -EINVAL;
	errno = 0;
	v = strtod(s, &end);
	if (errno)
		return -ERANGE;
	while (*end == ' ')
		end++;
	if (*end) {
		const char *u = strchr(units, *end & ~0x20);

		if (!u)
			return -EINVAL;
		mult = ldexp(1, 10 * (int)(u - units + 1));
		end++;
		if (strcmp(end, "iB") != 0 && *end)
			return -EINVAL;
	}
	v *= mult;
	if (v >= 9.2e18)
		return -ERANGE;
	*out = (uint64_t)v;
	return 0;
}

const char *bytes_format(uint64_t n, char *buf, size_t len)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double v = (double)n;
	int u = 0;

	while (v >= 1024 && u < 5) {
		v /= 1024;
		u++;
	}
	snprintf(buf, len, u ? "%.1f %s" : "%.0f %s", v, units[u]);
	return buf;
}

void hex_encode(const void *src, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = src;

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = digits[p[i] >> 4];
		out[2 * i + 1] = digits[p[i] & 15];
	}
	out[2 * len] = 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int hex_decode(const char *s, void *out, size_t len)
{
	uint8_t *p = out;

	if (strlen(s) != 2 * len)
		return -EINVAL;
	for (size_t i = 0; i < 2 * len; i++)
		if (hex_digit(s[i]) < 0)
			return -EINVAL;
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(hex_digit(s[2 * i]) << 4 | hex_digit(s[2 * i + 1]));
	return 0;
}

/* Fetched once: an implicit fetch in each EVP_Digest costs more than hashing 1 KiB. */
static EVP_MD *sha256_md;

static void sha256_fetch(void)
{
	sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (!sha256_md)
		abort(); /* no SHA-256 in OpenSSL: nothing could be verified */
}

static _Thread_local EVP_MD_CTX *sha256_ctx;
static pthread_key_t sha256_key;

static void sha256_ctx_free(void *ctx)
{
	EVP_MD_CTX_free(ctx);
}

static void sha256_init(void)
{
	sha256_fetch();
	pthread_key_create(&sha256_key, sha256_ctx_free);
}

void sha256(const void *data, size_t len, uint8_t out[SHA256_LEN])
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, sha256_init);
	if (!sha256_ctx) {
		sha256_ctx = EVP_MD_CTX_new();
		if (!sha256_ctx)
			abort();
		pthread_setspecific(sha256_key, sha256_ctx);
	}
	if (!EVP_DigestInit_ex2(sha256_ctx, sha256_md, NULL) ||
	    !EVP_DigestUpdate(sha256_ctx, data, len) || !EVP_DigestFinal_ex(sha256_ctx, out, NULL))
		abort();
}

bool bytes_are_zero(const void *p, size_t len)
{
	const uint8_t *b = p;

	return len == 0 || (b[0] == 0 && memcmp(b, b + 1, len - 1) == 0);
}

int pread_all(int fd, void *buf, size_t len, uint64_t off)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		p += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

int pwrite_all(int fd, const void *buf, size_t len, uint64_t off)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

int file_read_all(const char *path, size_t limit, char **out, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
	size_t have = 0;
	char *buf;

	if (fd < 0)
		return -errno;
	buf = malloc(limit + 2);
	if (!buf) {
		close(fd);
		return -ENOMEM;
	}
	while (have <= limit) {
		ssize_t n = read(fd, buf + have, limit + 1 - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = -errno;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	close(fd);
	if (!rc && have > limit)
		rc = -EFBIG;
	if (rc) {
		free(buf);
		return rc;
	}
	buf[have] = 0;
	*out = buf;
	*len = have;
	return 0;
}
