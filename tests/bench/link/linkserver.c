// SPDX-License-Identifier: Apache-2.0
/* The product's NBD server over one file in the page cache, to compare kinds of connection.
 *
 *	linkserver unix SOCKET FILE	as programs connect
 *	linkserver link SOCKET FILE	as devices are connected: loopback TCP, with a ledger
 *
 * For a link, who connects to SOCKET is sent the client's end, a descriptor, and then hung up on.
 * No store and no cache map: what is resident is not asked for.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "nbd/ledger.h"
#include "nbd/server.h"
#include "nbd/attach/tcp_pair.h"
#include "tests/bench/resident_export.h"

#define CONNECTIONS_MAX 256

static struct nbd_server *server;

struct cold { /* a read of what left the page cache */
	struct loop_read read;
	struct nbd_read *nbd;
};

static void cold_done(struct loop_read *l, int res)
{
	struct cold *c = (struct cold *)((char *)l - offsetof(struct cold, read));

	c->nbd->done(c->nbd, res == (int)c->nbd->len ? 0 : -EIO);
	free(c);
}

static void read_cold(struct nbd_export *e, struct nbd_read *r, struct loop *l)
{
	struct cold *c = calloc(1, sizeof(*c));

	(void)e;
	if (!c)
		die("calloc");
	c->nbd = r;
	c->read = (struct loop_read){
		.done = cold_done, .buf = r->dst, .off = r->off, .len = r->len, .fd = image_fd};
	loop_pread(l, &c->read);
}

static const struct nbd_export_ops ops = {RESIDENT_EXPORT_OPS, .read = read_cold};

static struct nbd_export export = {.ops = &ops};

static struct nbd_export *find(struct nbd_directory *d, const char *name)
{
	(void)d, (void)name;
	return &export;
}

static void list(struct nbd_directory *d,
		 bool (*fn)(void *arg, const char *name, const char *description), void *arg)
{
	(void)d;
	fn(arg, export.name, export.description);
}

static void send_fd(int to, int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec byte = {"", 1};
	struct msghdr m = {.msg_iov = &byte,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	if (sendmsg(to, &m, MSG_NOSIGNAL) < 0)
		perror("sendmsg");
}

static void link_for(int client)
{
	struct nbd_link link = {.handshake = true};
	struct err err;
	int theirs;

	if (tcp_pairs_open(&theirs, &link.fd, 1, &err) || (link.ledger = ledger_new(&err)) < 0 ||
	    nbd_server_adopt(server, &link, &export))
		die("a link");
	send_fd(client, theirs);
	close(theirs);
}

static void open_image(const char *path)
{
	struct stat st;

	image_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOATIME);
	if (image_fd < 0 || fstat(image_fd, &st))
		die(path);
	export.size = (uint64_t)st.st_size;
}

int main(int argc, char **argv)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct nbd_directory directory = {.find = find, .list = list};
	struct nbd_server_config cfg = {.threads = cpus < 1   ? 1
						   : cpus > 8 ? 8
							      : (uint32_t)cpus,
					.max_connections = CONNECTIONS_MAX,
					.miss_memory = 64 * MIB,
					.directory = &directory};
	bool links = argc == 4 && strcmp(argv[1], "link") == 0;
	struct err err;
	int listener;

	if (argc != 4 || (!links && strcmp(argv[1], "unix") != 0)) {
		fprintf(stderr, "usage: linkserver unix|link SOCKET FILE\n");
		return 2;
	}
	open_image(argv[3]);
	nbd_budget_share_init(&export.budget);
	listener = listen_at(argv[2]);
	cfg.listen_fd = links ? listen_at(NULL) : listener;
	if (nbd_server_start(&cfg, &server, &err)) {
		fprintf(stderr, "linkserver: %s\n", err.text);
		return 1;
	}
	while (!links)
		pause();
	for (;;) {
		int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (client < 0)
			die("accept");
		link_for(client);
		close(client);
	}
}
