/* SPDX-License-Identifier: Apache-2.0 */
/* Where bytes come from when neither this node nor a peer holds them, and where images are
 * published.
 *
 * An `origin` is one directory-like place with its credentials: an Azure container (and prefix), an
 * HTTP folder, or a local folder. Blobs in it are named relative to it, as a manifest names them.
 * It is immutable, reference-counted and shared by threads. An `origin_client` is one thread's
 * connections and its loop; it is what the thread reads through.
 *
 * Which origin a URL means:
 *   az://ACCOUNT/CONTAINER/NAME                                 azure
 *   https://ACCOUNT.blob.core.windows.net/CONTAINER/NAME[?SAS]  azure, other clouds' suffixes too
 *   http://127.0.0.1:PORT/devstoreaccount1/CONTAINER/NAME[?SAS] azure, path style (the emulator)
 *   other http://, https://                                     http (read-only)
 *   file:///PATH                                                file
 */
#ifndef ORIGIN_ORIGIN_H
#define ORIGIN_ORIGIN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/drr.h"
#include "base/loop.h"
#include "origin/window.h"

#define ORIGIN_NAME_MAX	 1024 /* Azure's limit on a blob's name */
#define ORIGIN_ETAG_MAX	 128
#define ORIGIN_URL_MAX	 4096
#define ORIGIN_BLOCK_MAX (100ULL << 20) /* staged at once; Azure: 4000 MiB, 50,000 a blob */

struct origin;
struct origin_client;

/* How to reach origins. Strings are the caller's and outlive every origin opened with them; NULL or
 * "" = not set. Secrets are read from here and from the environment only, never from arguments. */
struct origin_config {
	const char *api_version;       /* x-ms-version; default "2021-12-02" */
	const char *account;	       /* AZURE_STORAGE_ACCOUNT */
	const char *key;	       /* base64; AZURE_STORAGE_KEY */
	const char *sas_token;	       /* with or without '?'; AZURE_STORAGE_SAS_TOKEN */
	const char *connection_string; /* AZURE_STORAGE_CONNECTION_STRING */
	const char *ca_file;	       /* extra trust for TLS; SSL_CERT_FILE */
	const char *identity;	       /* auto, off, environment, workload, managed; NULL = auto */
	const char *client_id;	       /* of the identity; AZURE_CLIENT_ID */
	uint32_t connections;	       /* most requests in flight per client; 0 = 16 */
	uint32_t connect_timeout_ms;   /* 0 = 5000 */
	uint32_t stall_timeout_ms;     /* no byte for so long = retry; 0 = 10000 */
	uint32_t deadline_ms;	       /* default for sync calls; 0 = 90000 */
};

/* Fill unset fields of @cfg from the environment, as Azure's own tools read it. The strings point
 * into the environment. */
void origin_config_from_env(struct origin_config *cfg);

/* What the process did, summed over clients. GETs count data, tree and manifest reads and HEADs
 * apart; bytes are body bytes received. */
struct origin_counters {
	_Atomic uint64_t get_requests, get_bytes, head_requests, put_requests, put_bytes, retries,
		errors;
};
extern struct origin_counters origin_counters;

/* Split @url into its origin and the name of the blob in it (@name: ORIGIN_NAME_MAX + 1 bytes).
 * A SAS in the URL becomes part of the origin. -EINVAL with a text that shows the accepted forms;
 * -EACCES when no credential fits. Makes no request: that an identity can't be had is said by the
 * first call. */
int origin_open(const char *url, const struct origin_config *cfg, struct origin **out, char *name,
		struct err *err);
struct origin *origin_ref(struct origin *o);
void origin_unref(struct origin *o);

const char *origin_kind(const struct origin *o); /* "azure", "http", "file" */
bool origin_is_writable(const struct origin *o);

/* The URL of blob @name without any secret, for logs, errors and status. Returns @buf. */
const char *origin_url(const struct origin *o, const char *name, char *buf, size_t len);

/* @url with query values of secrets masked; works on anything a user may type. Returns @buf. */
const char *origin_redact_url(const char *url, char *buf, size_t len);

/* True if the credential is a SAS for one single blob (sr=b): siblings can't be read with it. */
bool origin_is_single_blob(const struct origin *o);

