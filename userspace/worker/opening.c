/* SPDX-License-Identifier: Apache-2.0 */
/* A manifest is kept in the store by its URL, with its ETag and when it was last checked. Within
 * [image] manifest_max_age it is used without asking; later the origin is asked whether it is still
 * the same; an origin that does not answer does not keep an image away that is here.
 *
 * It is also kept by URL and digest: an export that stands goes on with its own manifest in the
 * next worker, also when another one was published under the URL meanwhile.
 */
#include "worker/opening.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "image/manifest.h"

#define RECORD_FORMAT "cairn-manifest 1 %" PRId64 " %127[^\n]\n" /* time, ETag; then the JSON */

struct record {
	char *text; /* the whole record; json points into it */
	const char *json;
	size_t len;
	int64_t checked;
	char etag[ORIGIN_ETAG_MAX];
};

/* libcurl's word for it would name the file and not whom to let at it. */
static int ca_file_check(const char *path, struct err *err)
{
	if (!path[0] || access(path, R_OK) == 0)
		return 0;
	return err_set(err, -errno, "[origin] ca_file = %s: user %u can't read it: %s", path,
		       geteuid(), strerror(errno));
}

int opener_init(struct opener *o, const struct config *cfg, int secrets_fd, struct err *err)
{
	int rc = ca_file_check(cfg->ca_file, err);

	o->cfg = cfg;
	if (!rc)
		rc = secrets_take(cfg, secrets_fd, o->secrets, err);
	if (rc)
		return rc;
	o->origin.api_version = cfg->api_version;
	o->origin.ca_file = cfg->ca_file;
	o->origin.account = cfg->azure_account;
	o->origin.key = o->secrets[SECRET_KEY];
	o->origin.sas_token = o->secrets[SECRET_SAS];
	o->origin.connection_string = o->secrets[SECRET_CONNECTION_STRING];
	o->origin.identity = cfg->azure_identity;
	o->origin.client_id = cfg->azure_client_id;
	o->origin.deadline_ms = (uint32_t)cfg->fill_deadline_ms;
	origin_config_from_env(&o->origin);
	return 0;
}

void opener_free(struct opener *o)
{
	secrets_wipe(o->secrets);
}

static int record_read(struct store *s, const char *url, struct record *out)
{
	struct record r = {0};
	const char *nl;
	size_t len;
	int rc = store_url_read(s, url, MANIFEST_LIMIT + 1024, &r.text, &len);

	if (rc)
		return rc;
	nl = strchr(r.text, '\n');
	if (!nl || sscanf(r.text, RECORD_FORMAT, &r.checked, r.etag) != 2) {
		free(r.text);
		return -EINVAL;
	}
	r.json = nl + 1;
	r.len = len - (size_t)(r.json - r.text);
	*out = r;
	return 0;
}

static void record_write(struct store *s, const char *url, const char *etag, const char *json,
			 size_t len)
{
	size_t size = len + 256;
	char *text = malloc(size);
	int n, rc;

	if (!text)
		return;
	n = snprintf(text, size, "cairn-manifest 1 %" PRId64 " %s\n", (int64_t)time(NULL),
		     etag[0] ? etag : "-");
	memcpy(text + n, json, len);
	rc = store_url_write(s, url, text, (size_t)n + len);
	if (rc)
		log_warn("store", "manifest not kept", "why=\"%s\"", strerror(-rc));
	free(text);
}

/* The key of a manifest that stays itself. */
static void digest_key(const char *url, const char *digest, char *out, size_t len)
{
	snprintf(out, len, "%s#%s", url, digest);
}

/* Written once, unless it was damaged or published anew with other parts. */
static void manifest_keep(struct store *s, const char *url, const struct manifest *m,
			  const char *json, size_t len)
{
	char digest[8 + 2 * SHA256_LEN] = "sha256:", key[ORIGIN_URL_MAX + sizeof(digest)];
	struct record have;
	bool kept = false;

	hex_encode(m->digest, SHA256_LEN, digest + 7);
	digest_key(url, digest, key, sizeof(key));
	if (!record_read(s, key, &have)) {
		kept = have.len == len && memcmp(have.json, json, len) == 0;
		free(have.text);
	}
	if (!kept)
		record_write(s, key, "", json, len);
}

