/* SPDX-License-Identifier: Apache-2.0 */
/* A whole connection to the real server: a stream of requests after a handshake that was chosen, or
 * any bytes at all. Requests get a number for a cookie, so that each reply can be held against what
 * was asked; every byte of data is compared, and the connection must end when its client does.
 *
 * Input: how (a byte of the bits below), which blocks are in the store, which can't be had, bytes.
 */
#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "base/log.h"
#include "fuzz.h"
#include "nbd/protocol.h"
#include "nbd/server.h"

#define BLOCK  (64U << 10)
#define BLOCKS 4
#define SIZE   (BLOCKS * BLOCK)
#define ASKED  512 /* requests of one input */

enum how { RAW = 1, STRUCTURED = 2, CONTEXT = 4, BY_NAME = 8 };

static struct nbd_export export;
static uint8_t image[SIZE];
static int image_fd;
static _Atomic uint8_t stored, broken; /* a bit a block */
static atomic_int refs;
static struct sockaddr_un where = {.sun_family = AF_UNIX};

/* ---- the export ---- */

static uint32_t resident(struct nbd_export *e, uint64_t off, uint32_t len, int *fd,
			 uint64_t *fd_off)
{
	uint64_t at = off;

	(void)e;
	must(len && off < SIZE && len <= SIZE - off);
	while (at < off + len && (atomic_load(&stored) >> at / BLOCK & 1))
		at = (at / BLOCK + 1) * BLOCK;
	*fd = image_fd;
	*fd_off = off;
	return (uint32_t)((at < off + len ? at : off + len) - off);
}

struct late {
	struct loop_post post; /* first */
	struct nbd_read *r;
};

static void late_read(struct loop_post *p)
{
	struct nbd_read *r = ((struct late *)p)->r;
	int rc = 0;

	for (uint64_t b = r->off / BLOCK; b * BLOCK < r->off + r->len; b++)
		if (atomic_load(&broken) >> b & 1)
			rc = -EIO;
	if (!rc)
		memcpy(r->dst, image + r->off, r->len);
	free(p);
	r->done(r, rc);
}

static void miss(struct nbd_export *e, struct nbd_read *r, struct loop *l)
{
	struct late *late = calloc(1, sizeof(*late));

	(void)e;
	must(late && r->off < SIZE && r->len <= SIZE - r->off);
	memset(r->dst, 0xee, r->len); /* all of it must be ours to write */
	late->post.fn = late_read;
	late->r = r;
	loop_post(l, &late->post);
}

static int status(struct nbd_export *e, uint64_t off, uint32_t len, struct nbd_extent *out, int max)
{
	int n = 0;

	(void)e;
	must(len && off < SIZE && len <= SIZE - off && max >= 1);
	for (; len && n < max; n++) {
		uint32_t here = (uint32_t)(BLOCK - off % BLOCK);

		out[n].len = here < len ? here : len;
		out[n].flags = off / BLOCK % 3 ? 0 : NBD_STATE_HOLE | NBD_STATE_ZERO;
		off += out[n].len;
		len -= out[n].len;
	}
	return n;
}

static void advice(struct nbd_export *e, uint64_t off, uint32_t len)
{
	(void)e;
	must(off <= SIZE && len <= SIZE - off);
}

static struct nbd_export *ref(struct nbd_export *e)
{
	atomic_fetch_add(&refs, 1);
	return e;
}

static void unref(struct nbd_export *e)
{
	(void)e;
	must(atomic_fetch_sub(&refs, 1) > 0);
}

static const struct nbd_export_ops ops = {.resident = resident,
					  .read = miss,
					  .block_status = status,
					  .cache = advice,
					  .served = advice,
					  .ref = ref,
					  .unref = unref};

static struct nbd_export *find(struct nbd_directory *d, const char *name)
{
	(void)d;
	return !*name || strcmp(name, export.name) == 0 ? ref(&export) : NULL;
}

static void list(struct nbd_directory *d, bool (*fn)(void *, const char *, const char *), void *arg)
{
	(void)d;
	fn(arg, export.name, export.description);
}

static struct nbd_directory directory = {find, list};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct nbd_server_config cfg = {.threads = 1,
					.loop_kind = LOOP_EPOLL,
					.max_connections = 64,
					.miss_memory = 2 * BLOCK,
					.directory = &directory};
	struct nbd_server *server;
	struct err err;
	char path[64];

	(void)argc;
	(void)argv;
	log_set_level(LOG_ERROR_);
	for (uint32_t i = 0, x = 7; i < SIZE; i++, x = x * 1664525 + 1013904223)
		image[i] = (uint8_t)(x >> 24);
	image_fd = file_of(image, sizeof(image), path);
	export.ops = &ops;
	export.size = SIZE;
	nbd_budget_share_init(&export.budget);
	strcpy(export.name, "one");
	/* an abstract name: nothing is left behind */
	snprintf(where.sun_path + 1, sizeof(where.sun_path) - 1, "cairn-fuzz-%d", getpid());
	cfg.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(cfg.listen_fd >= 0);
	must(bind(cfg.listen_fd, (struct sockaddr *)&where, sizeof(where)) == 0);
	must(listen(cfg.listen_fd, 64) == 0);
	must(nbd_server_start(&cfg, &server, &err) == 0);
	return 0;
}

