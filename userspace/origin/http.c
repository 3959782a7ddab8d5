/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"

#define BACKOFF_BASE_MS	 800
#define BACKOFF_MAX_MS	 20000
#define HEADER_BYTES_MAX (64 << 10)
#define ERROR_BYTES_MAX	 (64 << 10) /* of an error's body, before the connection is dropped */
#define BUFFER_BYTES	 (512L << 10)
#define SPARE_MAX	 64
#define AGAIN		 1 /* verdict: try again */

enum state { IDLE, QUEUED, ACTIVE, WAITING, FINISHED };
enum sink { SINK_RANGE, SINK_WHOLE, SINK_ERROR };

#define owner_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

TAILQ_HEAD(request_list, http_request);

/* A descriptor of libcurl's that the loop watches. */
struct http_socket {
	struct http_client *client;
	struct loop_watch *watch;
	int fd;
	uint32_t events;
};

struct http_client {
	struct loop *loop;
	struct http_options opt;
	CURLM *multi;
	struct loop_timer timer; /* libcurl's */
	struct loop_post post;	 /* drains what finished outside an event */
	bool posted;
	uint32_t depth; /* inside an event of ours: finished requests are drained at its end */
	struct request_list queued, finished;
	uint32_t active;
	uint32_t backoff_base_ms, backoff_max_ms;
	uint64_t random;
	CURL *spare[SPARE_MAX];
	uint32_t nspare;
};

static void pump(struct http_client *c);
static void on_request_timer(struct loop_timer *t);

static uint32_t next_random(struct http_client *c)
{
	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return (uint32_t)(c->random >> 16);
}

/* --- finishing ------------------------------------------------------------------------------ */

static void count_error(int rc)
{
	switch (rc) { /* answers that callers ask for on purpose are none */
	case 0:
	case -ECANCELED:
	case -EALREADY:
	case -EEXIST:
	case -ENOENT:
		return;
	}
	origin_counters.errors++;
}

static void finish(struct http_request *r, int rc)
{
	struct http_client *c = r->client;

	loop_timer_cancel(c->loop, &r->timer);
	if (rc) {
		free(r->buf);
		r->buf = NULL;
		r->buf_len = 0;
	}
	count_error(rc);
	r->state = FINISHED;
	r->rc = rc;
	TAILQ_INSERT_TAIL(&c->finished, r, link);
	if (!c->depth && !c->posted) {
		c->posted = true;
		loop_post(c->loop, &c->post);
	}
}

static void drain(struct http_client *c)
{
	struct http_request *r;

	while ((r = TAILQ_FIRST(&c->finished))) {
		TAILQ_REMOVE(&c->finished, r, link);
		r->state = IDLE;
		r->done(r, r->rc);
	}
}

static void event_begin(struct http_client *c)
{
	c->depth++;
}

/* done() runs outside of the event, so that what it cancels or fails to start is posted. */
static void event_end(struct http_client *c)
{
	c->depth--;
	pump(c);
	drain(c);
}

static void on_post(struct loop_post *p)
{
	struct http_client *c = owner_of(p, struct http_client, post);

	c->posted = false;
	event_begin(c);
	event_end(c);
}

static void give_up(struct http_request *r)
{
	char why[sizeof(r->cause)];
	double s = (double)(clock_now_ns() - r->start_ns) / 1e9;

	snprintf(why, sizeof(why), "%.200s", *r->cause ? r->cause : "no answer");
	if (r->attempts)
		snprintf(r->cause, sizeof(r->cause), "gave up after %u attempt%s in %.1f s: %.200s",
			 r->attempts, r->attempts == 1 ? "" : "s", s, why);
	else
		snprintf(r->cause, sizeof(r->cause), "no connection was free for %.1f s", s);
	finish(r, -ETIMEDOUT);
}

/* --- receiving ------------------------------------------------------------------------------ */

static int fail_attempt(struct http_request *r, int rc)
{
	r->fatal = rc;
	return rc;
}