/* What one open works with. */
struct opening {
	struct opener *o;
	struct origin *origin;
	struct origin_client *client;
	struct loop *loop;
	char name[ORIGIN_NAME_MAX + 1];		  /* the image */
	char manifest_name[ORIGIN_NAME_MAX + 32]; /* its manifest */
	char url[ORIGIN_URL_MAX];		  /* the manifest's, no secrets: the record's key */
};

static bool record_is_fresh(const struct opening *p, const struct record *r)
{
	int64_t age = (int64_t)time(NULL) - r->checked;

	return age >= 0 && (uint64_t)age * 1000 < p->o->cfg->manifest_max_age_ms;
}

static int connect_client(struct opening *p, struct err *err)
{
	if (p->client)
		return 0;
	p->loop = loop_new(LOOP_EPOLL, err);
	if (!p->loop)
		return -EIO;
	p->client = origin_client_new(p->loop, &p->o->origin, err);
	return p->client ? 0 : -EIO;
}

/* The manifest from the origin. @have (may be NULL) is used when it is still the same, or when the
 * origin can't be asked. -ENOENT: not sealed. */
static int fetch_manifest(struct opening *p, const struct record *have, struct manifest **out,
			  struct err *err)
{
	char etag[ORIGIN_ETAG_MAX] = "", *json = NULL;
	size_t len = 0;
	int rc = connect_client(p, err);

	if (!rc)
		rc = origin_get(p->client, p->origin, p->manifest_name, MANIFEST_LIMIT,
				have && strcmp(have->etag, "-") != 0 ? have->etag : NULL, &json,
				&len, etag, err);
	if (rc == -EALREADY) {
		record_write(p->o->store, p->url, have->etag, have->json, have->len);
		return manifest_parse(have->json, have->len, p->url, out, err);
	}
	if (rc && have && rc != -ENOENT && rc != -EACCES) {
		log_warn("image", "origin does not answer; the manifest in the store is used",
			 "url=%s why=\"%s\"", p->url, err->text);
		return manifest_parse(have->json, have->len, p->url, out, err);
	}
	if (rc)
		return rc;
	rc = manifest_parse(json, len, p->url, out, err);
	if (!rc) {
		manifest_keep(p->o->store, p->url, *out, json, len);
		record_write(p->o->store, p->url, etag, json, len);
	}
	free(json);
	return rc;
}

static int find_manifest(struct opening *p, bool refresh, struct manifest **out, struct err *err)
{
	struct record have;
	bool got = record_read(p->o->store, p->url, &have) == 0;
	bool good = got && manifest_parse(have.json, have.len, p->url, out, err) == 0;
	int rc;

	if (good)
		manifest_keep(p->o->store, p->url, *out, have.json, have.len);
	if (good && !refresh && record_is_fresh(p, &have)) {
		rc = 0;
	} else { /* absent, old, or damaged on our own disk */
		if (good)
			manifest_free(*out);
		rc = fetch_manifest(p, good ? &have : NULL, out, err);
	}
	if (got)
		free(have.text);
	return rc;
}

static int open_unsealed(struct opening *p, struct image_source **out, struct err *err)
{
	struct origin_stat stat;
	int rc = connect_client(p, err);

	if (!rc)
		rc = origin_stat(p->client, p->origin, p->name, &stat, err);
	if (rc)
		return rc;
	rc = image_source_unsealed(p->o->store, p->o->fill, p->origin, p->name, &stat, out, err);
	if (!rc)
		log_warn("image", "image is not sealed: its bytes can't be verified", "%s",
			 (*out)->what);
	return rc;
}

