/* SPDX-License-Identifier: Apache-2.0 */
/* Inside origins: the table of functions behind each kind. */
#ifndef ORIGIN_ORIGIN_IMPL_H
#define ORIGIN_ORIGIN_IMPL_H

#include "origin/credentials.h"
#include "origin/http.h"
#include "origin/origin.h"
#include "origin/url.h"

struct remote_call;
struct bearer;
struct token_source;

/* Names are valid (url_name_is_valid) and lengths are not 0 when these are called. Each sets @err
 * once, in full: the thing, the reason, the remedy. */
struct origin_ops {
	const char *name;
	bool writable;

	/* done() may not be called from inside; origin_read_finish() defers it. */
	void (*read)(struct origin_client *c, struct origin_read *r);
	void (*cancel)(struct origin_client *c, struct origin_read *r);
	/* r->flow is another now; NULL where nothing waits */
	void (*move)(struct origin_client *c, struct origin_read *r);
	const char *(*show)(const struct origin *o, const char *name, char *buf, size_t len);

	int (*stat)(struct origin_client *c, struct origin *o, const char *name,
		    struct origin_stat *out, struct err *err);
	int (*get)(struct origin_client *c, struct origin *o, const char *name, size_t limit,
		   const char *if_none_match, char **buf, size_t *len, char *etag, struct err *err);

	/* writable origins only */
	int (*put)(struct origin_client *c, struct origin *o, const char *name, const void *buf,
		   size_t len, bool exclusive, struct err *err);
	int (*stage)(struct origin_client *c, struct origin *o, const char *name, const char *id,
		     const void *buf, size_t len, struct err *err);
	int (*commit)(struct origin_client *c, struct origin *o, const char *name,
		      const char *const *ids, size_t n, char *etag, struct err *err);
	int (*staged)(struct origin_client *c, struct origin *o, const char *name,
		      void (*fn)(void *arg, const char *id, uint64_t len), void *arg,
		      struct err *err);

	/* origins over HTTP only; remote.h */
	char *(*remote_url)(const struct origin *o, const char *name, const char *query);
	int (*remote_prepare)(struct http_request *r);
	int (*remote_judge)(struct http_request *r, int rc); /* may be NULL */
	int (*remote_explain)(const struct remote_call *call, int rc, struct err *err);
	const char *range_header;
	uint32_t max_redirects;
};

extern const struct origin_ops azure_origin_ops, http_origin_ops, file_origin_ops;

struct origin {
	const struct origin_ops *ops;
	_Atomic uint32_t refs;
	struct url url;
	struct credentials cred;
	struct token_source *token; /* the process's; NULL = key, SAS or none */
	char api_version[32];
};

struct origin_client {
	struct loop *loop;
	struct http_client *http;
	uint32_t deadline_ms, stall_timeout_ms;
	struct loop_post post;
	bool posted;
	struct bearer *bearers;			/* bearer.c's */
	struct origin_read *later, *later_last; /* whose done() is due; linked by r->impl */
};

/* done(@rc) from the loop's next turn; r->err is set already where @rc is an error. */
void origin_read_finish(struct origin_client *c, struct origin_read *r, int rc);

/* True if the read's done() was due: then it will say -ECANCELED. */
bool origin_read_cancel_finished(struct origin_client *c, struct origin_read *r);

/* The deadline of a synchronous call that begins now. */
uint64_t origin_deadline(const struct origin_client *c);

#endif