/* A client lives on one loop and thread. Free it only when none of its reads is in flight. */
struct origin_client *origin_client_new(struct loop *l, const struct origin_config *cfg,
					struct err *err);
void origin_client_free(struct origin_client *c);

/* One range read, embedded in its owner, in flight from submit until done(). */
struct origin_read {
	/* set by the caller */
	struct origin *origin;
	const char *name; /* blob, relative; the caller's */
	const char *etag; /* sent as If-Match; NULL or "" = none */
	uint64_t off;
	uint32_t len;
	uint8_t *dst;	       /* @len bytes; the caller's */
	uint64_t deadline_ns;  /* CLOCK_MONOTONIC; retries end here */
	struct drr_flow *flow; /* in which it waits for a connection; NULL = the client's own */
	struct window *window; /* of its export; NULL = none. Zeroed at first, outlives it */
	/* Bytes [0, got) of dst are in; got only grows, also over a retry (it resumes). May be
	 * NULL. May not submit or cancel. */
	void (*progress)(struct origin_read *r, uint32_t got);
	/* All bytes are in (0), or a negative errno with r->err set and dst undefined:
	 * -ENOENT, -EACCES (401/403), -ESTALE (412: no longer the blob that @etag named),
	 * -ERANGE (the blob ends before off + len), -ETIMEDOUT (deadline), -ECANCELED, -EIO.
	 * Called on the loop, never from inside submit. May submit again. */
	void (*done)(struct origin_read *r, int rc);
	/* results */
	struct err err;
	char got_etag[ORIGIN_ETAG_MAX]; /* the blob's ETag as answered; "" if none */
	/* the client's */
	void *impl;
};
void origin_read_submit(struct origin_client *c, struct origin_read *r);
void origin_read_cancel(struct origin_client *c,
			struct origin_read *r); /* done(-ECANCELED) in a later turn */

/* Have it wait in another flow, if it waits. */
void origin_read_move(struct origin_client *c, struct origin_read *r, struct drr_flow *flow);

/* The calls below run the client's loop until they are answered: for the CLI's threads and for
 * attach, never for a loop that serves readers. They retry as reads do, up to cfg.deadline_ms. */
struct origin_stat {
	uint64_t length;
	char etag[ORIGIN_ETAG_MAX];
};
int origin_stat(struct origin_client *c, struct origin *o, const char *name,
		struct origin_stat *out, struct err *err);

/* A whole small blob into fresh memory (the caller frees), with a NUL after it. -EFBIG over @limit.
 * @if_none_match (may be NULL): -EALREADY when the blob still has that ETag. @etag may be NULL. */
int origin_get(struct origin_client *c, struct origin *o, const char *name, size_t limit,
	       const char *if_none_match, char **buf, size_t *len, char etag[ORIGIN_ETAG_MAX],
	       struct err *err);

/* [off, off + len) into @dst. */
int origin_pread(struct origin_client *c, struct origin *o, const char *name, const char *etag,
		 uint64_t off, uint32_t len, void *dst, struct err *err);

/* A whole blob at once. @exclusive: -EEXIST if there is one (If-None-Match: *). -EROFS for http. */
int origin_put(struct origin_client *c, struct origin *o, const char *name, const void *buf,
	       size_t len, bool exclusive, struct err *err);

/* A large blob in blocks: stage in any order and from any client, then commit the ids in order;
 * invisible until then. @id: up to 64 bytes of [0-9a-f], all of one length within a blob.
 * The ETag of what was committed goes to @etag. */
int origin_stage(struct origin_client *c, struct origin *o, const char *name, const char *id,
		 const void *buf, size_t len, struct err *err);
int origin_commit(struct origin_client *c, struct origin *o, const char *name,
		  const char *const *ids, size_t n, char etag[ORIGIN_ETAG_MAX], struct err *err);

/* Which ids are staged and not yet committed (an earlier push that was killed). Calls fn for each;
 * none is no error. */
int origin_staged(struct origin_client *c, struct origin *o, const char *name,
		  void (*fn)(void *arg, const char *id, uint64_t len), void *arg, struct err *err);

#endif