/* The blob must still be the one that was asked for, and the one that an earlier attempt began. */
static int check_etag(struct http_request *r)
{
	const char *etag = r->answer.etag;

	if (!*etag)
		return 0;
	if ((r->if_match && *r->if_match && !http_etag_equal(r->if_match, etag)) ||
	    (r->got && *r->first_etag && !http_etag_equal(r->first_etag, etag))) {
		snprintf(r->cause, sizeof(r->cause), "the blob's ETag is now %s", etag);
		return -ESTALE;
	}
	if (!r->got)
		strcpy(r->first_etag, etag);
	return 0;
}

/* At the first byte of a body, or at its end when it has none: where do the bytes go? */
static int begin_body(struct http_request *r)
{
	const struct http_answer *a = &r->answer;
	int rc;

	r->begun = true;
	r->sink = SINK_ERROR;
	if (a->status >= 300 || a->status < 200 || r->method != HTTP_GET)
		return 0;
	rc = check_etag(r);
	if (rc)
		return fail_attempt(r, rc);
	if (r->range_header) {
		r->sink = SINK_RANGE;
		rc = http_answer_check_range(a, r->off, r->len, r->got, &r->skip, r->cause, sizeof(r->cause));
		return rc ? fail_attempt(r, rc) : 0;
	}
	r->sink = SINK_WHOLE;
	if (a->status != 200) {
		snprintf(r->cause, sizeof(r->cause), "unexpected answer %d", a->status);
		return fail_attempt(r, -EIO);
	}
	if (a->length >= 0 && (uint64_t)a->length > r->limit) {
		snprintf(r->cause, sizeof(r->cause), "it has %lld bytes, more than the %zu expected at most",
			 (long long)a->length, r->limit);
		return fail_attempt(r, -EFBIG);
	}
	return 0;
}

static int take_range(struct http_request *r, const char *p, size_t n)
{
	size_t skip = r->skip < n ? r->skip : n;

	r->skip -= (uint32_t)skip;
	p += skip;
	n -= skip;
	if (n > r->len - r->got) {
		snprintf(r->cause, sizeof(r->cause), "the server sent more than the %u bytes asked for", r->len);
		return fail_attempt(r, -EIO);
	}
	if (!n)
		return 0;
	memcpy(r->dst + r->got, p, n);
	r->got += (uint32_t)n;
	if (r->progress)
		r->progress(r, r->got);
	return 0;
}

static int take_whole(struct http_request *r, const char *p, size_t n)
{
	if (n > r->limit - r->buf_len) {
		snprintf(r->cause, sizeof(r->cause), "it has more than the %zu bytes expected at most", r->limit);
		return fail_attempt(r, -EFBIG);
	}
	if (r->buf_len + n + 1 > r->cap) {
		size_t want = r->answer.length >= 0 ? (size_t)r->answer.length + 1 : r->cap * 2;
		size_t cap = want > r->buf_len + n + 1 ? want : r->buf_len + n + 1;
		char *buf = realloc(r->buf, cap);

		if (!buf)
			return fail_attempt(r, -ENOMEM);
		r->buf = buf;
		r->cap = cap;
	}
	memcpy(r->buf + r->buf_len, p, n);
	r->buf_len += n;
	return 0;
}

