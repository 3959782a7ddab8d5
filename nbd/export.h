/* SPDX-License-Identifier: Apache-2.0 */
/* What the NBD server needs of an export; nbd/ knows exports and reads, and nothing of Azure. */
#ifndef NBD_EXPORT_H
#define NBD_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "crash/doing.h"
#include "nbd/budget.h"

#define NBD_NAME_MAX	255
#define NBD_PAYLOAD_MAX (32U << 20) /* largest read answered; announced as maximum block size */

struct nbd_export;

/* One read that could not be answered at once, in flight from ops->read until done(). */
struct nbd_read {
	uint64_t off;
	uint32_t len;
	/* The begin of the reply has left, perhaps from a worker before: an error would end the
	 * connection. */
	bool is_begun;
	uint8_t *dst; /* the server's, @len bytes, undefined after an error */
	/* It will be long: the server may take @dst away. NULL where it does not. On @l's thread,
	 * after ops->read and before done(), which then says -EAGAIN or why it ends. */
	void (*stalled)(struct nbd_read *r);
	/* rc: 0, or a negative errno; -EAGAIN: not yet, read again. Called on loop @l's thread (the
	 * one given to ops->read), never from inside ops->read. */
	void (*done)(struct nbd_read *r, int rc);
};

struct nbd_extent { /* NBD's own "extent": a range in a block-status reply */
	uint32_t len;
	uint32_t flags; /* NBD_STATE_HOLE | NBD_STATE_ZERO */
};

struct nbd_export_ops {
	/* How many bytes from @off on (at most @len) are verified and in the store now: 0 if the
	 * first is not. Sets the descriptor and offset they can be read or sent from. What it says
	 * stands until the calling data thread next returns to its loop. Wait-free. */
	uint32_t (*resident)(struct nbd_export *e, uint64_t off, uint32_t len, int *fd,
			     uint64_t *fd_off);

	/* Bring [off, off + len) into r->dst from wherever it is. Any length up to NBD_PAYLOAD_MAX,
	 * within the export. */
	void (*read)(struct nbd_export *e, struct nbd_read *r, struct loop *l);

	/* Block status from @off, at most @len bytes, at most @max runs; returns how many (>= 1).
	 * Answers from what is known without asking an origin. */
	int (*block_status)(struct nbd_export *e, uint64_t off, uint32_t len,
			    struct nbd_extent *out, int max);

	/* Advice to bring a range in; returns at once. */
	void (*cache)(struct nbd_export *e, uint64_t off, uint32_t len);

	/* One read was answered from resident blocks. Called on data threads. */
	void (*served)(struct nbd_export *e, uint64_t off, uint32_t len);

	/* A connection to it begins to read (+1) or ended (-1); a link's client is a device. Called
	 * on data threads: do not wait. May be NULL. */
	void (*readers)(struct nbd_export *e, bool is_link, int change);

	struct nbd_export *(*ref)(struct nbd_export *e);
	void (*unref)(struct nbd_export *e);
};

struct nbd_export { /* embedded in its owner */
	const struct nbd_export_ops *ops;
	char name[NBD_NAME_MAX + 1];
	char description[256];		/* shown by LIST and NBD_INFO_DESCRIPTION; no secrets */
	uint64_t size;			/* of the device: a multiple of 4,096 */
	_Atomic uint32_t connections;	/* the server's count of open connections */
	struct crash_subject subject;	/* by its owner, when it is made */
	struct nbd_budget_share budget; /* the server's; its owner calls nbd_budget_share_init() */
	/* By the owner, at any time: hits are rare, and trying to read what is not in the page
	 * cache would begin to bring it there, so it is asked first. */
	_Atomic bool looks_first;
	_Atomic bool closing; /* set by the owner: the server drops the export's connections */
};

/* The directory of exports. Thread-safe; called at handshake only. */
struct nbd_directory {
	/* A referenced export, or NULL. "" means the only export there is, or none. */
	struct nbd_export *(*find)(struct nbd_directory *d, const char *name);
	/* Calls fn for each name; stops when it returns false. */
	void (*list)(struct nbd_directory *d,
		     bool (*fn)(void *arg, const char *name, const char *description), void *arg);
};

#endif
