/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP for api.c: a thread a connection, since adding an export waits for an origin. */
#include "control/control.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "control/api.h"
#include "control/api_crash.h"
#include "worker/privileged.h"

#define CONNECTIONS_MAX	 64
#define SCRAPERS_MAX	 8
#define IDLE_SECONDS	 30
#define METRICS_PORT_MAX 8
#define ACCEPT_PAUSE_NS	 100000000

struct control {
	struct api api;
	struct MHD_Daemon *local, *metrics;
};

/* A request's body as it arrives; one from the first call of the handler to on_completed(). */
struct upload {
	char *body;
	size_t len;
	bool too_long;
};

static void mhd_log(void *arg, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));

static void mhd_log(void *arg, const char *fmt, va_list ap)
{
	char line[256];

	(void)arg;
	vsnprintf(line, sizeof(line), fmt, ap);
	log_debug("control", "libmicrohttpd", "text=\"%s\"", line);
	/* Out of descriptors or memory and with no connection that could end, it tries accept() in
	 * a circle, which takes a whole CPU, and tells of each turn. */
	if (strstr(fmt, "busy waiting"))
		nanosleep(&(struct timespec){.tv_nsec = ACCEPT_PAUSE_NS}, NULL);
}

/* @more: the connection may ask again. One that changed something is closed, since the supervisor
 * lets each make one device. */
static enum MHD_Result reply_send(struct MHD_Connection *conn, struct api_reply *r, bool more)
{
	struct MHD_Response *resp;
	enum MHD_Result rc;

	if (!r->body) /* out of memory */
		return MHD_NO;
	resp = MHD_create_response_from_buffer(strlen(r->body), r->body, MHD_RESPMEM_MUST_FREE);
	if (!resp) {
		free(r->body);
		return MHD_NO;
	}
	MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_TYPE, r->type);
	if (!more)
		MHD_add_response_header(resp, MHD_HTTP_HEADER_CONNECTION, "close");
	rc = MHD_queue_response(conn, r->status, resp);
	MHD_destroy_response(resp);
	return rc;
}

static bool upload_take(struct upload *u, const char *data, size_t len)
{
	char *more;

	if (u->too_long || len > CONTROL_BODY_MAX - u->len) {
		u->too_long = true; /* read to its end, so that the client sees the answer */
		return true;
	}
	more = realloc(u->body, u->len + len + 1);
	if (!more)
		return false;
	u->body = more;
	memcpy(u->body + u->len, data, len);
	u->len += len;
	u->body[u->len] = 0;
	return true;
}

static const char *argument(struct MHD_Connection *conn, const char *name)
{
	return MHD_lookup_connection_value(conn, MHD_GET_ARGUMENT_KIND, name);
}

static struct api_query query_of(struct MHD_Connection *conn)
{
	const char *force = argument(conn, "force");

	return (struct api_query){.force = force &&
					   (strcmp(force, "1") == 0 || strcmp(force, "true") == 0),
				  .key = argument(conn, "key"),
				  .cells = argument(conn, "cells")};
}

static bool peer_uid(int fd, uid_t *uid)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len))
		return false;
	*uid = who.uid;
	return true;
}

/* Others than root and who started the daemon come in by [daemon] control_group, and may only ask:
 * a file:// URL would be read with the daemon's rights. Processes of the worker's user may not,
 * either. */
static bool may_change(const struct control *c, int client_fd)
{
	uid_t client, daemon = geteuid();

	if (!peer_uid(client_fd, &client))
		return false;
	if (c->api.supervisor_fd >= 0 && !peer_uid(c->api.supervisor_fd, &daemon))
		return false;
	return client == 0 || client == daemon;
}

static int client_of(struct MHD_Connection *conn)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);

	return info ? info->connect_fd : -1;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *conn, const char *path,
				  const char *method, const char *version, const char *data,
				  size_t *len, void **state)
{
	struct control *c = arg;
	struct upload *u = *state;
	struct api_query q;
	struct api_reply r;

	(void)version;
	if (!u) { /* headers only */
		*state = u = calloc(1, sizeof(*u));
		return u ? MHD_YES : MHD_NO;
	}
	if (*len) {
		bool taken = upload_take(u, data, *len);

		*len = 0;
		return taken ? MHD_YES : MHD_NO;
	}
	q = query_of(conn);
	if (u->too_long)
		api_reply_error(&r, 413, -EFBIG, "the body is longer than 64 KiB");
	else if (strcmp(method, "GET") != 0 && !may_change(c, client_of(conn)))
		api_reply_error(&r, 403, -EPERM,
				"changing what is served needs root or the daemon's user; members "
				"of [daemon] control_group may ask only");
	else {
		privileged_ask_for(client_of(conn));
		crashes_api_call(&c->api, method, path, &q, u->body, &r);
		privileged_ask_for(-1);
	}
	return reply_send(conn, &r, strcmp(method, "GET") == 0);
}

