/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/token.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define MARGIN_S	 300
#define RETRY_MIN_NS	 (1 * NSEC_PER_SEC)
#define RETRY_MAX_NS	 (60 * NSEC_PER_SEC)
#define REFUSED_PAUSE_NS (30 * NSEC_PER_SEC) /* between fetches because Blob refused a token */

struct token_source {
	struct identity id;
	struct identity_limits limits;
	bool have_limits;
	pthread_mutex_t lock;
	pthread_cond_t wanted_cond;
	pthread_t thread;
	_Atomic bool stop;
	TAILQ_HEAD(token_waiters, token_waiter) waiters;

	/* under the lock */
	bool started, wanted, fetching;
	struct token token; /* generation 0 = there was none yet */
	uint64_t renew_ns, end_ns;
	uint64_t retry_ns, failures; /* no fetch before; failed in a row */
	uint64_t refused_ns;	     /* none because of a refusal before */
	struct err failure;
	char whose[2 * TOKEN_ID_MAX + 32];

	/* of the registry */
	struct token_source *next;
	char *client_id;
};

uint32_t token_renewal_margin(uint32_t life_s, uint32_t renew_s)
{
	if (renew_s && renew_s < life_s)
		return life_s - renew_s;
	return life_s / 2 < MARGIN_S ? life_s / 2 : MARGIN_S;
}

/* --- the thread that fetches ---------------------------------------------------------------- */

static void keep(struct token_source *s, const struct token_answer *a, enum identity_kind step)
{
	uint32_t margin = token_renewal_margin(a->life_s, a->renew_s);
	uint64_t now = clock_now_ns();

	strcpy(s->token.text, a->token);
	s->token.generation++;
	/* a life of one second is half a second from due */
	s->end_ns = now + a->life_s * NSEC_PER_SEC;
	s->renew_ns = s->end_ns - (margin ? margin * NSEC_PER_SEC : NSEC_PER_SEC / 2);
	s->retry_ns = s->failures = 0;
	*s->failure.text = 0;
	snprintf(s->whose, sizeof(s->whose), "%s%s%s%s%s", *a->client ? "client id " : "",
		 a->client, *a->client && *a->object ? ", " : "", *a->object ? "object id " : "",
		 a->object);
	log_info("origin", "token fetched", "identity=%s whose=\"%s\" life_s=%u renew_in_s=%u",
		 identity_kind_name(step), s->whose, a->life_s, a->life_s - margin);
}

static void keep_failure(struct token_source *s, const struct err *why)
{
	uint64_t pause = RETRY_MIN_NS << (s->failures < 6 ? s->failures : 6);

	s->failures++;
	s->retry_ns = clock_now_ns() + (pause < RETRY_MAX_NS ? pause : RETRY_MAX_NS);
	s->failure = *why;
	log_line(s->token.generation ? LOG_WARN_ : LOG_DEBUG_, /* the first is told to who asked */
		 "origin", "no token", "old_serves=%s why=\"%s\"",
		 clock_now_ns() < s->end_ns ? "yes" : "no", why->text);
}

static void on_post(struct loop_post *p)
{
	struct token_waiter *w =
		(struct token_waiter *)((char *)p - offsetof(struct token_waiter, post));

	pthread_mutex_lock(&w->source->lock);
	w->posted = false;
	pthread_mutex_unlock(&w->source->lock);
	w->wake(w);
}

static void wake_all(struct token_source *s)
{
	struct token_waiter *w;

	while ((w = TAILQ_FIRST(&s->waiters))) {
		TAILQ_REMOVE(&s->waiters, w, link);
		w->listed = false;
		w->posted = true;
		loop_post(w->loop, &w->post);
	}
}

/* With the lock held. Those who still wait at the end of the back-off are a reason to fetch. */
static bool is_due(const struct token_source *s)
{
	return (s->wanted || !TAILQ_EMPTY(&s->waiters)) && clock_now_ns() >= s->retry_ns;
}

static void sleep_until_due(struct token_source *s)
{
	struct timespec at = {.tv_sec = (time_t)(s->retry_ns / NSEC_PER_SEC),
			      .tv_nsec = (long)(s->retry_ns % NSEC_PER_SEC)};

	if (TAILQ_EMPTY(&s->waiters) && !s->wanted)
		pthread_cond_wait(&s->wanted_cond, &s->lock);
	else
		pthread_cond_timedwait(&s->wanted_cond, &s->lock, &at);
}

static void *source_main(void *arg)
{
	struct token_source *s = arg;
	struct token_answer *answer = calloc(1, sizeof(*answer));
	enum identity_kind step = IDENTITY_AUTO;

	pthread_setname_np(pthread_self(), "token");
	pthread_mutex_lock(&s->lock);
	while (answer && !s->stop) {
		struct err why = {0};
		int rc;

		if (!is_due(s)) {
			sleep_until_due(s);
			continue;
		}
		s->wanted = false;
		s->fetching = true;
		pthread_mutex_unlock(&s->lock);
		rc = identity_fetch(&s->id, s->have_limits ? &s->limits : NULL, &s->stop, &step,
				    answer, &why);
		pthread_mutex_lock(&s->lock);
		s->fetching = false;
		if (!rc)
			keep(s, answer, step);
		else if (!s->stop)
			keep_failure(s, &why);
		OPENSSL_cleanse(answer, sizeof(*answer));
		wake_all(s);
	}
	pthread_mutex_unlock(&s->lock);
	free(answer);
	return NULL;
}

