/* SPDX-License-Identifier: Apache-2.0 */
/* What the routes answer, apart from HTTP; for server.c. Thread-safe. */
#ifndef CONTROL_API_H
#define CONTROL_API_H

#include <pthread.h>
#include <stdio.h>

#include "observe/tuner.h"
#include "worker/exports.h"

/* Sums over all exports, those removed included: a counter never falls. */
struct api_totals {
	uint64_t reads_local, reads_peer, reads_origin;
	uint64_t bytes_local, bytes_peer, bytes_origin;
	uint64_t read_errors, connections, exports, promoted;
};

struct api {
	struct exports *exports;
	struct tuner *tuner;
	int supervisor_fd;
	char nbd_socket[CONFIG_PATH_MAX];
	pthread_mutex_t lock;	   /* of retired */
	struct api_totals retired; /* of removed exports */
};

struct api_reply {
	unsigned status;
	const char *type;
	char *body; /* malloc'ed; the server's to free */
};

struct api_query { /* what stood behind the path's '?' */
	bool force;
	const char *key, *cells; /* NULL: not given */
};

/* @path is decoded and holds no query. @body may be NULL; it ends in NUL. */
void api_call(struct api *a, const char *method, const char *path, const struct api_query *q,
	      const char *body, struct api_reply *out);

/* {"error", "errno"} */
void api_reply_error(struct api_reply *out, unsigned status, int code, const char *text);

void metrics_print(struct api *a, FILE *out);

#endif
