/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to make a block device of an NBD export, behind one table.
 *
 * Run by the supervisor: one thread, privileged, which never waits without a bound for the worker
 * that serves the export. An attachment goes none -> ready -> (dead -> ready)* -> none; dead means
 * that the device stands and reads of it fail, because the worker or a helper program died.
 */
#ifndef NBD_ATTACH_H
#define NBD_ATTACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "nbd/export.h"

#define ATTACH_LINKS_MAX    64
#define ATTACH_IDENTITY_LEN 288

struct attach_kernel; /* nbd/attach_kernel.h */

struct attach_env {
	const char *runtime_dir; /* attachments live in runtime_dir/attach/NAME/ */
	const char *nbd_socket;
	unsigned deadline_s; /* the longest that the worker takes to answer a read */
	uint32_t queues;     /* connections of a device whose owner did not say */
	struct attach_kernel *kernel;
};

struct attach_way;

struct attachment {
	const struct attach_way *way;
	char name[NBD_NAME_MAX + 1];
	/* asked for, by those ways that can */
	uint64_t size;			    /* bytes */
	char identity[ATTACH_IDENTITY_LEN]; /* of the image, never "" */
	int wished;			    /* index, -1 = any */
	uint32_t queues;		    /* connections; 0 = as the way sees fit */
	/* given */
	char device[64]; /* "/dev/loop0" */
	int index;	 /* of the device within its kind */
	pid_t pid; /* helper program, 0 = none; the supervisor reaps it and calls attach_died() */
	unsigned generation; /* grows with every revival, and names the mount point */
	uint64_t since_ns;   /* when it last became ready */
	bool dead;
	bool given_up; /* dead, and not brought back before the next worker */
	/* Way "nbd": the supervisor's hold on the worker's ends of the live connections; the last
	 * `fresh` of them were made by the last attach or revive and the worker has to get them. */
	int links[ATTACH_LINKS_MAX];
	int ledgers[ATTACH_LINKS_MAX]; /* of each, or -1 (nbd/ledger.h) */
	uint32_t nlinks, fresh;
	pid_t owner; /* who set the device up, as sysfs shows it */
};

struct attach_way {
	const char *name;
	/* A dead device comes back when the worker asks for it, since the worker has to take its
	 * new connections; otherwise the supervisor revives it. */
	bool worker_revives;
	/* 0, or -ENOTSUP with what is missing here, beside being root, and how to get it. */
	int (*available)(const struct attach_env *env, struct err *err);
	/* A device on export a->name. Leaves nothing behind on error. */
	int (*attach)(const struct attach_env *env, struct attachment *a, struct err *err);
	/* -EBUSY names who has it mounted or open; @force takes it from them (their reads fail). */
	int (*detach)(const struct attach_env *env, struct attachment *a, bool force,
		      struct err *err);
	/* After the worker or the helper died: the same device on the same export again. */
	int (*revive)(const struct attach_env *env, struct attachment *a, struct err *err);
	/* The worker died: let go of what it held. May be NULL. */
	void (*worker_died)(const struct attach_env *env, struct attachment *a);
	/* At start: remove what an earlier supervisor that was killed left. */
	void (*sweep)(const struct attach_env *env);
};

extern const struct attach_way attach_nbdfuse, attach_kernel_nbd;

/* "auto" takes the first way that is available, and *passed_over says why an earlier one was not
 * (code 0: none was). -EINVAL: no such way; -ENOTSUP: can't work here. */
int attach_choose(const struct attach_env *env, const char *name, const struct attach_way **out,
		  struct err *passed_over, struct err *err);
void attach_sweep(const struct attach_env *env);

/* @name as one path component: [A-Za-z0-9_-] and '.' but in front, the rest as %XX. -ENAMETOOLONG.
 */
int attach_dir_name(const char *name, char *out, size_t len);

/* runtime_dir/attach/NAME into @out, made if @make. 0 or a negative errno. */
int attach_dir(const struct attach_env *env, const char *name, bool make, char *out, size_t len,
	       struct err *err);

/* "nbd+unix:///NAME?socket=PATH", both percent-encoded. -ENAMETOOLONG. */
int attach_uri(const char *nbd_socket, const char *name, char *out, size_t len);

#endif
