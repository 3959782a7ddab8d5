/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/http_impl.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>

#include "base/clock.h"

#define HEADER_BYTES_MAX (64 << 10)
#define RECEIVE_BYTES	 (128L << 10) /* for each connection; more gained nothing */
#define SEND_BYTES	 (512L << 10)

/* A descriptor of libcurl's that the loop watches. */
struct http_socket {
	struct http_client *client;
	struct loop_watch *watch;
	int fd;
	uint32_t events;
};

/* --- libcurl calls back ---------------------------------------------------------------------- */

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct http_request *r = arg;

	n *= size;
	r->last_ns = clock_now_ns();
	return http_body_take(r, p, n) ? n + 1 : n; /* another number ends the transfer */
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
	struct http_request *r = arg;

	n *= size;
	r->last_ns = clock_now_ns();
	r->header_bytes += n;
	if (r->header_bytes > HEADER_BYTES_MAX) {
		snprintf(r->cause, sizeof(r->cause), "the answer's headers are over %d bytes",
			 HEADER_BYTES_MAX);
		r->fatal = -EIO;
		return n + 1;
	}
	http_answer_header(&r->answer, p, n, time(NULL));
	return n;
}

static size_t on_upload(char *p, size_t size, size_t n, void *arg)
{
	struct http_request *r = arg;
	size_t left = r->body_len - r->sent;

	n *= size;
	if (n > left)
		n = left;
	r->last_ns = clock_now_ns();
	if (n)
		memcpy(p, (const char *)r->body + r->sent, n);
	r->sent += n;
	r->client->counters->put_bytes += n;
	return n;
}

static int on_rewind(void *arg, curl_off_t off, int origin)
{
	struct http_request *r = arg;

	if (origin != SEEK_SET || off < 0 || (size_t)off > r->body_len)
		return CURL_SEEKFUNC_CANTSEEK;
	r->sent = (size_t)off;
	return CURL_SEEKFUNC_OK;
}

static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct http_request *r = arg;
	int fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);

	(void)purpose;
	r->socket_errno = fd < 0 ? errno : 0;
	return fd; /* -1 is CURL_SOCKET_BAD, of which libcurl does not tell why */
}

/* --- one attempt ---------------------------------------------------------------------------- */

int http_request_header(struct http_request *r, const char *fmt, ...)
{
	struct curl_slist *list = NULL;
	bool bad = false;
	char *line;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&line, fmt, ap);
	va_end(ap);
	if (n < 0)
		return -ENOMEM;
	for (const char *p = line; *p; p++)
		bad |= (unsigned char)*p < 0x20 || *p == 0x7f;
	if (!bad)
		list = curl_slist_append(r->headers, line);
	explicit_bzero(line, (size_t)n); /* it may be a credential */
	free(line);
	if (!list)
		return bad ? -EINVAL : -ENOMEM;
	r->headers = list;
	return 0;
}

/* What this attempt asks for: the rest of the range, of the same blob. */
static int add_headers(struct http_request *r)
{
	int rc = 0;

	*r->range = *r->match = 0;
	if (r->range_header)
		snprintf(r->range, sizeof(r->range), "bytes=%llu-%llu",
			 (unsigned long long)(r->off + r->got),
			 (unsigned long long)(r->off + r->len - 1));
	if (r->if_match && strlen(r->if_match) >= sizeof(r->match))
		return -EINVAL;
	if (http_etag_is_strong(r->if_match))
		strcpy(r->match, r->if_match);
	else if (r->got && http_etag_is_strong(r->first_etag))
		strcpy(r->match, r->first_etag);
	if (r->prepare)
		rc = r->prepare(r);
	if (!rc && *r->range)
		rc = http_request_header(r, "%s: %s", r->range_header, r->range);
	if (!rc && *r->match)
		rc = http_request_header(r, "If-Match: %s", r->match);
	if (!rc && r->if_none_match && *r->if_none_match)
		rc = http_request_header(r, "If-None-Match: %s", r->if_none_match);
	if (!rc && r->body_len)
		rc = http_request_header(r, "Expect:"); /* no round trip before the body */
	return rc;
}

static bool is_loopback(const char *url)
{
	const char *host = strstr(url, "://");

	host = host ? host + 3 : url;
	return strncmp(host, "127.", 4) == 0 || strncasecmp(host, "localhost", 9) == 0 ||
	       strncmp(host, "[::1]", 5) == 0;
}