static int take_error(struct http_request *r, const char *p, size_t n)
{
	struct http_answer *a = &r->answer;
	size_t room = sizeof(a->body) - 1 - a->body_len;
	size_t m = n < room ? n : room;

	memcpy(a->body + a->body_len, p, m);
	a->body_len += m;
	a->body[a->body_len] = 0;
	r->error_bytes += n;
	return r->error_bytes > ERROR_BYTES_MAX ? -EMSGSIZE : 0; /* the status says enough */
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct http_request *r = arg;
	int rc = 0;

	n *= size;
	r->last_ns = clock_now_ns();
	if (!r->begun)
		rc = begin_body(r);
	if (rc)
		return n + 1; /* libcurl ends the transfer when told another number */
	if (r->sink == SINK_ERROR)
		rc = take_error(r, p, n);
	else
		rc = r->sink == SINK_RANGE ? take_range(r, p, n) : take_whole(r, p, n);
	if (r->sink != SINK_ERROR)
		origin_counters.get_bytes += n;
	return rc ? n + 1 : n;
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
	struct http_request *r = arg;

	n *= size;
	r->last_ns = clock_now_ns();
	r->header_bytes += n;
	if (r->header_bytes > HEADER_BYTES_MAX) {
		snprintf(r->cause, sizeof(r->cause), "the answer's headers are over %d bytes", HEADER_BYTES_MAX);
		fail_attempt(r, -EIO);
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
	origin_counters.put_bytes += n;
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

/* --- one attempt ---------------------------------------------------------------------------- */

int http_request_header(struct http_request *r, const char *fmt, ...)
{
	struct curl_slist *list;
	char line[2048];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(line))
		return -EINVAL;
	for (const char *p = line; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return -EINVAL;
	list = curl_slist_append(r->headers, line);
	if (!list)
		return -ENOMEM;
	r->headers = list;
	return 0;
}

/* What this attempt asks for: the rest of the range, of the same blob. */
static int add_headers(struct http_request *r)
{
	int rc = 0;

	*r->range = *r->match = 0;
	if (r->range_header)
		snprintf(r->range, sizeof(r->range), "bytes=%llu-%llu", (unsigned long long)(r->off + r->got),
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
	if (!rc && r->method == HTTP_PUT)
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
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, BUFFER_BYTES);
	curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_BYTES);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)c->opt.connect_timeout_ms);
	curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, tls ? "https" : "http,https");
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, r->max_redirects ? 1L : 0L);
	curl_easy_setopt(e, CURLOPT_MAXREDIRS, (long)r->max_redirects);
	curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "cairn/" CAIRN_VERSION);
	if (is_loopback(r->url)) /* a proxy's loopback is not ours */
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
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, r->error);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, r->headers);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, r);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, r);
	if (r->method == HTTP_HEAD)
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	if (r->method != HTTP_PUT)
		return;
	curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->body_len);
	curl_easy_setopt(e, CURLOPT_READFUNCTION, on_upload);
	curl_easy_setopt(e, CURLOPT_READDATA, r);
	curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_rewind);
	curl_easy_setopt(e, CURLOPT_SEEKDATA, r);
}

static uint64_t stall_ns(const struct http_request *r)
{
	uint32_t ms = r->stall_timeout_ms ? r->stall_timeout_ms : r->client->opt.stall_timeout_ms;

	return ms * NSEC_PER_MSEC;
}

static void arm(struct http_request *r)
{
	uint64_t at = r->deadline_ns;

	if (r->state == WAITING && r->retry_ns < at)
		at = r->retry_ns;
	if (r->state == ACTIVE && r->last_ns + stall_ns(r) < at)
		at = r->last_ns + stall_ns(r);
	if (at == UINT64_MAX)
		loop_timer_cancel(r->client->loop, &r->timer);
	else
		loop_timer_set(r->client->loop, &r->timer, at);
}

static void count_attempt(const struct http_request *r)
{
	if (r->method == HTTP_PUT)
		origin_counters.put_requests++;
	else if (r->method == HTTP_HEAD)
		origin_counters.head_requests++;
	else
		origin_counters.get_requests++;
}

