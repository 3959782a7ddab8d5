/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/azure_error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "origin/bearer.h"
#include "origin/token.h"

#define CLOCK_SKEW_S 600 /* Azure refuses a request's date at 15 minutes */

/* <@tag> of the body, "" when it is not there or longer than @buf holds. */
static const char *element(const struct http_answer *a, const char *tag, char *buf, size_t cap)
{
	char open[40];
	const char *s;
	size_t n;

	snprintf(open, sizeof(open), "<%s>", tag);
	s = strstr(a->body, open);
	s = s ? s + strlen(open) : "";
	n = strcspn(s, "<\r\n");
	if (n >= cap)
		n = 0;
	memcpy(buf, s, n);
	buf[n] = 0;
	return buf;
}

/* x-ms-error-code, or <Code> of the body where a proxy or an old server left the header out. */
static const char *error_code(const struct http_answer *a, char buf[64])
{
	return *a->error_code ? a->error_code : element(a, "Code", buf, 64);
}

static bool is(const struct http_answer *a, const char *code)
{
	char buf[64];

	return strcmp(error_code(a, buf), code) == 0;
}

bool azure_error_is_container(const struct http_answer *a)
{
	return is(a, "ContainerNotFound") || is(a, "ContainerBeingDeleted") ||
	       is(a, "ResourceNotFound");
}

bool azure_error_is_token(const struct http_answer *a)
{
	return a->status == 401 || (a->status == 403 && (is(a, "AuthenticationFailed") ||
							 is(a, "InvalidAuthenticationInfo")));
}

time_t azure_sas_time(const char *s)
{
	struct tm tm = {0};
	int n = sscanf(s, "%4d-%2d-%2dT%2d:%2d:%2d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
		       &tm.tm_hour, &tm.tm_min, &tm.tm_sec);

	if (n < 3)
		return 0;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	return timegm(&tm);
}

/* What is wrong with the SAS, by its own words; false if nothing is to be seen. */
static bool sas_defect(const struct remote_call *call, char *why, size_t cap)
{
	const char *sas = call->origin->cred.sas, need = call->http.method == HTTP_PUT ? 'w' : 'r';
	char v[64];
	time_t now = time(NULL);

	if (url_query_value(sas, "se", v, sizeof(v)) && azure_sas_time(v) &&
	    azure_sas_time(v) <= now) {
		snprintf(why, cap, "the SAS expired at %s: make a new one", v);
		return true;
	}
	if (url_query_value(sas, "st", v, sizeof(v)) && azure_sas_time(v) > now) {
		snprintf(why, cap,
			 "the SAS is not valid before %s: wait, or check this node's clock", v);
		return true;
	}
	if (url_query_value(sas, "sp", v, sizeof(v)) && !strchr(v, need) &&
	    !(need == 'w' && strchr(v, 'c'))) {
		snprintf(why, cap, "the SAS allows sp=%s but not '%c': make one with %s", v, need,
			 need == 'r' ? "sp=r" : "sp=rcw");
		return true;
	}
	return false;
}

static int explain_identity(const struct remote_call *call, const char *url, int rc,
			    struct err *err)
{
	const struct http_answer *a = &call->http.answer;
	const struct origin *o = call->origin;
	char buf[64], detail[200], whose[200];
	const char *code = error_code(a, buf);

	token_whose(o->token, whose, sizeof(whose));
	element(a, "AuthenticationErrorDetail", detail, sizeof(detail));
	if (azure_error_is_token(a))
		return err_set(
			err, rc,
			"%s: access refused (%d %s): Blob does not take the identity's token "
			"(%s)%s%s; is account %s in the identity's tenant, and this node's "
			"clock right?",
			url, a->status, code, whose, *detail ? ": " : "", detail, o->url.account);
	if (is(a, "AuthorizationFailure"))
		return err_set(err, rc,
			       "%s: access refused (%d %s): the firewall of account %s keeps this "
			       "node out, or it allows no identities",
			       url, a->status, code, o->url.account);
	return err_set(err, rc,
		       "%s: access refused (%d %s): the identity (%s) has no role for this on "
		       "container %s of account %s: assign it Storage Blob Data %s (it takes up to "
		       "ten minutes to count)",
		       url, a->status, code, whose, o->url.container, o->url.account,
		       call->http.method == HTTP_PUT ? "Contributor" : "Reader");
}