/* ---- the client ---- */

struct asked {
	uint16_t type, flags;
	uint64_t off;
	uint32_t len;
	bool answered;
};

static struct client {
	int fd;
	bool structured, context;
	struct asked asked[ASKED];
	uint32_t n;
	bool whole; /* every request must be answered */
	bool ended; /* the server closed */
} me;

static void hear(void *buf, size_t len)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = recv(me.fd, (char *)buf + got, len - got, 0);

		if (n < 0 && errno == EINTR) /* the fuzzer's own clock */
			continue;
		must(n >= 0 || errno == ECONNRESET); /* not EAGAIN: it hangs */
		if (n <= 0) {
			must(got == 0 || !me.whole); /* a reply is whole */
			me.ended = true;
			return;
		}
		got += (size_t)n;
	}
}

static void tell(const void *data, size_t len)
{
	ssize_t n = send(me.fd, data, len, MSG_NOSIGNAL);

	must(n == (ssize_t)len || errno == EPIPE || errno == ECONNRESET);
}

static void option(uint32_t code, const void *data, uint32_t len)
{
	struct nbd_wire_option o = {htobe64(NBD_OPTION_MAGIC), htobe32(code), htobe32(len)};

	tell(&o, sizeof(o));
	tell(data, len);
}

/* Replies to options up to the ACK of the last one. */
static void hear_ack(uint32_t code)
{
	struct nbd_wire_option_reply r;
	uint8_t room[512];

	do {
		hear(&r, sizeof(r));
		must(!me.ended && be64toh(r.magic) == NBD_OPTREPLY_MAGIC);
		must(be32toh(r.option) == code && be32toh(r.len) <= sizeof(room));
		hear(room, be32toh(r.len));
		must(!(be32toh(r.type) & 1U << 31));
	} while (be32toh(r.type) != NBD_REP_ACK);
}

