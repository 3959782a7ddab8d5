/* SPDX-License-Identifier: Apache-2.0 */
/* What a supervisor knows, written down at each change for the one that follows it: after an execve
 * of its own, from systemd's store of descriptors, or after its death.
 *
 * JSON in base/slots.h, in runtime_dir/supervisor.state. A reader takes its own version and the one
 * before. A newer one says from which version on a reader understands it (key `least`), so that one
 * can go back, too: that grows only with a change that an older reader would misunderstand, which a
 * key more is not. Plain data and a parser that trusts nothing; supervisor/continuity.c acts on it.
 *
 * A descriptor is written down as what it refers to, by device and inode number: whoever brings it
 * (our own table after an execve, systemd, a worker) can bring no other.
 */
#ifndef SUPERVISOR_STATE_H
#define SUPERVISOR_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "base/process.h"
#include "nbd/attach/attach.h"

#define STATE_VERSION 1u
#define STATE_OLDEST  1u /* that is read */
#define STATE_LEAST   1u /* that reads what is written */

struct file_id {
	uint64_t dev, ino; /* ino 0 = there is none */
};

struct state_device {
	char name[NBD_NAME_MAX + 1];
	char way[32];
	char identity[ATTACH_IDENTITY_LEN];
	char device[64];
	uint64_t size;
	int wished, index;
	uint32_t queues, generation;
	bool dead;
	pid_t owner;
	struct process helper;
	struct file_id promoted; /* the file that it shows; a cairnd that knew none wrote none */
	uint32_t nlinks;
	struct file_id links[ATTACH_LINKS_MAX], ledgers[ATTACH_LINKS_MAX];
};

struct state {
	char boot[BOOT_ID_LEN];
	struct process supervisor, worker;
	bool ready;	    /* the worker serves */
	uint32_t restarts;  /* of workers */
	uint32_t takeovers; /* supervisors that followed another */
	uint32_t pending;   /* id of the worker's request that is being answered, 0 = none */
	char control_socket[CONFIG_PATH_MAX], nbd_socket[CONFIG_PATH_MAX];
	struct file_id control, nbd, roster, crash, channel;
	struct state_device *devices;
	size_t ndevices;
};

/* {0} for a closed or negative descriptor. */
struct file_id file_id_of(int fd);
bool file_id_equal(struct file_id a, struct file_id b);

/* Fresh JSON, the caller's; NULL: out of memory. */
char *state_print(const struct state *s);

/* @len bytes at @json, which need no NUL. *out is the caller's to clear; written on success only.
 * -EPROTONOSUPPORT: of another version (the text says which); -EBADMSG: damaged; -ENOMEM. */
int state_parse(const char *json, size_t len, struct state *out, struct err *err);

void state_clear(struct state *s);

/* Into and from a file of slots. -ENOENT: none was written. Else as slots_save, state_parse. */
int state_save(int fd, const struct state *s);
int state_load(int fd, struct state *out, struct err *err);

#endif
