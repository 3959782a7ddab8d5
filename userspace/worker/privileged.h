/* SPDX-License-Identifier: Apache-2.0 */
/* What the worker may ask of its supervisor. Thread-safe: one request is under way at a time,
 * others wait for it. @fd is the worker_fds' supervisor. Each waits at most PRIVILEGED_WAIT_MS and
 * then says -ETIMEDOUT; the supervisor may still do it. Out-parameters are written on success only.
 */
#ifndef WORKER_PRIVILEGED_H
#define WORKER_PRIVILEGED_H

#include <stdbool.h>
#include <stdint.h>
#include <supervisor_protocol.h>

#include "base/err.h"

#define PRIVILEGED_WAIT_MS 40000

/* Connections to serve: who takes them owns their descriptors. */
struct privileged_links {
	uint32_t n;
	bool handshake; /* their client begins with one */
	int fd[SUPERVISOR_LINKS_MAX], ledger[SUPERVISOR_LINKS_MAX];
};

struct privileged_device {
	/* asked for */
	const char *name;     /* of the export */
	const char *way;      /* "auto" or a way's name */
	const char *identity; /* of the image, for the device's name; "" = none */
	uint64_t len;	      /* bytes, a multiple of 4,096 */
	uint32_t queues;      /* 0 = as the supervisor sees fit */
	int32_t index;	      /* of the device wanted, -1 = any */
	bool wait;	      /* its reads may take as long as their source is away */
	bool promotable;      /* "auto" had rather a way whose devices can be promoted */
	bool release;	      /* with revive: one that is promoted reads from us again */
	bool revive;	      /* only one that stands: connections that this worker has not got, or
			       * the dead ones anew */
	/* Takes connections that have to be served before the answer comes. Asks the supervisor for
	 * nothing. */
	void (*serve)(void *arg, const char *name, const struct privileged_links *l);
	void *arg;
	/* given */
	char device[SUPERVISOR_DEVICE_LEN];
	char way_used[SUPERVISOR_WAY_LEN];
	char passed_over[SUPERVISOR_TEXT_LEN]; /* why "auto" did not take its first way, or "" */
	struct privileged_links links;	       /* none when the worker has them all */
	uint32_t missing;		       /* connections that are dead: ask again */
	bool promoted;			       /* it reads the store's file, and has none */
};

/* What this thread asks from here on it asks for @client_fd, a connection from the control socket:
 * new devices and detaching need one, of root's. -1: for nobody. */
void privileged_ask_for(int client_fd);

/* Put a device on an export that is served. An export that has one gets the same again; one whose
 * connections died gets new ones. -ENOTSUP: the way cannot work here, and the text says what it
 * lacks; -EBUSY: the device wanted is another's. */
int privileged_attach(int fd, struct privileged_device *d, struct err *err);

/* Have the export's device read @data_fd, the complete image, by itself. -ENOENT; -ENOTSUP: it
 * can't. -ETIMEDOUT, -EPIPE, -ECONNRESET: it may do so already, or yet. */
int privileged_promote(int fd, const char *export_name, int data_fd, struct err *err);

/* Take it away. -EBUSY: mounted or open (the text says by whom), unless @force. -ENOENT. */
int privileged_detach(int fd, const char *export_name, bool force, struct err *err);

/* Ready but for the store and the exports: returns when no other worker has them. */
struct privileged_before {
	uint64_t left_ns; /* CLOCK_MONOTONIC: when the worker before was told to let go, or ended */
	uint64_t pid;	  /* of it; 0 = there was none */
	bool planned;
};
int privileged_begin(int fd, struct privileged_before *out, struct err *err);

/* Have another worker take this one's place, with the program and the settings on disk: *next is
 * its process, and this one is about to be told to let go. An error names what is wrong with them,
 * and changes nothing. */
int privileged_upgrade(int fd, uint64_t *next, struct err *err);

/* Serving. */
int privileged_ready(int fd, struct err *err);

/* Another supervisor: requests go over @fresh from now on, under the same number @fd. @fresh stays
 * the caller's. */
int privileged_renew(int fd, int fresh);

/* The observer's maps (observe/loader.h), the caller's to close; hooks, and the line that tells
 * them. -ENOTSUP: off, and @line says why. */
int privileged_observer(int fd, int *fds, uint32_t max_fds, uint32_t *hooks,
			char line[SUPERVISOR_TEXT_LEN], struct err *err);

struct privileged_watch {
	int heat_fd; /* the caller's */
	uint32_t slot, heat_shift, cells, generation;
};
int privileged_watch(int fd, const char *export_name, uint64_t len, struct privileged_watch *out,
		     struct err *err);
int privileged_unwatch(int fd, const char *export_name, uint32_t generation);

/* read_ahead_kb of the export's device: set it unless @kb is UINT64_MAX; *now is what it is after.
 * -EINVAL where the kernel refuses. */
int privileged_read_ahead(int fd, const char *export_name, uint64_t kb, uint64_t *now,
			  struct err *err);

#endif