static void shake_hands(unsigned how)
{
	static const char context[] = "\0\0\0\3one\0\0\0\1\0\0\0\017base:allocation";
	uint32_t flags = htobe32(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	struct nbd_wire_greeting g;
	uint8_t reply[10];

	hear(&g, sizeof(g));
	must(be64toh(g.magic) == NBD_MAGIC);
	tell(&flags, sizeof(flags));
	me.structured = how & (STRUCTURED | CONTEXT);
	me.context = how & CONTEXT;
	if (me.structured) {
		option(NBD_OPT_STRUCTURED_REPLY, "", 0);
		hear_ack(NBD_OPT_STRUCTURED_REPLY);
	}
	if (me.context) {
		option(NBD_OPT_SET_META_CONTEXT, context, sizeof(context) - 1);
		hear_ack(NBD_OPT_SET_META_CONTEXT);
	}
	if (how & BY_NAME) {
		option(NBD_OPT_EXPORT_NAME, "one", 3);
		hear(reply, sizeof(reply));
	} else {
		option(NBD_OPT_GO, "\0\0\0\3one\0\0", 9);
		hear_ack(NBD_OPT_GO);
	}
	must(!me.ended);
}

/* Number the requests of a stream in place; what follows one that is none is not looked at. */
static void number_requests(uint8_t *data, size_t len)
{
	me.n = 0;
	me.whole = true;
	while (len >= sizeof(struct nbd_wire_request) && me.n < ASKED) {
		struct nbd_wire_request r;
		struct asked *a = &me.asked[me.n];
		size_t payload;

		memcpy(&r, data, sizeof(r));
		if (be32toh(r.magic) != NBD_REQUEST_MAGIC)
			break;
		*a = (struct asked){be16toh(r.type), be16toh(r.flags), be64toh(r.off),
				    be32toh(r.len), false};
		if (a->type == NBD_CMD_DISC)
			return;
		r.cookie = me.n++;
		memcpy(data, &r, sizeof(r));
		payload = a->type == NBD_CMD_WRITE ? a->len : 0;
		if (payload > len - sizeof(r)) { /* it ends inside of it */
			me.whole = false;
			return;
		}
		data += sizeof(r) + payload;
		len -= sizeof(r) + payload;
	}
	/* lost framing ends a connection at once; part of a request at the end is no error */
	me.whole = len < sizeof(struct nbd_wire_request) && me.n < ASKED;
}

static struct asked *the_asked(uint64_t cookie)
{
	must(cookie < me.n && !me.asked[cookie].answered);
	return &me.asked[cookie];
}

static bool can_be_had(const struct asked *a)
{
	for (uint64_t b = a->off / BLOCK; b * BLOCK < a->off + a->len; b++)
		if (broken >> b & 1)
			return false;
	return true;
}

static void hear_data(const struct asked *a)
{
	static uint8_t got[SIZE];

	must(a->type == NBD_CMD_READ && a->off <= SIZE && a->len <= SIZE - a->off);
	hear(got, a->len);
	must(me.ended ? !me.whole : memcmp(got, image + a->off, a->len) == 0);
}

static void failed(const struct asked *a, uint32_t error)
{
	bool lawful = a->type == NBD_CMD_READ && !a->flags && a->len && a->off <= SIZE &&
		      a->len <= SIZE - a->off;

	must(error == NBD_EPERM || error == NBD_EINVAL || error == NBD_EOVERFLOW ||
	     (error == NBD_EIO && !can_be_had(a)));
	must(!lawful || error == NBD_EIO);
}

static void hear_simple(void)
{
	struct nbd_wire_simple_reply r;
	struct asked *a;

	hear((char *)&r + 4, sizeof(r) - 4);
	if (me.ended)
		return;
	a = the_asked(r.cookie);
	must(a->type != NBD_CMD_BLOCK_STATUS || r.error);
	a->answered = true;
	if (r.error)
		failed(a, be32toh(r.error));
	else if (a->type == NBD_CMD_READ)
		hear_data(a);
}

static void hear_status(const struct asked *a, uint32_t len)
{
	uint64_t sum = 0;
	uint32_t v[2];

	must(a->type == NBD_CMD_BLOCK_STATUS && me.context && len >= 12 && len % 8 == 4);
	hear(v, 4);
	for (len -= 4; len && !me.ended; len -= 8) {
		hear(v, sizeof(v));
		must(me.ended || v[0]);
		sum += be32toh(v[0]);
	}
	must(me.ended || sum <= a->len);
}

static void hear_chunk(void)
{
	struct nbd_wire_chunk r;
	struct asked *a;
	uint8_t room[512];
	uint32_t len;

	hear((char *)&r + 4, sizeof(r) - 4);
	if (me.ended)
		return;
	must(me.structured);
	a = the_asked(r.cookie);
	a->answered = be16toh(r.flags) & NBD_REPLY_FLAG_DONE;
	len = be32toh(r.len);
	switch (be16toh(r.type)) {
	case NBD_REPLY_TYPE_OFFSET_DATA:
		must(len == a->len + 8);
		hear(room, 8);
		must(me.ended || memcmp(room, &(uint64_t){htobe64(a->off)}, 8) == 0);
		hear_data(a);
		break;
	case NBD_REPLY_TYPE_BLOCK_STATUS:
		hear_status(a, len);
		break;
	case NBD_REPLY_TYPE_ERROR:
		must(len >= 6 && len <= sizeof(room));
		hear(room, len);
		failed(a, (uint32_t)room[0] << 24 | room[1] << 16 | room[2] << 8 | room[3]);
		break;
	default:
		must(be16toh(r.type) == NBD_REPLY_TYPE_NONE && len == 0);
		must(a->type != NBD_CMD_READ || !a->len);
	}
}

static void hear_all(void)
{
	for (;;) {
		uint32_t magic;

		hear(&magic, sizeof(magic));
		if (me.ended)
			break;
		if (be32toh(magic) == NBD_SIMPLE_REPLY_MAGIC) {
			hear_simple();
		} else {
			must(be32toh(magic) == NBD_STRUCTURED_REPLY_MAGIC);
			hear_chunk();
		}
	}
	for (uint32_t i = 0; me.whole && i < me.n; i++)
		must(me.asked[i].answered);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	unsigned how = (unsigned)take_number(&in, 1);
	struct timeval patience = {.tv_sec = 20};
	uint8_t *bytes, room[4096];

	atomic_store(&stored, (uint8_t)take_number(&in, 1));
	atomic_store(&broken, (uint8_t)take_number(&in, 1) & ~atomic_load(&stored));
	bytes = malloc(in.left + 1);
	must(bytes);
	if (in.left)
		memcpy(bytes, in.at, in.left);
	me.ended = me.whole = false;
	me.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(me.fd >= 0 && connect(me.fd, (struct sockaddr *)&where, sizeof(where)) == 0);
	must(setsockopt(me.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
	if (!(how & RAW)) {
		shake_hands(how);
		number_requests(bytes, in.left);
	}
	tell(bytes, in.left);
	shutdown(me.fd, SHUT_WR);
	if (how & RAW)
		while (!me.ended)
			hear(room, 1);
	else
		hear_all();
	close(me.fd);
	free(bytes);
	return 0;
}