/* With the lock held. */
static int want(struct token_source *s, struct err *err)
{
	int rc;

	s->wanted = true;
	if (!s->started) {
		rc = pthread_create(&s->thread, NULL, source_main, s);
		if (rc)
			return err_set(err, -rc, "can't start the thread that fetches tokens: %s",
				       strerror(rc));
		s->started = true;
	}
	pthread_cond_signal(&s->wanted_cond);
	return 0;
}

/* --- taking --------------------------------------------------------------------------------- */

static int wait_for_fetch(struct token_source *s, struct token_waiter *w)
{
	if (!w->listed && !w->posted) {
		w->source = s;
		w->post.fn = on_post;
		w->listed = true;
		TAILQ_INSERT_TAIL(&s->waiters, w, link);
	}
	pthread_cond_signal(&s->wanted_cond); /* the end of a back-off is waited for from now */
	return TOKEN_WAIT;
}

/* Blob refused the token that is here: fetch another, but not for each blob that refuses it. */
static int take_younger(struct token_source *s, struct token_waiter *w, struct err *err)
{
	uint64_t now = clock_now_ns();
	int rc;

	if (s->fetching || s->wanted)
		return wait_for_fetch(s, w);
	if (now < s->refused_ns || now < s->retry_ns)
		return err_set(err, -EACCES, "%s", s->failure.text);
	s->refused_ns = now + REFUSED_PAUSE_NS;
	rc = want(s, err);
	return rc ? rc : wait_for_fetch(s, w);
}

static int take(struct token_source *s, uint64_t after, struct token_waiter *w, struct token *out,
		struct err *err)
{
	uint64_t now = clock_now_ns();
	bool good = s->token.generation && now < s->end_ns;
	int rc;

	if (good && s->token.generation > after) {
		if (now >= s->renew_ns && now >= s->retry_ns && !s->fetching && !s->wanted)
			want(s, NULL);
		*out = s->token;
		return 0;
	}
	if (good)
		return take_younger(s, w, err);
	if (!s->token.generation && !s->fetching && now < s->retry_ns)
		return err_set(err, s->failure.code, "%s", s->failure.text);
	if (!s->fetching && !s->wanted) {
		rc = want(s, err);
		if (rc)
			return rc;
	}
	return wait_for_fetch(s, w);
}

int token_take(struct token_source *s, uint64_t after, struct token_waiter *w, struct token *out,
	       struct err *err)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = take(s, after, w, out, err);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

bool token_may_change(struct token_source *s, uint64_t generation)
{
	uint64_t now = clock_now_ns();
	bool may;

	pthread_mutex_lock(&s->lock);
	may = s->token.generation > generation || s->fetching || s->wanted || now >= s->end_ns ||
	      (now >= s->refused_ns && now >= s->retry_ns);
	pthread_mutex_unlock(&s->lock);
	return may;
}

void token_leave(struct token_waiter *w)
{
	bool due;

	if (!w->source)
		return;
	do {
		pthread_mutex_lock(&w->source->lock);
		if (w->listed)
			TAILQ_REMOVE(&w->source->waiters, w, link);
		w->listed = false;
		due = w->posted;
		pthread_mutex_unlock(&w->source->lock);
		if (due)
			loop_run_once(w->loop, 0);
	} while (due);
}

void token_why(struct token_source *s, char *buf, size_t len)
{
	pthread_mutex_lock(&s->lock);
	snprintf(buf, len, "%s", s->failure.text);
	pthread_mutex_unlock(&s->lock);
}

void token_whose(struct token_source *s, char *buf, size_t len)
{
	pthread_mutex_lock(&s->lock);
	snprintf(buf, len, "%s", s->whose);
	pthread_mutex_unlock(&s->lock);
}

/* --- sources -------------------------------------------------------------------------------- */

struct token_source *token_source_new(struct identity *id, const struct identity_limits *limits,
				      struct err *err)
{
	struct token_source *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s) {
		identity_fini(id);
		err_set(err, -ENOMEM, "no memory for a source of tokens");
		return NULL;
	}
	s->id = *id;
	memset(id, 0, sizeof(*id));
	if (limits)
		s->limits = *limits;
	s->have_limits = limits;
	TAILQ_INIT(&s->waiters);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wanted_cond, &attr);
	pthread_condattr_destroy(&attr);
	return s;
}

void token_source_free(struct token_source *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->wanted_cond);
	pthread_mutex_unlock(&s->lock);
	if (s->started)
		pthread_join(s->thread, NULL);
	pthread_cond_destroy(&s->wanted_cond);
	pthread_mutex_destroy(&s->lock);
	identity_fini(&s->id);
	free(s->client_id);
	OPENSSL_cleanse(s, sizeof(*s));
	free(s);
}

static struct token_source *registry_add(struct token_source **head, enum identity_kind kind,
					 const char *client_id, const char *ca_file,
					 struct err *err)
{
	struct token_source *s;
	struct identity id;

	if (identity_init(&id, kind, client_id, ca_file, err))
		return NULL;
	s = token_source_new(&id, NULL, err);
	if (!s)
		return NULL;
	s->client_id = strdup(client_id);
	if (!s->client_id) {
		token_source_free(s);
		err_set(err, -ENOMEM, "no memory for a source of tokens");
		return NULL;
	}
	s->next = *head;
	*head = s;
	return s;
}

struct token_source *token_source_shared(enum identity_kind kind, const char *client_id,
					 const char *ca_file, struct err *err)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct token_source *head;
	struct token_source *s;

	client_id = client_id ? client_id : "";
	pthread_mutex_lock(&lock);
	for (s = head; s; s = s->next)
		if (s->id.kind == kind && strcmp(s->client_id, client_id) == 0)
			break;
	if (!s)
		s = registry_add(&head, kind, client_id, ca_file, err);
	pthread_mutex_unlock(&lock);
	return s;
}
