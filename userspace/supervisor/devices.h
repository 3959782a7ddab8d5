/* SPDX-License-Identifier: Apache-2.0 */
/* The devices that stand, by export name. One thread. */
#ifndef SUPERVISOR_DEVICES_H
#define SUPERVISOR_DEVICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/config.h"
#include "base/err.h"
#include "nbd/attach/attach.h"

struct devices {
	struct attach_env env;
	struct attachment *list;
	size_t n;
};

struct device_wish {
	const char *name; /* of the export */
	const char *way;  /* "" = "auto" */
	const char *identity;
	uint64_t size;
	uint32_t queues; /* 0 = as the way sees fit */
	int index;	 /* -1 = any */
	bool revive;	 /* only one that stands already */
	bool wait;	 /* for its source, however long */
	bool promotable; /* rather by a way whose devices can be promoted, if it may be any */
	bool release;	 /* with revive: one that is promoted reads from the worker again */
};

/* Strings stay the configuration's. Whoever answers a worker sets d->env's asker. */
int devices_open(struct devices *d, const struct config *cfg, struct err *err);
void devices_close(struct devices *d);

/* Other settings, for devices attached from now on. */
void devices_settings(struct devices *d, const struct config *cfg);

/* A device on the export: the one that stands, a dead one brought back, or a new one. *out is valid
 * until the next call. *passed_over says why "auto" did not take the first way (code 0: it did).
 *
 * Connections that live and that the worker has not got yet come before all else: then nothing is
 * brought back in this call, so that no device of a new worker waits for another's, and
 * devices_missing() tells whether to ask again.
 *
 * -ENOENT: none stands, and only that was asked for; -ESTALE: it stands for another image. */
int devices_attach(struct devices *d, const struct device_wish *w, struct attachment **out,
		   struct err *passed_over, struct err *err);
/* The worker was sent all connections of the device. */
void devices_sent(struct devices *d, const char *name);

/* Connections of the device that are dead. */
uint32_t devices_missing(const struct attachment *a);

/* @name: of the export, or of the device. */
int devices_detach(struct devices *d, const char *name, bool force, struct err *err);

/* One of the supervisor before; @a's links are the table's on success only. */
int devices_add(struct devices *d, const struct attachment *a, struct err *err);

/* The device on the export, by the name of either, or NULL. */
const struct attachment *devices_find(struct devices *d, const char *name);

/* The device reads @fd, the caller's, instead of from the worker (nbd/attach/attach.h). -ENOENT;
 * -ENOTSUP.
 */
int devices_promote(struct devices *d, const char *name, int fd, struct err *err);

/* The next worker has to get all connections: readers wait for it. */
void devices_worker_died(struct devices *d);

/* read_ahead_kb of the export's device: set unless @kb is UINT64_MAX, and told. -ENOENT. */
int devices_read_ahead(struct devices *d, const char *name, uint64_t kb, uint64_t *now,
		       struct err *err);

/* Connections died, or may have: call when this polls readable. */
int devices_events_fd(const struct devices *d);
void devices_events(struct devices *d);

/* A child that is no worker ended. */
void devices_child_died(struct devices *d, pid_t pid);

/* At stop. What is mounted is taken away under its users, with a warning. */
void devices_detach_all(struct devices *d);

#endif
