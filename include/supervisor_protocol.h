/* SPDX-License-Identifier: Apache-2.0 */
/* What the worker asks of the supervisor: one fixed-size record each way over a SOCK_SEQPACKET
 * connection. Descriptors come with their record (SCM_RIGHTS), nfds of them.
 *
 * The worker is not trusted: the supervisor takes names only, makes every path itself, and checks
 * each record with supervisor_request_check() before it looks inside. Both ends come
 * from one binary, except while a supervisor lives through the upgrade or the death of another: it
 * takes the version before, too.
 */
#ifndef SUPERVISOR_PROTOCOL_H
#define SUPERVISOR_PROTOCOL_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SUPERVISOR_MAGIC   0x43524e53u /* "CRNS" */
#define SUPERVISOR_VERSION 3u
#define SUPERVISOR_OLDEST  3u /* 2 had no hand-over */

#define SUPERVISOR_NAME_LEN	256 /* of an export, with its NUL */
#define SUPERVISOR_WAY_LEN	32
#define SUPERVISOR_DEVICE_LEN	64
#define SUPERVISOR_TEXT_LEN	640
#define SUPERVISOR_IDENTITY_LEN 80
#define SUPERVISOR_LINKS_MAX	64
#define SUPERVISOR_FDS_MAX	(2 * SUPERVISOR_LINKS_MAX)

#define SUPERVISOR_FORCE      1u  /* detach: also what is mounted or open */
#define SUPERVISOR_WAIT	      4u  /* attach: a read may take as long as its source is away */
#define SUPERVISOR_REVIVE     2u  /* attach: only a device that stands; its dead connections anew */
#define SUPERVISOR_PROMOTABLE 16u /* attach by "auto": rather a device that can be promoted */
#define SUPERVISOR_RELEASE    8u  /* with REVIVE: a promoted device reads from the worker again */

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
	/* Answered when no other worker holds the store and the exports any more: a successor that
	 * was started beside its predecessor has everything else ready by then. reply.value: when
	 * the worker before was told to let go or ended (CLOCK_MONOTONIC ns), its pid (0 = there
	 * was none), 1 = as planned. */
	SUPERVISOR_BEGIN = 8,
	/* Someone asked for a new supervisor and a new worker of the binary on disk, with the
	 * settings on disk. Code < 0: the new ones would not start, the text says why, and nothing
	 * changed. Else reply.value[0] is the new worker's pid. */
	SUPERVISOR_UPGRADE = 9,
	/* To another supervisor than the one that started this worker: what that one had given it.
	 * HELLO (fds: nbd listener, control listener, roster, crash record), then LINKS for each
	 * device (name; fds as in the reply to an attach). */
	SUPERVISOR_HELLO = 10,
	SUPERVISOR_LINKS = 11,
	/* fds: a complete image's file, open for reading. name's device reads it from now on, and
	 * has no connections. Again is no error. -EINVAL: not a regular file of the device's length
	 * on the store's file system; -ENOTSUP: the device can't. */
	SUPERVISOR_PROMOTE = 12,
};

/* Connections of a device travel as sockets, then their ledgers in the same order: nfds is twice
 * their number (nbd/ledger.h). */
#define SUPERVISOR_REPLY_HANDSHAKE 1u /* their client begins with a handshake */
#define SUPERVISOR_REPLY_INTERIM   2u /* serve these at once; the answer to the request follows */

struct supervisor_request {
	uint32_t magic, version;
	uint32_t id; /* the reply carries it back */
	uint32_t op;
	uint32_t flags;
	uint32_t queues; /* attach: connections, 0 = as it sees fit */
	int32_t index;	 /* attach: of the device wanted, -1 = any */
	uint32_t nfds;
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
	uint32_t flags, reserved;
	uint64_t value[4]; /* attach: [0] connections that are dead: ask again to have them anew;
			    * [1] 1 = promoted */
	char device[SUPERVISOR_DEVICE_LEN];
	char way[SUPERVISOR_WAY_LEN];
	char text[SUPERVISOR_TEXT_LEN]; /* why not, when code < 0; attach by "auto": why not by the
					 * first way, "" when it was */
};

static inline int supervisor_text_ends(const char *s, size_t room)
{
	return memchr(s, 0, room) != NULL;
}

static inline int supervisor_op_has_name(uint32_t op)
{
	switch (op) {
	case SUPERVISOR_READY:
	case SUPERVISOR_OBSERVER:
	case SUPERVISOR_BEGIN:
	case SUPERVISOR_UPGRADE:
	case SUPERVISOR_HELLO:
		return 0;
	}
	return 1;
}

/* @len bytes at @msg are a whole request of this version with bounded strings, a known op and known
 * flags: 0, or -EBADMSG, -EPROTONOSUPPORT (another version). */
static inline int supervisor_request_check(const struct supervisor_request *m, size_t len)
{
	if (len != sizeof(*m) || m->magic != SUPERVISOR_MAGIC)
		return -EBADMSG;
	if (m->version < SUPERVISOR_OLDEST || m->version > SUPERVISOR_VERSION)
		return -EPROTONOSUPPORT;
	if (m->op < SUPERVISOR_READY || m->op > SUPERVISOR_PROMOTE ||
	    (m->flags & ~(SUPERVISOR_FORCE | SUPERVISOR_REVIVE | SUPERVISOR_WAIT |
			  SUPERVISOR_RELEASE | SUPERVISOR_PROMOTABLE)))
		return -EBADMSG;
	if (!supervisor_text_ends(m->name, sizeof(m->name)) ||
	    !supervisor_text_ends(m->way, sizeof(m->way)) ||
	    !supervisor_text_ends(m->identity, sizeof(m->identity)))
		return -EBADMSG;
	if (m->queues > SUPERVISOR_LINKS_MAX || m->index < -1 || m->nfds > SUPERVISOR_FDS_MAX)
		return -EBADMSG;
	if (supervisor_op_has_name(m->op) && !m->name[0])
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
