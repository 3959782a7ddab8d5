/* SPDX-License-Identifier: Apache-2.0 */
/* LD_PRELOAD: a worker that crashes.
 *
 * CRASH_CALL=preadv2|sendfile|pwrite and CRASH_AT=OFFSET: that call on a regular file, for bytes that
 * include OFFSET, touches memory that is not there. CRASH_WHEN=FILE: only while FILE exists.
 * CRASH_HOW=abort: aborts instead. CRASH_START=1: the worker crashes before it serves.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define BAD_ADDRESS 0xdead000

static const char *env(const char *name)
{
	const char *s = getenv(name);

	return s ? s : "";
}

static void crash(void)
{
	if (env("CRASH_WHEN")[0] && access(env("CRASH_WHEN"), F_OK))
		return;
	if (strcmp(env("CRASH_HOW"), "abort") == 0)
		abort();
	*(volatile char *)(uintptr_t)BAD_ADDRESS = 1;
}

static void crash_if(const char *call, int fd, off_t off, size_t len)
{
	const char *at = env("CRASH_AT");
	struct stat st;
	off_t bad;

	if (!at[0] || strcmp(env("CRASH_CALL"), call) != 0)
		return;
	bad = (off_t)strtoull(at, NULL, 0);
	if (off <= bad && bad < off + (off_t)len && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		crash();
}

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	static ssize_t (*real)(int, const struct iovec *, int, off_t, int);

	crash_if("preadv2", fd, off, n ? iov[0].iov_len : 0);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "preadv2");
	return real(fd, iov, n, off, flags);
}

ssize_t sendfile(int out, int in, off_t *off, size_t len)
{
	static ssize_t (*real)(int, int, off_t *, size_t);

	crash_if("sendfile", in, off ? *off : 0, len);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "sendfile");
	return real(out, in, off, len);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	static ssize_t (*real)(int, const void *, size_t, off_t);

	crash_if("pwrite", fd, off, len);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pwrite");
	return real(fd, buf, len, off);
}

__attribute__((constructor)) static void crash_at_start(void)
{
	if (env("CRASH_START")[0] && getenv("CAIRN_WORKER_RESTARTS"))
		crash();
}
