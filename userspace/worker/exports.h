/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's table of exports: what control asks for and NBD serves. */
#ifndef WORKER_EXPORTS_H
#define WORKER_EXPORTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/config.h"
#include "base/err.h"
#include "nbd/export.h"
#include "worker/latency.h"

#define EXPORT_LIMIT_MIN MIB	    /* bytes a second */
#define EXPORT_STORE_MIN (16 * MIB) /* bytes */

struct exports;
struct view;

struct export_info {
	char name[NBD_NAME_MAX + 1];
	char url[4096];		/* secrets masked */
	char digest[72];	/* "sha256:..", or "" when unverified */
	bool verified;		/* a sealed image */
	uint64_t length;	/* of the image, bytes */
	uint64_t bytes_present; /* in the store */
	uint64_t zero_bytes;	/* known to be zeros: never stored */
	uint32_t connections;
	char device[64]; /* "" when exported only */
	char way[32];	 /* attach way; "" when exported only */
	int slot;	 /* of the device in exports_view(); negative when it is not watched */
	/* reads by the farthest source they needed, and bytes by where each came from */
	uint64_t reads_local, reads_peer, reads_origin;
	uint64_t bytes_local, bytes_peer, bytes_origin;
	uint64_t read_errors;
	uint64_t deadlines;   /* reads that no source answered in time, whatever came of them */
	uint64_t limit;	      /* bytes a second from the origin; 0 = none */
	uint64_t store_limit; /* bytes of the store at most; 0 = any */
	bool kept;	      /* its blocks are not evicted */
	bool waits;	      /* reads whose deadline passed are tried again */
	uint32_t patient;     /* of them, how many now */
	char last_error[512]; /* why the last read failed, "" if none did */
	char promote[16];     /* "auto" or "never" */
	bool promoted;	      /* the device, or a mount, reads the store's file by itself */
	char file[CONFIG_PATH_MAX + 128]; /* "erofs-file": the store's file; else "" */
	char promote_note[200];		  /* why it is not, though "auto"; "" = it is, or will be */
	bool complete;			  /* all of it is in the store */
	bool fetching;			  /* all of it is being brought there */
};

/* Of the device that shows the image: whole 4 KiB, the tail zeros. */
static inline uint64_t export_device_len(const struct export_info *e)
{
	return (e->length + 4095) / 4096 * 4096;
}

struct worker_status {
	uint64_t store_used, store_wanted, store_size, store_objects, store_evictions, store_errors,
		store_rechecks;
	uint64_t verify_failures; /* blocks whose bytes did not match their hash */
	char store_path[CONFIG_PATH_MAX];
	char event_loop[16];
	uint64_t uptime_ms;
	uint64_t rss_bytes;
	/* The worker before this one; 0 = none. gap_ms: from when it was told to let go (planned),
	 * or was found dead, until this one had the connections of all devices. */
	uint64_t before_pid, gap_ms;
	bool before_planned;
};

/* Open the image at @url and serve it as @name ("" = a name made from the URL). The same URL under
 * the same name again is no error: the export that stands is returned. Blocks (runs origin calls);
 * call from a control thread.
 * -EEXIST: the name serves another image. Text names image and remedy. */
int exports_add(struct exports *x, const char *url, const char *name, bool refresh,
		struct export_info *out, struct err *err);

/* A device is about to be made of the export: what its mount reads first may come already. */
void exports_expect_mount(struct exports *x, const char *name);

/* Stop serving. -ENOENT; -EBUSY while a device stands on it or clients are connected (unless
 * @force, which drops them). */
int exports_remove(struct exports *x, const char *name, bool force, struct err *err);

/* An export of the worker before that could not be opened yet is given up. @key: its name, URL or
 * device. False: there is none. */
bool exports_forget(struct exports *x, const char *key);

/* Note that a device stands on an export ("" = no more), and watch it. -ENOENT. Asks the
 * supervisor: call from a control thread. */
int exports_set_device(struct exports *x, const char *name, const char *device, const char *way);

/* What becomes of an export's reads, and what it may have. NULL = as it is. */
struct export_policy {
	const char *on_deadline; /* "eio", "wait", "" (the daemon's) */
	const uint64_t *limit;	 /* bytes a second from the origin, 0 = none */
	/* Of its image, which other exports may share: then what was said last holds. */
	const uint64_t *store_limit; /* bytes of the store at most, 0 = any */
	const bool *keep;	     /* no block of it is evicted as long as this export stands */
};

/* Told in @out, and kept in the roster. -ENOENT; -EINVAL; -EBUSY when a device stands whose kernel
 * was told otherwise. May evict much: call from a control thread. */
int exports_set_policy(struct exports *x, const char *name_url_or_device,
		       const struct export_policy *policy, struct export_info *out,
		       struct err *err);

/* The export with this name, URL or device. -ENOENT with a text. */
int exports_find(struct exports *x, const char *name_url_or_device, struct export_info *out,
		 struct err *err);

/* Fresh array of all exports by name (the caller frees). */
int exports_list(struct exports *x, struct export_info **out, size_t *n);

/* What is observed of the devices (observe/view.h). NULL before the worker has begun to look. */
struct view *exports_view(struct exports *x);

void exports_status(struct exports *x, struct worker_status *out);

/* How much of an export is in the store, cell by cell of @extents extents each (64 blocks an
 * extent, fewer at the end): out[i] is blocks present of 64, rounded so that 0 is none and 64 all.
 * -ENOENT; -ERANGE: @ncells do not fit the export. */
int exports_presence(struct exports *x, const char *name, uint64_t extents, uint32_t ncells,
		     uint8_t *out);

/* Of all exports since the worker's start. */
void exports_latency(struct exports *x, struct latency_view *out);

#endif
