// SPDX-License-Identifier: Apache-2.0
/* An export whose bytes are all in the page cache, of one file: for programs that measure the
 * product's NBD server without a store. What a read does that finds them gone is the program's.
 * Include it once a program. */
#ifndef BENCH_RESIDENT_EXPORT_H
#define BENCH_RESIDENT_EXPORT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "nbd/export.h"

static int image_fd;

static inline void die(const char *what)
{
	perror(what);
	exit(1);
}

static inline uint32_t all_resident(struct nbd_export *e, uint64_t off, uint32_t len, int *fd,
				    uint64_t *fd_off)
{
	(void)e;
	*fd = image_fd;
	*fd_off = off;
	return len;
}

static inline void ignore(struct nbd_export *e, uint64_t off, uint32_t len)
{
	(void)e, (void)off, (void)len;
}

static inline struct nbd_export *ref(struct nbd_export *e)
{
	return e;
}

static inline void unref(struct nbd_export *e)
{
	(void)e;
}

/* All but .read */
#define RESIDENT_EXPORT_OPS                                                                        \
	.resident = all_resident, .cache = ignore, .served = ignore, .ref = ref, .unref = unref

/* A listening socket at @path; NULL: at any name, for a server that nobody connects to. */
static inline int listen_at(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	socklen_t len = path ? sizeof(a) : sizeof(a.sun_family); /* any name */
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (path && strlen(path) >= sizeof(a.sun_path))
		die(path);
	if (path) {
		strcpy(a.sun_path, path);
		unlink(path);
	}
	if (bind(fd, (struct sockaddr *)&a, len) || listen(fd, 64))
		die("the socket");
	return fd;
}

#endif
