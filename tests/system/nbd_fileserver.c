/* SPDX-License-Identifier: Apache-2.0 */
/* Serves one file with the product's NBD server and nothing else of it: every byte counts as
 * resident. For protocol tests and for figures beside other servers.
 *
 *	nbd_fileserver SOCKET FILE [THREADS [epoll|uring]]
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "nbd/protocol.h"
#include "nbd/server.h"

struct file_export {
	struct nbd_export nbd;
	int fd;
};

struct file_read {
	struct loop_read read;
	struct nbd_read *r;
};

static struct file_export file_export;

static uint32_t file_resident(struct nbd_export *e, uint64_t off, uint32_t len, int *fd,
			      uint64_t *fd_off)
{
	(void)e;
	*fd = file_export.fd;
	*fd_off = off;
	return len;
}

static void file_read_done(struct loop_read *lr, int res)
{
	struct file_read *f = (struct file_read *)lr;
	struct nbd_read *r = f->r;
	int rc = res < 0 ? res : (uint32_t)res < r->len ? -EIO : 0;

	free(f);
	r->done(r, rc);
}

static void file_read(struct nbd_export *e, struct nbd_read *r, struct loop *l)
{
	struct file_read *f = calloc(1, sizeof(*f));

	(void)e;
	if (!f)
		abort();
	f->r = r;
	f->read = (struct loop_read){
		.done = file_read_done,
		.buf = r->dst,
		.off = r->off,
		.len = r->len,
		.fd = file_export.fd,
	};
	loop_pread(l, &f->read);
}

static int file_block_status(struct nbd_export *e, uint64_t off, uint32_t len,
			     struct nbd_extent *out, int max)
{
	int n = 0;

	while (len && n < max) {
		off_t data = lseek(file_export.fd, (off_t)off, SEEK_DATA);
		bool hole = data < 0 || (uint64_t)data > off;
		off_t end = hole ? data : lseek(file_export.fd, (off_t)off, SEEK_HOLE);
		uint64_t run = (end < 0 ? e->size : (uint64_t)end) - off;

		if (run > len)
			run = len;
		out[n++] = (struct nbd_extent){(uint32_t)run,
					       hole ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0};
		off += run;
		len -= (uint32_t)run;
	}
	return n;
}

static void file_ignore(struct nbd_export *e, uint64_t off, uint32_t len)
{
	(void)e;
	(void)off;
	(void)len;
}

static struct nbd_export *file_ref(struct nbd_export *e)
{
	return e;
}

static void file_unref(struct nbd_export *e)
{
	(void)e;
}

static const struct nbd_export_ops file_ops = {
	.resident = file_resident,
	.read = file_read,
	.block_status = file_block_status,
	.cache = file_ignore,
	.served = file_ignore,
	.ref = file_ref,
	.unref = file_unref,
};

static struct nbd_export *directory_find(struct nbd_directory *d, const char *name)
{
	(void)d;
	return !*name || strcmp(name, file_export.nbd.name) == 0 ? &file_export.nbd : NULL;
}

static void directory_list(struct nbd_directory *d,
			   bool (*fn)(void *arg, const char *name, const char *description),
			   void *arg)
{
	(void)d;
	fn(arg, file_export.nbd.name, file_export.nbd.description);
}

static int listen_at(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(a.sun_path) || fd < 0)
		return -1;
	strcpy(a.sun_path, path);
	unlink(path);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 128) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int open_export(const char *path)
{
	struct stat st;

	file_export.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (file_export.fd < 0 || fstat(file_export.fd, &st) < 0)
		return -1;
	file_export.nbd.ops = &file_ops;
	nbd_budget_share_init(&file_export.nbd.budget);
	file_export.nbd.size = (uint64_t)st.st_size / 4096 * 4096;
	strcpy(file_export.nbd.name, "file");
	strcpy(file_export.nbd.description, "one file, whole");
	return 0;
}

int main(int argc, char **argv)
{
	struct nbd_directory directory = {directory_find, directory_list};
	struct nbd_server_config cfg = {
		.threads = 1,
		.max_connections = 1024,
		.miss_memory = 48 * MIB,
		.directory = &directory,
	};
	struct nbd_server *server;
	struct err err;
	sigset_t end;
	int sig;

	if (argc < 3 || open_export(argv[2]) < 0 || (cfg.listen_fd = listen_at(argv[1])) < 0) {
		fprintf(stderr, "usage: nbd_fileserver SOCKET FILE [THREADS [epoll|uring]]\n");
		return 2;
	}
	if (argc > 3)
		cfg.threads = (uint32_t)atoi(argv[3]);
	if (argc > 4)
		cfg.loop_kind = strcmp(argv[4], "uring") == 0 ? LOOP_URING : LOOP_EPOLL;
	sigemptyset(&end);
	sigaddset(&end, SIGTERM);
	sigaddset(&end, SIGINT);
	sigprocmask(SIG_BLOCK, &end, NULL);
	if (nbd_server_start(&cfg, &server, &err)) {
		fprintf(stderr, "nbd_fileserver: %s\n", err.text);
		return 1;
	}
	sigwait(&end, &sig);
	nbd_server_stop(server);
	unlink(argv[1]);
	return 0;
}