static enum MHD_Result on_scrape(void *arg, struct MHD_Connection *conn, const char *path,
				 const char *method, const char *version, const char *data,
				 size_t *len, void **state)
{
	static const struct api_query no_query;
	struct control *c = arg;
	struct api_reply r;

	(void)version;
	(void)data;
	(void)state;
	*len = 0;
	if (strcmp(path, "/metrics") == 0 && strcmp(method, "GET") == 0)
		crashes_api_call(&c->api, method, path, &no_query, NULL, &r);
	else
		api_reply_error(&r, 404, -ENOENT, "only GET /metrics is served here");
	return reply_send(conn, &r, true);
}

static void on_completed(void *arg, struct MHD_Connection *conn, void **state,
			 enum MHD_RequestTerminationCode why)
{
	struct upload *u = *state;

	(void)arg;
	(void)conn;
	(void)why;
	if (u)
		free(u->body);
	free(u);
	*state = NULL;
}

/* MHD closes the socket it listens on when it stops: it gets a duplicate. ITC wakes its thread;
 * without it MHD would shutdown() the socket, which would end listening for the next worker too. */
static struct MHD_Daemon *serve(int listen_fd, unsigned connections, MHD_AccessHandlerCallback fn,
				struct control *c)
{
	int fd = fcntl(listen_fd, F_DUPFD_CLOEXEC, 3);
	struct MHD_Daemon *d;

	if (fd < 0)
		return NULL;
	d = MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
				     MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG,
			     0, NULL, NULL, fn, c, MHD_OPTION_LISTEN_SOCKET, fd,
			     MHD_OPTION_EXTERNAL_LOGGER, mhd_log, NULL, MHD_OPTION_CONNECTION_LIMIT,
			     connections, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS,
			     MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_END);
	if (!d)
		close(fd);
	return d;
}

static int metrics_socket(const char *where, struct err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *found;
	char host[128], port[METRICS_PORT_MAX];
	int rc, fd, one = 1;

	if (config_split_address(where, host, sizeof(host), port, sizeof(port)))
		return err_set(err, -EINVAL, "[daemon] metrics_listen = %s: must be ADDRESS:PORT",
			       where);
	rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
	if (rc)
		return err_set(err, -EINVAL, "[daemon] metrics_listen = %s: %s", where,
			       gai_strerror(rc));
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, 64)) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		fd = err_set(err, rc, "[daemon] metrics_listen = %s: %s", where, strerror(-rc));
	}
	freeaddrinfo(found);
	return fd;
}

static int metrics_start(struct control *c, const char *where, struct err *err)
{
	int fd;

	if (!where || !where[0])
		return 0;
	fd = metrics_socket(where, err);
	if (fd < 0)
		return fd;
	c->metrics = serve(fd, SCRAPERS_MAX, on_scrape, c);
	close(fd);
	return c->metrics
		       ? 0
		       : err_set(err, -EIO, "[daemon] metrics_listen = %s: no HTTP server", where);
}

int control_start(int listen_fd, const char *metrics_listen, struct exports *x, struct tuner *tuner,
		  int supervisor_fd, const char *nbd_socket, struct control **out, struct err *err)
{
	struct control *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	pthread_mutex_init(&c->api.lock, NULL);
	c->api.exports = x;
	c->api.tuner = tuner;
	c->api.supervisor_fd = supervisor_fd;
	snprintf(c->api.nbd_socket, sizeof(c->api.nbd_socket), "%s", nbd_socket);
	rc = metrics_start(c, metrics_listen, err);
	if (!rc) {
		c->local = serve(listen_fd, CONNECTIONS_MAX, on_request, c);
		if (!c->local)
			rc = err_set(err, -EIO, "the control socket: no HTTP server");
	}
	if (rc) {
		control_stop(c);
		return rc;
	}
	*out = c;
	return 0;
}

void control_stop(struct control *c)
{
	if (!c)
		return;
	if (c->local)
		MHD_stop_daemon(c->local);
	if (c->metrics)
		MHD_stop_daemon(c->metrics);
	pthread_mutex_destroy(&c->api.lock);
	free(c);
}