/* Give the attempt's handle and headers back; a transfer under way is cut. */
static void detach(struct http_request *r)
{
	struct http_client *c = r->client;

	curl_slist_free_all(r->headers);
	r->headers = NULL;
	if (!r->easy)
		return;
	if (r->state == ACTIVE) {
		curl_multi_remove_handle(c->multi, r->easy);
		c->active--;
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
	r->begun = r->no_host = r->untrusted = false;
	r->fatal = 0;
	r->sent = r->buf_len = r->header_bytes = r->error_bytes = 0;
	r->skip = 0;
	r->got_before = r->got;
	*r->error = 0;
}

static int start(struct http_client *c, struct http_request *r)
{
	int rc;

	begin_attempt(r);
	r->easy = c->nspare ? c->spare[--c->nspare] : curl_easy_init();
	if (!r->easy)
		return -ENOMEM;
	rc = add_headers(r);
	if (rc) {
		snprintf(r->cause, sizeof(r->cause), "the request could not be made (%s)", strerror(-rc));
		return rc;
	}
	set_transport(r->easy, c, r);
	set_transfer(r->easy, r);
	if (curl_multi_add_handle(c->multi, r->easy) != CURLM_OK)
		return -ENOMEM;
	r->attempts++;
	count_attempt(r);
	c->active++;
	r->state = ACTIVE;
	r->last_ns = clock_now_ns();
	arm(r);
	return 0;
}

static void pump(struct http_client *c)
{
	struct http_request *r;
	int rc;

	while (c->active < c->opt.connections && (r = TAILQ_FIRST(&c->queued))) {
		TAILQ_REMOVE(&c->queued, r, link);
		rc = start(c, r);
		if (rc) {
			detach(r);
			finish(r, rc);
		}
	}
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
		snprintf(r->cause, sizeof(r->cause), "the body ended after %u of %u bytes: %.200s", r->got,
			 r->len, text);
	else
		snprintf(r->cause, sizeof(r->cause), "%.250s", text);
	if (code == CURLE_COULDNT_CONNECT && r->os_errno)
		snprintf(r->cause, sizeof(r->cause), "%.200s (%.60s)", text, strerror(r->os_errno));
	r->no_host = code == CURLE_COULDNT_RESOLVE_HOST;
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

	snprintf(r->cause, sizeof(r->cause), "HTTP %d%s%s", a->status, *a->error_code ? " " : "", a->error_code);
	if (a->retry_after_ms)
		snprintf(r->cause + strlen(r->cause), 40, ", asks to wait %u s", a->retry_after_ms / 1000);
	return http_status_is_transient(a->status) ? AGAIN : http_status_errno(a->status);
}

/* 0, AGAIN, or the error that ends the request; then with r->cause. */
static int verdict(struct http_request *r, CURLcode code)
{
	if (r->fatal)
		return r->fatal;
	if (r->answer.status >= 300 && (code == CURLE_OK || r->method != HTTP_GET || r->begun))
		return status_verdict(r);
	if (r->answer.status >= 200 && r->method != HTTP_GET && code != CURLE_SEND_ERROR)
		return 0;
	if (r->begun && r->range_header && r->got == r->len)
		return 0;
	if (code != CURLE_OK)
		return transport_verdict(r, code);
	if (!r->begun && begin_body(r))
		return r->fatal;
	if (!r->range_header)
		return 0;
	snprintf(r->cause, sizeof(r->cause), "the body ended after %u of %u bytes", r->got, r->len);
	return AGAIN;
}

/* The NUL after a whole blob, also after one of no bytes. */
static int seal_buffer(struct http_request *r)
{
	if (r->method != HTTP_GET || r->range_header)
		return 0;
	if (!r->buf)
		r->buf = malloc(1);
	if (!r->buf)
		return -ENOMEM;
	r->buf[r->buf_len] = 0;
	return 0;
}

static void retry(struct http_request *r)
{
	struct http_client *c = r->client;
	uint64_t now = clock_now_ns(), left = r->deadline_ns > now ? r->deadline_ns - now : 0;
	uint64_t least = c->backoff_base_ms * NSEC_PER_MSEC, delay, asked;

	if (r->got > r->got_before)
		r->failures = 0;
	delay = NSEC_PER_MSEC * http_backoff_ms(c->backoff_base_ms, c->backoff_max_ms, r->failures++,
						next_random(c));
	asked = r->answer.retry_after_ms * NSEC_PER_MSEC;
	if (delay >= left && left > least) /* one more attempt fits before the deadline */
		delay = left / 2;
	if (asked > delay)
		delay = asked;
	if (delay >= left) {
		give_up(r);
		return;
	}
	origin_counters.retries++;
	log_debug("origin", "trying again", "attempt=%u wait_ms=%llu cause=\"%s\"", r->attempts + 1,
		  (unsigned long long)(delay / NSEC_PER_MSEC), r->cause);
	r->state = WAITING;
	r->retry_ns = now + delay;
	arm(r);
}

static void end_attempt(struct http_request *r, int rc)
{
	detach(r);
	if (!rc)
		rc = seal_buffer(r);
	if (rc == AGAIN)
		retry(r);
	else
		finish(r, rc);
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
		r->os_errno = (int)os_errno;
		end_attempt(r, verdict(r, code));
	}
}

