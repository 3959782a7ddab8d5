/* SPDX-License-Identifier: Apache-2.0 */
/* The table of exports, as the worker starts and ends it. */
#ifndef WORKER_EXPORTS_IMPL_H
#define WORKER_EXPORTS_IMPL_H

#include <pthread.h>

#include "nbd/server.h"
#include "worker/exports.h"
#include "worker/opening.h"
#include "worker/roster.h"
#include "worker/volume.h"

struct exports {
	pthread_mutex_t lock; /* the table and the volumes' device and way */
	struct volume **volumes;
	struct volume **buckets; /* by name, chained; as many as @cap */
	size_t n, cap;
	const struct config *cfg;
	struct store *store;
	struct fill *fill;
	struct opener opener;
	struct latency latency;
	struct nbd_directory directory;
	struct nbd_server *server;   /* set once it runs */
	struct view *view;	     /* the worker's; may be NULL */
	struct promoter *promoter;   /* set once it runs */
	pthread_mutex_t promoting;   /* what is promoted and released changes under it */
	struct reopening *reopening; /* of the roster, not open yet; NULL = none */
	int roster_fd;
	struct slots_last roster_last;
	uint64_t started_ns;
	uint64_t before_pid, gap_ms; /* the worker before, worker_status */
	bool before_planned;
	char event_loop[16];
};

/* @roster_fd: where the table is kept for a successor, or -1. @secrets_fd: of worker/secrets.h. The
 * store is set before the first export. */
int exports_init(struct exports *x, const struct config *cfg, struct fill *fill, int roster_fd,
		 int secrets_fd, struct err *err);
void exports_set_store(struct exports *x, struct store *store);

/* exports_table.c, under the lock */
struct volume *exports_volume(struct exports *x, const char *name); /* or NULL */
struct volume *exports_lookup(struct exports *x, const char *name_url_or_device);
int exports_insert(struct exports *x, struct volume *v);
void exports_take_out(struct exports *x, struct volume *v);
void exports_changed(struct volume *v); /* something that the roster keeps: before the save */
void exports_save(struct exports *x);	/* the roster, for a successor */

/* For reopening (worker/reopen.h). */
int exports_make(struct exports *x, const char *url, const char *name, struct image_source **source,
		 struct volume **out, struct err *err);
/* A reference, the caller's, by name, URL or device; NULL with a text. Not under the lock. */
struct volume *exports_volume_get(struct exports *x, const char *key, struct err *err);
/* Observe the export's device. Asks the supervisor: not under the lock. */
void exports_watch(struct exports *x, const char *name, uint64_t len);

void exports_fini(struct exports *x); /* no reader is left */

/* "sha256:..", or "" */
void exports_digest(const struct volume *v, char out[8 + 2 * SHA256_LEN]);
/* Under the lock. */
void exports_tell(struct volume *v, struct export_info *out);

/* promote.c: the device is gone, or reads from us again. Not under the lock. */
void promotion_end(struct exports *x, const char *name);

/* exports_policy.c */
/* As the roster says: not checked again, not saved. */
void exports_apply_policy(struct exports *x, struct volume *v, const struct roster_entry *e);
void exports_default_policy(struct exports *x, struct volume *v);

#endif