static void set_transport(CURL *e, struct http_client *c, struct http_request *r)
{
	bool tls = strncasecmp(r->url, "https:", 6) == 0;

	curl_easy_setopt(e, CURLOPT_URL, r->url);
	curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
	curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, SEND_BYTES);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)c->opt.connect_timeout_ms);
	curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, tls ? "https" : "http,https");
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, r->max_redirects ? 1L : 0L);
	curl_easy_setopt(e, CURLOPT_MAXREDIRS, (long)r->max_redirects);
	curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "cairn/" CAIRN_VERSION);
	if (c->opt.no_proxy || is_loopback(r->url)) /* a proxy's loopback is not ours */
		curl_easy_setopt(e, CURLOPT_PROXY, "");
	if (r->userpwd && *r->userpwd)
		curl_easy_setopt(e, CURLOPT_USERPWD, r->userpwd);
	if (c->opt.ca_file && *c->opt.ca_file) { /* beside the system's directory of certificates */
		curl_easy_setopt(e, CURLOPT_CAINFO, c->opt.ca_file);
		curl_easy_setopt(e, CURLOPT_CAPATH, "/etc/ssl/certs");
	}
}

static void set_transfer(CURL *e, struct http_request *r)
{
	curl_easy_setopt(e, CURLOPT_PRIVATE, r);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_socket);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, r);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, r->error);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, r->headers);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, r);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, r);
	if (r->method == HTTP_HEAD)
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	if (r->method == HTTP_POST) {
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len);
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, r->body);
	}
	if (r->method != HTTP_PUT)
		return;
	curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->body_len);
	curl_easy_setopt(e, CURLOPT_READFUNCTION, on_upload);
	curl_easy_setopt(e, CURLOPT_READDATA, r);
	curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_rewind);
	curl_easy_setopt(e, CURLOPT_SEEKDATA, r);
}

static void count_attempt(struct origin_counters *n, const struct http_request *r)
{
	if (r->method == HTTP_PUT)
		n->put_requests++;
	else if (r->method == HTTP_HEAD)
		n->head_requests++;
	else
		n->get_requests++;
}

/* Give the attempt's handle and headers back; a transfer under way is cut. */
void http_attempt_detach(struct http_request *r)
{
	struct http_client *c = r->client;

	curl_slist_free_all(r->headers);
	r->headers = NULL;
	if (!r->easy)
		return;
	if (r->state == ACTIVE) {
		curl_multi_remove_handle(c->multi, r->easy);
		c->active--;
		if (r->window)
			r->window->active--;
		http_flow_of(r)->active--;
	}
	curl_easy_reset(r->easy);
	if (c->nspare < SPARE_MAX)
		c->spare[c->nspare++] = r->easy;
	else
		curl_easy_cleanup(r->easy);
	r->easy = NULL;
}

static void begin_attempt(struct http_request *r)
{
	http_answer_reset(&r->answer);
	r->begun = r->no_host = r->untrusted = r->unconnected = false;
	r->fatal = r->socket_errno = 0;
	r->sent = r->buf_len = r->header_bytes = r->error_bytes = 0;
	r->skip = 0;
	r->got_before = r->got;
	*r->error = 0;
}

int http_attempt_start(struct http_client *c, struct http_request *r)
{
	int rc;

	begin_attempt(r);
	r->easy = c->nspare ? c->spare[--c->nspare] : curl_easy_init();
	if (!r->easy)
		return -ENOMEM;
	rc = add_headers(r);
	if (rc == HTTP_PARK)
		return rc;
	if (rc) {
		snprintf(r->cause, sizeof(r->cause), "the request could not be made (%s)",
			 strerror(-rc));
		return rc;
	}
	set_transport(r->easy, c, r);
	set_transfer(r->easy, r);
	if (curl_multi_add_handle(c->multi, r->easy) != CURLM_OK)
		return -ENOMEM;
	r->attempts++;
	count_attempt(c->counters, r);
	c->active++;
	if (r->window)
		r->window->active++;
	http_flow_of(r)->active++;
	r->state = ACTIVE;
	r->tried_ns = r->last_ns = clock_now_ns();
	http_arm(r);
	return 0;
}

/* --- the end of an attempt ------------------------------------------------------------------ */

static bool is_transient(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
	case CURLE_PARTIAL_FILE:
	case CURLE_OPERATION_TIMEDOUT:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_AGAIN:
		return true;
	default:
		return false;
	}
}

static int transport_verdict(struct http_request *r, CURLcode code)
{
	const char *text = *r->error ? r->error : curl_easy_strerror(code);

	if (r->range_header && r->begun && is_transient(code))
		snprintf(r->cause, sizeof(r->cause), "the body ended after %u of %u bytes: %.200s",
			 r->got, r->len, text);
	else
		snprintf(r->cause, sizeof(r->cause), "%.250s", text);
	if (code == CURLE_COULDNT_CONNECT && r->os_errno)
		snprintf(r->cause, sizeof(r->cause), "%.200s (%.60s)", text, strerror(r->os_errno));
	r->no_host = code == CURLE_COULDNT_RESOLVE_HOST;
	/* the only time limit that libcurl has from us is the one to connect */
	r->unconnected = r->no_host || code == CURLE_COULDNT_CONNECT ||
			 code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_OPERATION_TIMEDOUT;
	if (is_transient(code))
		return AGAIN;
	if (code == CURLE_OUT_OF_MEMORY)
		return -ENOMEM;
	r->untrusted = code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE;
	return -EIO;
}

