/* SPDX-License-Identifier: Apache-2.0 */
#include "image/open.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n > m && strcmp(s + n - m, end) == 0;
}

int image_manifest_name(const char *name, char *out, struct err *err)
{
	const char *suffix = ends_with(name, MANIFEST_SUFFIX) ? "" : MANIFEST_SUFFIX;

	if (strlen(name) + strlen(suffix) > ORIGIN_NAME_MAX)
		return err_set(err, -ENAMETOOLONG, "the name %.60s... is too long for an image",
			       name);
	strcpy(out, name);
	strcat(out, suffix);
	return 0;
}

static int explain(struct origin *o, const char *url, int rc, struct err *err)
{
	struct err why = *err;

	if (rc == -ENOENT)
		return err_set(
			err, rc,
			"no image: there is no manifest at %.300s (%.200s); `cairn image push` "
			"publishes an image, `cairn image seal` a blob that is there already",
			url, why.text);
	if (rc == -EACCES && origin_is_single_blob(o))
		err_prefix(err,
			   "the SAS is for one single blob; an image needs one for its container");
	return rc;
}

int image_open(struct origin_client *c, struct origin *o, const char *name, struct manifest **out,
	       char etag[ORIGIN_ETAG_MAX], struct err *err)
{
	char manifest_name[ORIGIN_NAME_MAX + 1], url[ORIGIN_URL_MAX], *json;
	struct err own = {0};
	size_t len;
	int rc = image_manifest_name(name, manifest_name, err);

	if (rc)
		return rc;
	err = err ? err : &own;
	origin_url(o, manifest_name, url, sizeof(url));
	rc = origin_get(c, o, manifest_name, MANIFEST_LIMIT, NULL, &json, &len, etag, err);
	if (rc)
		return explain(o, url, rc, err);
	rc = manifest_parse(json, len, url, out, err);
	free(json);
	return rc;
}

int image_site_open(struct image_site *s, const char *url, struct err *err)
{
	int rc;

	memset(s, 0, sizeof(*s));
	origin_config_from_env(&s->config);
	rc = origin_open(url, &s->config, &s->origin, s->name, err);
	if (rc)
		return rc;
	s->loop = loop_new(LOOP_AUTO, err);
	if (!s->loop)
		return err->code;
	s->client = origin_client_new(s->loop, &s->config, err);
	return s->client ? 0 : err->code;
}

void image_site_close(struct image_site *s)
{
	if (s->client)
		origin_client_free(s->client);
	if (s->loop)
		loop_free(s->loop);
	if (s->origin)
		origin_unref(s->origin);
	memset(s, 0, sizeof(*s));
}
