/* SPDX-License-Identifier: Apache-2.0 */
/* The control server: HTTP/1.1 with JSON on a Unix socket, and /metrics.
 *
 *   POST   /v1/exports         {"url", "name"?, "attach"?: "none"|"auto"|WAY, "refresh"?: bool,
 *                               "device"?: "/dev/nbdN", "queues"?: 1..64,
 *                               "on_deadline"?: "eio"|"wait",
 *                               "promote"?: "auto"|"never"|"erofs-file" (the reply's
 *                               "file" is to be mounted)}; the reply is the export,
 *                               "newly_attached", and "passed_over": why "auto" did not take its
 *                               first way, "" when it did
 *   GET    /v1/exports          [export, ..]
 *   GET    /v1/exports/KEY      KEY: a name, URL or device, percent-encoded
 *   PATCH  /v1/exports/KEY      {"limit"?: bytes a second from the origin, 0 = none,
 *                               "store_limit"?: bytes of the store at most, 0 = any,
 *                               "keep"?: true = nothing of it is evicted}, or
 *                               {"fetch": bool}: bring all of it into the store; the export
 *   DELETE /v1/exports/KEY?force=1
 *                               detaches too
 *   GET    /v1/status
 *   GET    /metrics             Prometheus text
 *
 * and those of api_observe.h. An error is a fitting 4xx or 5xx with {"error": TEXT, "errno": N}.
 */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include "base/err.h"
#include "observe/tuner.h"
#include "worker/exports.h"

#define CONTROL_BODY_MAX (64 * 1024)

struct control;

/* @listen_fd stays the caller's. @metrics_listen: "" or ADDRESS:PORT. @supervisor_fd: -1 = attach
 * is not possible. @nbd_socket goes into the URIs. Strings are copied. */
int control_start(int listen_fd, const char *metrics_listen, struct exports *x, struct tuner *tuner,
		  int supervisor_fd, const char *nbd_socket, struct control **out, struct err *err);

/* Waits for requests that run. */
void control_stop(struct control *c);

#endif