static int status_verdict(struct http_request *r)
{
	const struct http_answer *a = &r->answer;

	snprintf(r->cause, sizeof(r->cause), "HTTP %d%s%s", a->status, *a->error_code ? " " : "",
		 a->error_code);
	if (a->retry_after_ms)
		snprintf(r->cause + strlen(r->cause), 40, ", asks to wait %u s",
			 a->retry_after_ms / 1000);
	return http_status_is_transient(a->status) ? AGAIN : http_status_errno(a->status);
}

/* 0, AGAIN, or the error that ends the request; then with r->cause. */
static int verdict(struct http_request *r, CURLcode code)
{
	if (r->fatal)
		return r->fatal;
	if (r->answer.status >= 300 && (code == CURLE_OK || !http_wants_body(r) || r->begun))
		return status_verdict(r);
	if (r->answer.status >= 200 && !http_wants_body(r) && code != CURLE_SEND_ERROR)
		return 0;
	if (r->begun && r->range_header && r->got == r->len)
		return 0;
	if (code != CURLE_OK)
		return transport_verdict(r, code);
	if (!r->begun && http_body_begin(r))
		return r->fatal;
	if (!r->range_header)
		return 0;
	snprintf(r->cause, sizeof(r->cause), "the body ended after %u of %u bytes", r->got, r->len);
	return AGAIN;
}

static void reap(struct http_client *c)
{
	struct http_request *r;
	CURLMsg *m;
	long os_errno;
	int left;

	while ((m = curl_multi_info_read(c->multi, &left))) {
		CURLcode code = m->data.result;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&r);
		curl_easy_getinfo(m->easy_handle, CURLINFO_OS_ERRNO, &os_errno);
		r->os_errno = r->socket_errno ? r->socket_errno : (int)os_errno;
		http_attempt_end(r, verdict(r, code));
	}
}

/* --- libcurl on the loop -------------------------------------------------------------------- */

static void on_ready(void *arg, uint32_t events)
{
	struct http_socket *s = arg;
	struct http_client *c = s->client;
	int mask = 0, running;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP | EPOLLERR))
		mask |= CURL_CSELECT_IN; /* reading finds out what is wrong */
	if ((events & EPOLLOUT) || ((events & (EPOLLHUP | EPOLLERR)) && (s->events & EPOLLOUT)))
		mask |= CURL_CSELECT_OUT;
	http_event_begin(c);
	curl_multi_socket_action(c->multi, s->fd, mask, &running); /* may free s */
	reap(c);
	http_event_end(c);
}

static void on_curl_timer(struct loop_timer *t)
{
	struct http_client *c = owner_of(t, struct http_client, timer);
	int running;

	http_event_begin(c);
	curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	reap(c);
	http_event_end(c);
}

static int on_curl_wants_timer(CURLM *multi, long ms, void *arg)
{
	struct http_client *c = arg;

	(void)multi;
	if (ms < 0)
		loop_timer_cancel(c->loop, &c->timer);
	else
		loop_timer_set(c->loop, &c->timer, clock_now_ns() + (uint64_t)ms * NSEC_PER_MSEC);
	return 0;
}

static int on_curl_wants_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned)
{
	struct http_client *c = arg;
	struct http_socket *s = assigned;
	uint32_t events =
		(what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (s)
			loop_unwatch(c->loop, s->watch);
		curl_multi_assign(c->multi, fd, NULL);
		free(s);
		return 0;
	}
	if (s) {
		s->events = events;
		loop_rewatch(c->loop, s->watch, events);
		return 0;
	}
	s = malloc(sizeof(*s));
	if (!s)
		return -1;
	*s = (struct http_socket){c, NULL, fd, events};
	s->watch = loop_watch(c->loop, fd, events, on_ready, s);
	if (!s->watch) {
		free(s);
		return -1;
	}
	curl_multi_assign(c->multi, fd, s);
	return 0;
}

/* --- the client ----------------------------------------------------------------------------- */

static void init_curl(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

struct http_client *http_client_new(struct loop *l, const struct http_options *opt, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct http_client *c;

	pthread_once(&once, init_curl);
	c = calloc(1, sizeof(*c));
	if (c)
		c->multi = curl_multi_init();
	if (!c || !c->multi) {
		free(c);
		err_set(err, -ENOMEM, "no memory for an HTTP client");
		return NULL;
	}
	c->loop = l;
	c->opt = *opt;
	c->counters = opt->counters ? opt->counters : &origin_counters;
	c->timer.fn = on_curl_timer;
	http_queue_init(c);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_curl_wants_socket);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_curl_wants_timer);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)opt->connections);
	return c;
}

void http_client_free(struct http_client *c)
{
	if (!c)
		return;
	while (c->posted) /* a post that an event overtook */
		loop_run_once(c->loop, 0);
	while (c->nspare)
		curl_easy_cleanup(c->spare[--c->nspare]);
	curl_multi_cleanup(c->multi);
	loop_timer_cancel(c->loop, &c->timer);
	free(c);
}