static int explain_access(const struct remote_call *call, const char *url, int rc, struct err *err)
{
	const struct http_answer *a = &call->http.answer;
	const struct origin *o = call->origin;
	time_t skew = a->date ? time(NULL) - a->date : 0;
	char buf[64], why[200];
	const char *code = error_code(a, buf);

	if (o->token)
		return explain_identity(call, url, rc, err);
	if (!o->cred.key_len && sas_defect(call, why, sizeof(why)))
		return err_set(err, rc, "%s: access refused (%s): %s", url, code, why);
	if (o->cred.key_len && (skew > CLOCK_SKEW_S || skew < -CLOCK_SKEW_S))
		return err_set(
			err, rc,
			"%s: access refused (%s): this node's clock is %ld minutes %s Azure's: "
			"set it",
			url, code, labs((long)skew) / 60, skew > 0 ? "ahead of" : "behind");
	if (o->cred.key_len)
		return err_set(err, rc,
			       "%s: access refused (%s): check AZURE_STORAGE_KEY or the connection "
			       "string's AccountKey for account %s, and the account's firewall",
			       url, code, o->url.account);
	if (origin_is_single_blob(o))
		return err_set(
			err, rc,
			"%s: access refused (%s): the SAS is for one single blob (sr=b); use "
			"one for container %s (sr=c)",
			url, code, o->url.container);
	return err_set(
		err, rc,
		"%s: access refused (%s): the SAS does not let us in: check that it is whole, "
		"for account %s and container %s, and the account's firewall",
		url, code, o->url.account, o->url.container);
}

static int explain_missing(const struct remote_call *call, const char *url, int rc, struct err *err)
{
	const struct origin *o = call->origin;

	if (azure_error_is_container(&call->http.answer))
		return err_set(
			err, rc,
			"%s: there is no container %s in account %s: check the name, or create it",
			url, o->url.container, o->url.account);
	return err_set(err, rc, "%s: there is no blob %s%s in container %s of account %s", url,
		       o->url.folder, call->name, o->url.container, o->url.account);
}

static int explain_conflict(const struct remote_call *call, const char *url, int rc,
			    struct err *err)
{
	const struct http_answer *a = &call->http.answer;
	const char *cause = call->http.cause;

	if (call->http.method != HTTP_PUT) {
		if (is(a, "BlobArchived"))
			return err_set(
				err, -EIO,
				"%s: the blob is archived: rehydrate it to a hot or cool tier",
				url);
		return rc == -ESTALE
			       ? err_set(err, rc,
					 "%s: the blob changed since its manifest was written "
					 "(%s): publish it again",
					 url, cause)
			       : err_set(err, -EIO, "%s: %s", url, cause);
	}
	if (strncmp(a->error_code, "Lease", 5) == 0)
		return err_set(err, -EBUSY, "%s: the blob is leased (%s): break the lease", url,
			       cause);
	if (call->http.if_none_match)
		return err_set(err, -EEXIST,
			       "%s: exists already; a published name is never overwritten", url);
	return err_set(err, -EIO, "%s: %s", url, cause);
}

int azure_explain(const struct remote_call *call, int rc, struct err *err)
{
	const struct http_request *r = &call->http;
	char url[320];
	int token_rc;

	origin_url(call->origin, call->name, url, sizeof(url));
	token_rc = call->origin->token ? bearer_explain(call, url, rc, err) : 0;
	if (token_rc)
		return token_rc;
	if (r->answer.status == 403 && call->http.if_none_match &&
	    is(&r->answer, "UnauthorizedBlobOverwrite"))
		rc = -EEXIST; /* what a SAS that may only create is told */
	switch (rc) {
	case -EACCES:
		return explain_access(call, url, rc, err);
	case -ENOENT:
		return explain_missing(call, url, rc, err);
	case -EEXIST:
	case -ESTALE:
		return explain_conflict(call, url, rc, err);
	case -EALREADY:
		return err_set(err, rc, "%s: not changed", url);
	case -ERANGE:
		return err_set(err, rc, "%s: the blob ends before byte %llu (%s)", url,
			       (unsigned long long)r->off + r->len, r->cause);
	}
	if (is(&r->answer, "InvalidBlockList"))
		return err_set(err, -EINVAL,
			       "%s: a block of the list is not staged (any more): publish again",
			       url);
	if (is(&r->answer, "InvalidBlobOrBlock"))
		return err_set(err, -EINVAL,
			       "%s: blocks with ids of another length are staged: they are gone a "
			       "week after the last",
			       url);
	if (r->untrusted)
		return err_set(err, rc,
			       "%s: the server's certificate is not trusted (%s): set ca_file", url,
			       r->cause);
	if (r->no_host)
		return err_set(err, rc, "%s: %s: check the account's name %s, and DNS", url,
			       r->cause, call->origin->url.account);
	return err_set(err, rc, "%s: %s", url, r->cause);
}
