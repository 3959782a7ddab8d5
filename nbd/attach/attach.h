/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to make a block device of an NBD export, behind one table.
 *
 * Run by the supervisor: one thread, privileged, which never waits without a bound for the worker
 * that serves the export. An attachment goes none -> ready -> (dead -> ready)* -> none; dead means
 * that the device stands and a connection of it is gone: its helper program died, or the worker or
 * the kernel gave it up. The death of a worker alone leaves an attachment as it is: the supervisor
 * holds the worker's end of each connection and its ledger, and the next worker gets both.
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

struct attach_kernel; /* nbd/attach/kernel.h */
struct attachment;

struct attach_env {
	const char *store_path;	 /* files of a promotion are on its file system */
	const char *runtime_dir; /* attachments live in runtime_dir/attach/NAME/ */
	const char *nbd_socket;
	unsigned deadline_s; /* the longest that the worker takes to answer a read that does not
				wait */
	uint32_t queues;     /* connections of a device whose owner did not say */
	struct attach_kernel *kernel;
	/* The worker that asked for a device gets its fresh connections while it waits for the
	 * answer, since what comes next may need them served. NULL: with the answer. */
	int (*give)(void *asker, struct attachment *a);
	bool (*asker_is_gone)(void *asker); /* waiting for it is no use; may be NULL */
	void *asker;
	const struct attachment *kept; /* while sweeping */
	size_t nkept;
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
	bool wait;			    /* reads may take as long as their source is away */
	/* given */
	char device[64]; /* "/dev/loop0" */
	int index;	 /* of the device within its kind */
	pid_t pid;	 /* helper program, 0 = none; a child, or one of the supervisor before */
	uint64_t pid_started; /* base/process.h */
	unsigned generation;  /* grows with every revival, and names the mount point */
	uint64_t since_ns;    /* when it last became ready */
	bool dead;
	struct attach_file {
		uint64_t dev, ino; /* ino 0: it is not promoted */
	} promoted;		   /* the store's file that it shows, past its export */
	bool given_up;		   /* dead, and not brought back before the next worker */
	/* The supervisor's hold on the worker's ends of the live connections; the worker that runs
	 * has to get the last `fresh` of them yet. */
	int links[ATTACH_LINKS_MAX];
	int ledgers[ATTACH_LINKS_MAX]; /* of each (nbd/ledger.h) */
	uint32_t nlinks, fresh;
	pid_t owner; /* who set the device up, as sysfs shows it */
};

struct attach_way {
	const char *name;
	bool handshake; /* whoever is at the other end of its connections begins with one */
	/* 0, or -ENOTSUP with what is missing here, beside being root, and how to get it. */
	int (*available)(const struct attach_env *env, struct err *err);
	/* A device on export a->name. Leaves nothing behind on error. */
	int (*attach)(const struct attach_env *env, struct attachment *a, struct err *err);
	/* -EBUSY names who has it mounted or open; @force takes it from them (their reads fail). */
	int (*detach)(const struct attach_env *env, struct attachment *a, bool force,
		      struct err *err);
	/* A connection or the helper died: the same device on the same export again. Asked for by
	 * the worker, which has to take the new connections. */
	int (*revive)(const struct attach_env *env, struct attachment *a, struct err *err);
	/* Show @fd, which the worker opened and whose bytes are the export's, instead; the helper
	 * ends. NULL: can't. What @fd is is checked. Taken back by revive(). */
	int (*promote)(const struct attach_env *env, struct attachment *a, int fd, struct err *err);
	/* At start: @a as the supervisor before wrote it down, but without links; what is left of
	 * it goes on. -ENODEV: there is no such device any more. a->dead: its helper has ended. */
	int (*restore)(const struct attach_env *env, struct attachment *a, struct err *err);
	/* At start, after those were restored that can be: remove what else an earlier supervisor
	 * that was killed left. Attachments of env->kept are not touched. */
	void (*sweep)(const struct attach_env *env);
};

extern const struct attach_way attach_nbdfuse, attach_kernel_nbd;

/* "auto" takes the first way that is available, and *passed_over says why an earlier one was not
 * (code 0: none was). -EINVAL: no such way; -ENOTSUP: can't work here. */
int attach_choose(const struct attach_env *env, const char *name, const struct attach_way **out,
		  struct err *passed_over, struct err *err);
/* NULL: there is no such way. */
const struct attach_way *attach_find(const char *name);

/* What an earlier supervisor left and is not among @kept is taken away. */
void attach_sweep(const struct attach_env *env, const struct attachment *kept, size_t n);
/* The folder @dir of runtime_dir/attach is one of env->kept's. */
bool attach_keeps(const struct attach_env *env, const char *dir);
/* @fn for each folder of runtime_dir/attach, by its path, that is none of env->kept's; @fn may
 * remove it. */
void attach_leftovers_each(const struct attach_env *env,
			   void (*fn)(const struct attach_env *env, const char *path));

/* Have the asker serve the fresh connections now. */
int attach_give(const struct attach_env *env, struct attachment *a, struct err *err);

/* @name as one path component: [A-Za-z0-9_-] and '.' but in front, the rest as %XX. -ENAMETOOLONG.
 */
int attach_dir_name(const char *name, char *out, size_t len);

/* runtime_dir/attach/NAME into @out, made if @make. 0 or a negative errno. */
int attach_dir(const struct attach_env *env, const char *name, bool make, char *out, size_t len,
	       struct err *err);

/* "nbd+unix:///NAME?socket=PATH", both percent-encoded. -ENAMETOOLONG. */
int attach_uri(const char *nbd_socket, const char *name, char *out, size_t len);

#endif