static void on_request_timer(struct loop_timer *t)
{
	struct http_request *r = owner_of(t, struct http_request, timer);
	struct http_client *c = r->client;
	uint64_t now = clock_now_ns();

	event_begin(c);
	if (now >= r->deadline_ns) {
		if (r->state == QUEUED)
			TAILQ_REMOVE(&c->queued, r, link);
		if (r->state == ACTIVE && !*r->cause)
			snprintf(r->cause, sizeof(r->cause), "no whole answer before the deadline");
		detach(r);
		give_up(r);
	} else if (r->state == WAITING && now >= r->retry_ns) {
		r->state = QUEUED; /* ahead of the younger */
		TAILQ_INSERT_HEAD(&c->queued, r, link);
		arm(r);
	} else if (r->state == ACTIVE && now >= r->last_ns + stall_ns(r)) {
		snprintf(r->cause, sizeof(r->cause), "no byte for %.1f s", (double)stall_ns(r) / 1e9);
		r->answer.retry_after_ms = 0;
		end_attempt(r, AGAIN);
	} else {
		arm(r);
	}
	event_end(c);
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
	event_begin(c);
	curl_multi_socket_action(c->multi, s->fd, mask, &running); /* may free s */
	reap(c);
	event_end(c);
}

static void on_curl_timer(struct loop_timer *t)
{
	struct http_client *c = owner_of(t, struct http_client, timer);
	int running;

	event_begin(c);
	curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	reap(c);
	event_end(c);
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
	uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);

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
	c->timer.fn = on_curl_timer;
	c->post.fn = on_post;
	c->backoff_base_ms = BACKOFF_BASE_MS;
	c->backoff_max_ms = BACKOFF_MAX_MS;
	if (getrandom(&c->random, sizeof(c->random), GRND_NONBLOCK) < 0 || !c->random)
		c->random = clock_now_ns() | 1;
	TAILQ_INIT(&c->queued);
	TAILQ_INIT(&c->finished);
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

void http_client_set_backoff(struct http_client *c, uint32_t base_ms, uint32_t max_ms)
{
	c->backoff_base_ms = base_ms;
	c->backoff_max_ms = max_ms;
}

void http_submit(struct http_client *c, struct http_request *r)
{
	r->client = c;
	r->easy = r->headers = NULL;
	r->buf = NULL;
	r->buf_len = r->cap = 0;
	r->got = r->failures = r->attempts = 0;
	r->fatal = r->rc = 0;
	*r->cause = *r->first_etag = 0;
	memset(&r->timer, 0, sizeof(r->timer));
	r->timer.fn = on_request_timer;
	r->start_ns = clock_now_ns();
	if (!r->deadline_ns)
		r->deadline_ns = UINT64_MAX;
	http_answer_reset(&r->answer);
	r->state = QUEUED;
	TAILQ_INSERT_TAIL(&c->queued, r, link);
	arm(r);
	pump(c);
}

void http_cancel(struct http_request *r)
{
	switch (r->state) {
	case FINISHED: /* done() is due: it says so instead */
		TAILQ_REMOVE(&r->client->finished, r, link);
		break;
	case QUEUED:
		TAILQ_REMOVE(&r->client->queued, r, link);
		break;
	case ACTIVE:
	case WAITING:
		break;
	default:
		return;
	}
	detach(r);
	snprintf(r->cause, sizeof(r->cause), "canceled");
	finish(r, -ECANCELED);
	pump(r->client);
}
