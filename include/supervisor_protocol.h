/* SPDX-License-Identifier: Apache-2.0 */
/* What the worker asks of the supervisor: one fixed-size record each way over a SOCK_SEQPACKET
 * pair. Descriptors of a reply come with it (SCM_RIGHTS), reply.nfds of them.
 *
 * The worker is not trusted: the supervisor takes names only, makes every path itself, and checks
 * each record with supervisor_request_check() before it looks inside. Both ends are one binary, so
 * the version says that an upgrade kept an old worker, and nothing more.
 */
#ifndef SUPERVISOR_PROTOCOL_H
#define SUPERVISOR_PROTOCOL_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SUPERVISOR_MAGIC   0x43524e53u /* "CRNS" */
#define SUPERVISOR_VERSION 2u

#define SUPERVISOR_NAME_LEN	256 /* of an export, with its NUL */
#define SUPERVISOR_WAY_LEN	32
#define SUPERVISOR_DEVICE_LEN	64
#define SUPERVISOR_TEXT_LEN	640
#define SUPERVISOR_IDENTITY_LEN 80
#define SUPERVISOR_FDS_MAX	64

#define SUPERVISOR_FORCE  1u /* detach: also what is mounted or open */
#define SUPERVISOR_REVIVE 2u /* attach: only a device that stands; its dead connections anew */

enum supervisor_op {
	SUPERVISOR_READY = 1, /* exports of the roster are open and both sockets are served */
	SUPERVISOR_ATTACH = 2,
	SUPERVISOR_DETACH = 3,
	SUPERVISOR_OBSERVER =
		4, /* fds: the maps of observe/loader.h; value: hooks; text: their line */
	SUPERVISOR_WATCH =
		5, /* fds: heat map of name's device; value: slot, shift, cells, generation */
	SUPERVISOR_UNWATCH = 6,	   /* value[0]: generation of the watch */
	SUPERVISOR_READ_AHEAD = 7, /* value[0]: read_ahead_kb of name's device, UINT64_MAX = only
				    * tell; reply.value[0]: as it is now */
};

struct supervisor_request {
	uint32_t magic, version;
	uint32_t id; /* the reply carries it back */
	uint32_t op;
	uint32_t flags;
	uint32_t queues; /* attach: connections, 0 = as it sees fit */
	int32_t index;	 /* attach: of the device wanted, -1 = any */
	uint32_t reserved;
	uint64_t value[4]; /* attach: [0] length of the device in bytes */
	char name[SUPERVISOR_NAME_LEN];
	char way[SUPERVISOR_WAY_LEN];		/* attach: "auto" or a way's name */
	char identity[SUPERVISOR_IDENTITY_LEN]; /* attach: of the image, "sha256:.." */
};

struct supervisor_reply {
	uint32_t magic, version;
	uint32_t id;
	int32_t code; /* 0 or a negative errno */
	uint32_t nfds;
	uint64_t value[4];
	char device[SUPERVISOR_DEVICE_LEN];
	char way[SUPERVISOR_WAY_LEN];
	char text[SUPERVISOR_TEXT_LEN]; /* why not, when code < 0; attach by "auto": why not by the
					 * first way, "" when it was */
};

static inline int supervisor_text_ends(const char *s, size_t room)
{
	return memchr(s, 0, room) != NULL;
}

/* @len bytes at @msg are a whole request of this version with bounded strings, a known op and known
 * flags: 0, or -EBADMSG, -EPROTONOSUPPORT (another version). */
static inline int supervisor_request_check(const struct supervisor_request *m, size_t len)
{
	if (len != sizeof(*m) || m->magic != SUPERVISOR_MAGIC)
		return -EBADMSG;
	if (m->version != SUPERVISOR_VERSION)
		return -EPROTONOSUPPORT;
	if (m->op < SUPERVISOR_READY || m->op > SUPERVISOR_READ_AHEAD ||
	    (m->flags & ~(SUPERVISOR_FORCE | SUPERVISOR_REVIVE)))
		return -EBADMSG;
	if (!supervisor_text_ends(m->name, sizeof(m->name)) ||
	    !supervisor_text_ends(m->way, sizeof(m->way)) ||
	    !supervisor_text_ends(m->identity, sizeof(m->identity)))
		return -EBADMSG;
	if (m->queues > SUPERVISOR_FDS_MAX || m->index < -1)
		return -EBADMSG;
	if (m->op != SUPERVISOR_READY && m->op != SUPERVISOR_OBSERVER && !m->name[0])
		return -EBADMSG;
	return 0;
}

static inline int supervisor_reply_check(const struct supervisor_reply *m, size_t len)
{
	if (len != sizeof(*m) || m->magic != SUPERVISOR_MAGIC || m->code > 0 ||
	    m->nfds > SUPERVISOR_FDS_MAX)
		return -EBADMSG;
	if (m->version != SUPERVISOR_VERSION)
		return -EPROTONOSUPPORT;
	if (!supervisor_text_ends(m->device, sizeof(m->device)) ||
	    !supervisor_text_ends(m->way, sizeof(m->way)) ||
	    !supervisor_text_ends(m->text, sizeof(m->text)))
		return -EBADMSG;
	return 0;
}

#endif
