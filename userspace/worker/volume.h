/* SPDX-License-Identifier: Apache-2.0 */
/* A volume: one image served as an NBD export. It answers from the store, and turns misses into
 * fills.
 *
 * Reference-counted: the table of exports holds one, each connection and each read in flight
 * another. Reads run on data threads, their fills end on fill threads.
 */
#ifndef WORKER_VOLUME_H
#define WORKER_VOLUME_H

#include <pthread.h>

#include "fill/density.h"
#include "fill/fill.h"
#include "fill/readahead.h"
#include "image/source.h"
#include "nbd/export.h"
#include "worker/completion.h"
#include "worker/latency.h"

#define VOLUME_STRIPES 16 /* of the hit counters: data threads do not share a cache line */

struct volume {
	struct nbd_export export;
	struct image_source *source;
	struct fill *fill;
	struct latency *latency; /* the worker's */
	_Atomic uint32_t refs;
	struct {
		_Atomic uint64_t reads, bytes;
		char pad[48];
	} local[VOLUME_STRIPES];
	_Atomic uint64_t origin_reads, origin_bytes, read_errors;
	struct share *share; /* of what fills need */
	/* Set by the table of exports: a read whose deadline passed is tried again, not failed. */
	_Atomic bool waits;
	_Atomic uint64_t deadlines; /* passed, of reads */
	_Atomic uint32_t in_a_row;  /* of them, since the origin last gave a byte */
	_Atomic uint32_t patient;   /* reads that pause */
	pthread_mutex_t lock;	    /* readahead, density, completion, last_error */
	struct readahead readahead;
	struct density density;
	struct completion completion;
	/* Extents whose first touch moves a stream on; looked at on every hit without the lock. */
	_Atomic uint64_t wake_extent[READAHEAD_STREAMS];
	_Atomic uint32_t streams_awake;
	_Atomic uint32_t prefetches; /* in flight */
	char last_error[512];
	/* by the table of exports, under its lock */
	char url[4096]; /* as asked for, with secrets: never shown */
	char shown_url[4096];
	char device[64], way[32];
	char on_deadline[8]; /* as asked for: "eio", "wait", or "" = the daemon's */
	/* worker/promote.h */
	char promote[16];	/* "auto", "never" or "" = never */
	char promote_note[200]; /* why it is not, where it might be */
	bool promoted;
	bool promote_refused; /* by the supervisor, until somebody asks again */
	_Atomic bool fetching;
	unsigned fetch_passes;
	uint64_t fetch_at;    /* bytes */
	int slot;	      /* of the device in the view; negative = not watched */
	uint64_t store_limit; /* bytes its object may have; 0 = any */
	bool keeps;	      /* holds an object_keep() */
	char *roster_text;    /* as it stands in the roster; NULL = to be made anew */
	struct volume *bucket_next;
};

/* Consumes @source (also on error). @readahead_max in bytes. @latency outlives it. */
int volume_new(const char *name, struct image_source **source, struct fill *fill,
	       uint64_t readahead_max, struct latency *latency, struct volume **out,
	       struct err *err);
/* Bytes of the store that its object may have, 0 = any. May evict much: by a control thread. */
void volume_set_store_limit(struct volume *v, uint64_t bytes);

/* Keep its object from eviction, or no longer. By a control thread. */
void volume_set_keep(struct volume *v, bool keep);

/* All of it is being brought to the store: what came is not evicted for what comes. */
void volume_set_fetching(struct volume *v, bool on);

struct volume *volume_ref(struct volume *v);
void volume_unref(struct volume *v);

/* Ask for what the store lacks, from *@at on, while fewer than @most extents are on their way.
 * True: all of it was asked for. */
bool volume_fetch(struct volume *v, uint64_t *at, uint32_t most);

/* [off, off + len) was read through the page cache, where pages of it may have to leave again. */
void volume_note_pages(struct object *o, uint64_t off, uint32_t len);

struct volume_counters {
	uint64_t reads_local, reads_origin, bytes_local, bytes_origin, errors, deadlines;
};
void volume_count(struct volume *v, struct volume_counters *out);

#endif