/* NAME and NAME.cairn.json both name the image NAME. */
static void set_names(struct opening *p)
{
	size_t n = strlen(p->name), suffix = strlen(MANIFEST_SUFFIX);

	if (n > suffix && strcmp(p->name + n - suffix, MANIFEST_SUFFIX) == 0)
		p->name[n - suffix] = 0;
	snprintf(p->manifest_name, sizeof(p->manifest_name), "%s%s", p->name, MANIFEST_SUFFIX);
	origin_url(p->origin, p->manifest_name, p->url, sizeof(p->url));
}

static int open_any(struct opening *p, bool refresh, struct image_source **out, struct err *err)
{
	struct manifest *m;
	int rc = -ENOENT;

	/* A SAS for one blob can't read a manifest beside it, so that blob is all there is. */
	if (!origin_is_single_blob(p->origin))
		rc = find_manifest(p, refresh, &m, err);
	if (rc == -ENOENT)
		return open_unsealed(p, out, err);
	if (rc)
		return rc;
	return image_source_sealed(p->o->store, p->o->fill, p->origin, p->name, &m, out, err);
}

/* The manifest in the store under @key, if it is that of @digest. */
static int kept_manifest(struct opening *p, const char *key, const char *digest,
			 struct manifest **out, struct err *err)
{
	char hex[2 * SHA256_LEN + 1];
	struct record have;
	struct manifest *m;
	int rc = record_read(p->o->store, key, &have);

	if (rc)
		return err_set(err, -ENOENT, "%s: the store has its manifest no longer", p->url);
	rc = manifest_parse(have.json, have.len, p->url, &m, err);
	free(have.text);
	if (rc)
		return err_set(err, -ENOENT, "%s: the store's copy of its manifest is damaged",
			       p->url);
	hex_encode(m->digest, SHA256_LEN, hex);
	if (strcmp(hex, digest + strlen("sha256:")) != 0) {
		manifest_free(m);
		return err_set(err, -ENOENT, "%s: the store's manifest is another image's", p->url);
	}
	*out = m;
	return 0;
}

static int reopen_sealed(struct opening *p, const char *digest, struct image_source **out,
			 struct err *err)
{
	char key[ORIGIN_URL_MAX + 80];
	struct manifest *m;
	int rc;

	digest_key(p->url, digest, key, sizeof(key));
	rc = kept_manifest(p, key, digest, &m, err);
	if (rc) /* a store from before manifests were kept by digest */
		rc = kept_manifest(p, p->url, digest, &m, err);
	return rc ? rc
		  : image_source_sealed(p->o->store, p->o->fill, p->origin, p->name, &m, out, err);
}

int opener_reopen(struct opener *o, const char *url, const struct opener_known *k,
		  struct image_source **out, struct err *err)
{
	struct opening p = {.o = o};
	struct origin_stat stat = {.length = k->length};
	int rc;

	if (!k->length)
		return err_set(err, -ENOENT, "nothing is known of the image");
	rc = origin_open(url, &o->origin, &p.origin, p.name, err);
	if (rc)
		return rc;
	set_names(&p);
	if (k->digest[0]) {
		rc = reopen_sealed(&p, k->digest, out, err);
	} else {
		snprintf(stat.etag, sizeof(stat.etag), "%s", k->etag);
		rc = image_source_unsealed(o->store, o->fill, p.origin, p.name, &stat, out, err);
	}
	origin_unref(p.origin);
	return rc;
}

int opener_open(struct opener *o, const char *url, bool refresh, struct image_source **out,
		struct err *err)
{
	struct opening p = {.o = o};
	int rc = origin_open(url, &o->origin, &p.origin, p.name, err);

	if (rc)
		return rc;
	set_names(&p);
	rc = open_any(&p, refresh, out, err);
	if (p.client)
		origin_client_free(p.client);
	if (p.loop)
		loop_free(p.loop);
	origin_unref(p.origin);
	return rc;
}
