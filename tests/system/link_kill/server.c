// SPDX-License-Identifier: Apache-2.0
/* The product's NBD server over an image of which any part may be missing at any moment: a read
 * finds all of it, some or nothing resident, so that replies are copied, sent from the file, filled
 * by a miss and fetched again in their middle. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/system/link_kill/link_kill.h"

struct image_read {
	struct loop_read read;
	struct nbd_read *r;
};

static struct rnd chance; /* the only data thread's */

static uint32_t image_resident(struct nbd_export *e, uint64_t off, uint32_t len, int *fd,
			       uint64_t *fd_off)
{
	(void)e;
	*fd = image_fd;
	*fd_off = off;
	switch (rnd_below(&chance, 8)) {
	case 0:
	case 1:
		return 0;
	case 2:
		return rnd_below(&chance, len);
	default:
		return len;
	}
}

static void image_read_done(struct loop_read *lr, int res)
{
	struct image_read *i = (struct image_read *)lr;
	struct nbd_read *r = i->r;

	free(i);
	r->done(r, res == (int)r->len ? 0 : -EIO);
}

static void image_read(struct nbd_export *e, struct nbd_read *r, struct loop *l)
{
	struct image_read *i = calloc(1, sizeof(*i));

	(void)e;
	if (!i)
		abort();
	i->r = r;
	i->read = (struct loop_read){.done = image_read_done,
				     .buf = r->dst,
				     .off = r->off,
				     .len = r->len,
				     .fd = image_fd};
	loop_pread(l, &i->read);
}

static int image_block_status(struct nbd_export *e, uint64_t off, uint32_t len,
			      struct nbd_extent *out, int max)
{
	(void)e;
	(void)off;
	(void)max;
	*out = (struct nbd_extent){len, 0};
	return 1;
}

static void image_ignore(struct nbd_export *e, uint64_t off, uint32_t len)
{
	(void)e;
	(void)off;
	(void)len;
}

static struct nbd_export *image_ref(struct nbd_export *e)
{
	return e;
}

static void image_unref(struct nbd_export *e)
{
	(void)e;
}

static const struct nbd_export_ops image_ops = {
	.resident = image_resident,
	.read = image_read,
	.block_status = image_block_status,
	.cache = image_ignore,
	.served = image_ignore,
	.ref = image_ref,
	.unref = image_unref,
};

static struct nbd_export *find_none(struct nbd_directory *d, const char *name)
{
	(void)d;
	(void)name;
	return NULL;
}

/* An abstract name of the kernel's choice: nobody comes. */
static int listen_for_nobody(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a.sun_family)) || listen(fd, 1))
		die("listen");
	return fd;
}

void server_run(const struct nbd_link *link)
{
	static struct nbd_export export = {.ops = &image_ops, .name = "image", .size = IMAGE_LEN};
	struct nbd_directory directory = {find_none, NULL};
	struct nbd_server_config cfg = {
		.listen_fd = listen_for_nobody(),
		.threads = 1,
		.max_connections = 1,
		.miss_memory = 1 * MIB, /* so that some wait for it */
		.directory = &directory,
	};
	struct nbd_server *server;
	struct err err;

	nbd_budget_share_init(&export.budget);
	chance.s = (uint64_t)getpid() * 0x9e3779b97f4a7c15ULL;
	if (nbd_server_start(&cfg, &server, &err))
		die(err.text);
	if (nbd_server_adopt(server, link, &export))
		_exit(3);
	for (;;)
		pause();
}
