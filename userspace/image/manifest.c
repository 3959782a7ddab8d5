/* SPDX-License-Identifier: Apache-2.0 */
#include "image/manifest.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A cJSON value takes some 80 bytes, so 16 MiB of "[[],[],.." would take 400 MiB: count values
 * before parsing. The largest valid manifest has about 340,000. */
#define VALUES_MAX (1U << 19)
#define KEYS_MAX   64 /* of one object; newer writers may add some */

#define DIGEST_PREFIX "sha256:"

/* What a parse carries along. */
struct reading {
	const char *what;
	struct err *err;
	struct manifest *m;
};

#define bad(r, fmt, ...)                                                                           \
	err_set((r)->err, -EINVAL, "manifest %s is not valid: " fmt, (r)->what, __VA_ARGS__)

static int check_text(struct reading *r, const char *json, size_t len)
{
	size_t values = 1;

	if (len > MANIFEST_LIMIT)
		return err_set(r->err, -EFBIG,
			       "manifest %s is %zu bytes; a reader takes at most %u", r->what, len,
			       MANIFEST_LIMIT);
	if (memchr(json, 0, len) || memmem(json, len, "\\u0000", 6))
		return bad(r, "%s", "it holds a NUL");
	for (size_t i = 0; i < len; i++)
		values += json[i] == ',' || json[i] == '[' || json[i] == '{';
	if (values > VALUES_MAX)
		return err_set(r->err, -EFBIG, "manifest %s holds over %u values", r->what,
			       VALUES_MAX);
	return 0;
}

/* Two equal keys would let two readers see two images. */
static int check_keys(struct reading *r, const cJSON *obj, const char *where)
{
	int n = 0;

	for (const cJSON *a = obj->child; a; a = a->next) {
		if (++n > KEYS_MAX)
			return bad(r, "%s has over %d keys", where, KEYS_MAX);
		for (const cJSON *b = obj->child; b != a; b = b->next)
			if (strcmp(a->string, b->string) == 0)
				return bad(r, "%s has \"%.40s\" twice", where, a->string);
	}
	return 0;
}

static int get_object(struct reading *r, const cJSON *obj, const char *where)
{
	if (!cJSON_IsObject(obj))
		return bad(r, "%s is missing or not an object", where);
	return check_keys(r, obj, where);
}

/* An integer in [0, IMAGE_LENGTH_MAX], which a double holds exactly. */
static int get_number(struct reading *r, const cJSON *obj, const char *where, const char *key,
		      uint64_t *out)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(obj, key);

	if (!cJSON_IsNumber(v))
		return bad(r, "\"%s\" of %s is missing or not a number", key, where);
	if (!(v->valuedouble >= 0 && v->valuedouble <= (double)IMAGE_LENGTH_MAX))
		return bad(r, "\"%s\" of %s is not between 0 and 2^50", key, where);
	*out = (uint64_t)v->valuedouble;
	if ((double)*out != v->valuedouble)
		return bad(r, "\"%s\" of %s is not a whole number", key, where);
	return 0;
}

static int get_string(struct reading *r, const cJSON *obj, const char *where, const char *key,
		      const char **out)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(obj, key);

	if (!cJSON_IsString(v))
		return bad(r, "\"%s\" of %s is missing or not a string", key, where);
	*out = v->valuestring;
	return 0;
}

static int get_hash(struct reading *r, const cJSON *obj, const char *key, const char *prefix,
		    uint8_t out[SHA256_LEN])
{
	const char *s = "";
	int rc = get_string(r, obj, "the manifest", key, &s);

	if (rc)
		return rc;
	if (strncmp(s, prefix, strlen(prefix)) != 0 ||
	    hex_decode(s + strlen(prefix), out, SHA256_LEN))
		return bad(r, "\"%s\" is not %s and %d hex digits", key, *prefix ? prefix : "plain",
			   2 * SHA256_LEN);
	return 0;
}

static bool has_control(const char *s)
{
	for (; *s; s++)
		if (iscntrl((unsigned char)*s))
			return true;
	return false;
}

bool manifest_name_is_safe(const char *s)
{
	const char *p = s;

	if (!*s || strlen(s) > ORIGIN_NAME_MAX || *s == '/' || strchr(s, '\\') || strstr(s, "..") ||
	    has_control(s))
		return false;
	while (isalnum((unsigned char)*p) || (*p && strchr("+.-", *p)))
		p++;
	return *p != ':'; /* "scheme:" */
}

static int read_blob(struct reading *r, const cJSON *obj, uint32_t i)
{
	struct manifest_blob *blob = &r->m->blobs[i];
	const char *name = "", *etag = "";
	char where[32];
	int rc;

	snprintf(where, sizeof(where), "blob %u", i);
	if ((rc = get_object(r, obj, where)) || (rc = get_string(r, obj, where, "name", &name)) ||
	    (rc = get_string(r, obj, where, "etag", &etag)))
		return rc;
	if (!manifest_name_is_safe(name))
		return bad(r, "the name of %s is not a plain relative name", where);
	if (strlen(etag) >= ORIGIN_ETAG_MAX || has_control(etag))
		return bad(r, "the etag of %s is too long or holds control characters", where);
	blob->name = strdup(name);
	blob->etag = strdup(etag);
	r->m->nblobs = i + 1;
	if (!blob->name || !blob->etag)
		return err_set(r->err, -ENOMEM, "no memory for manifest %s", r->what);
	return 0;
}

static int read_blobs(struct reading *r, const cJSON *array)
{
	const cJSON *item;
	uint32_t i = 0;
	int n, rc;

	if (!cJSON_IsArray(array))
		return bad(r, "%s", "\"blobs\" is missing or not an array");
	n = cJSON_GetArraySize(array);
	if (n > MANIFEST_BLOBS_MAX)
		return err_set(r->err, -EFBIG,
			       "manifest %s names %d blobs; a reader takes at most %d", r->what, n,
			       MANIFEST_BLOBS_MAX);
	r->m->blobs = calloc(n ? (size_t)n : 1, sizeof(*r->m->blobs));
	if (!r->m->blobs)
		return err_set(r->err, -ENOMEM, "no memory for manifest %s", r->what);
	cJSON_ArrayForEach (item, array) {
		rc = read_blob(r, item, i++);
		if (rc)
			return rc;
	}
	return 0;
}

/* Where the bytes of a part are: a run of a blob, or "zero": true and no blob. */
static int read_place(struct reading *r, const cJSON *obj, const char *where,
		      struct manifest_part *p)
{
	const cJSON *zero = cJSON_GetObjectItemCaseSensitive(obj, "zero");
	uint64_t blob = 0;
	int rc;

	if (zero) {
		if (!cJSON_IsTrue(zero) || cJSON_HasObjectItem(obj, "blob") ||
		    cJSON_HasObjectItem(obj, "blob_off"))
			return bad(r, "%s must have either \"zero\": true or a blob", where);
		p->blob = MANIFEST_ZERO;
		p->blob_off = 0;
		return 0;
	}
	if ((rc = get_number(r, obj, where, "blob", &blob)) ||
	    (rc = get_number(r, obj, where, "blob_off", &p->blob_off)))
		return rc;
	if (blob >= r->m->nblobs)
		return bad(r, "%s names blob %llu of %u", where, (unsigned long long)blob,
			   r->m->nblobs);
	if (p->blob_off + p->len > IMAGE_LENGTH_MAX)
		return bad(r, "%s ends beyond 2^50 bytes of its blob", where);
	p->blob = (uint32_t)blob;
	return 0;
}

/* @at is where the part before ended, @end where the last one must. */
static int read_part(struct reading *r, const cJSON *obj, const char *where, uint64_t at,
		     uint64_t end, struct manifest_part *p)
{
	int rc;

	if ((rc = get_object(r, obj, where)) || (rc = get_number(r, obj, where, "off", &p->off)) ||
	    (rc = get_number(r, obj, where, "len", &p->len)))
		return rc;
	if (p->off != at)
		return bad(r, "%s starts at %llu where %llu is due", where,
			   (unsigned long long)p->off, (unsigned long long)at);
	if (p->len == 0 || p->len > end - at)
		return bad(r, "%s is empty or ends beyond %llu", where, (unsigned long long)end);
	if (p->len % BLOCK_SIZE && p->len != end - at)
		return bad(r, "%s is not whole blocks of 64 KiB", where);
	return read_place(r, obj, where, p);
}

static int read_parts(struct reading *r, const cJSON *array, const char *kind, uint64_t length,
		      struct manifest_part **out, uint32_t *nout)
{
	struct manifest_part *parts;
	const cJSON *item;
	uint64_t at = 0;
	uint32_t i = 0;
	char where[48];
	int n, rc;

	if (!cJSON_IsArray(array))
		return bad(r, "the %s parts are missing or not an array", kind);
	n = cJSON_GetArraySize(array);
	if ((uint32_t)n > MANIFEST_PARTS_MAX - r->m->nparts)
		return err_set(r->err, -EFBIG, "manifest %s has over %d parts", r->what,
			       MANIFEST_PARTS_MAX);
	*out = parts = calloc(n ? (size_t)n : 1, sizeof(*parts));
	if (!parts)
		return err_set(r->err, -ENOMEM, "no memory for manifest %s", r->what);
	cJSON_ArrayForEach (item, array) {
		snprintf(where, sizeof(where), "%s part %u", kind, i);
		rc = read_part(r, item, where, at, length, &parts[i]);
		if (rc)
			return rc;
		at += parts[i++].len;
	}
	if (at != length)
		return bad(r, "its %s parts end at %llu, not at %llu", kind, (unsigned long long)at,
			   (unsigned long long)length);
	*nout = (uint32_t)n;
	return 0;
}

static int read_tree(struct reading *r, const cJSON *tree)
{
	uint64_t len = 0;
	int rc;

	if ((rc = get_object(r, tree, "\"tree\"")) ||
	    (rc = get_number(r, tree, "\"tree\"", "length", &len)))
		return rc;
	if (len != r->m->geometry.tree_len)
		return bad(r, "its tree is %llu bytes, but %llu bytes of image have one of %llu",
			   (unsigned long long)len, (unsigned long long)r->m->length,
			   (unsigned long long)r->m->geometry.tree_len);
	return read_parts(r, cJSON_GetObjectItemCaseSensitive(tree, "parts"), "tree", len,
			  &r->m->tree_parts, &r->m->ntree_parts);
}

/* Format and versions come before everything else: the rest may look different in a newer one. */
static int read_version(struct reading *r, const cJSON *top)
{
	const char *format = "", *hash = "";
	uint64_t version = 0, min_reader = 0, block_size = 0;
	int rc;

	if ((rc = get_object(r, top, "the manifest")) ||
	    (rc = get_string(r, top, "the manifest", "format", &format)))
		return rc;
	if (strcmp(format, "cairn-image") != 0)
		return bad(r, "%s", "its \"format\" is not \"cairn-image\"");
	if ((rc = get_number(r, top, "the manifest", "version", &version)) ||
	    (rc = get_number(r, top, "the manifest", "min_reader", &min_reader)))
		return rc;
	if (version == 0 || min_reader == 0 || min_reader > version)
		return bad(r, "%s", "\"version\" and \"min_reader\" do not make sense together");
	if (min_reader > MANIFEST_VERSION)
		return err_set(
			r->err, -ENOTSUP,
			"manifest %s needs a reader of format version %llu, this one reads %d: "
			"upgrade cairn",
			r->what, (unsigned long long)min_reader, MANIFEST_VERSION);
	if ((rc = get_number(r, top, "the manifest", "block_size", &block_size)) ||
	    (rc = get_string(r, top, "the manifest", "hash", &hash)))
		return rc;
	if (block_size != BLOCK_SIZE || strcmp(hash, "sha256") != 0)
		return bad(r, "%s", "\"block_size\" must be 65536 and \"hash\" \"sha256\"");
	return 0;
}

static int read_manifest(struct reading *r, const cJSON *top)
{
	struct manifest *m = r->m;
	uint8_t digest[SHA256_LEN];
	int rc;

	if ((rc = read_version(r, top)) ||
	    (rc = get_number(r, top, "the manifest", "length", &m->length)) ||
	    (rc = get_hash(r, top, "digest", DIGEST_PREFIX, m->digest)) ||
	    (rc = get_hash(r, top, "root_hash", "", m->root)))
		return rc;
	if (tree_geometry(m->length, &m->geometry))
		return bad(r, "%s", "its \"length\" is not between 1 and 2^50");
	image_digest(m->length, m->root, digest);
	if (memcmp(digest, m->digest, SHA256_LEN) != 0)
		return bad(r, "%s", "its digest is not that of its length and root hash");
	if ((rc = read_blobs(r, cJSON_GetObjectItemCaseSensitive(top, "blobs"))))
		return rc;
	rc = read_parts(r, cJSON_GetObjectItemCaseSensitive(top, "parts"), "data", m->length,
			&m->parts, &m->nparts);
	if (rc)
		return rc;
	return read_tree(r, cJSON_GetObjectItemCaseSensitive(top, "tree"));
}

int manifest_parse(const char *json, size_t len, const char *what, struct manifest **out,
		   struct err *err)
{
	struct reading r = {.what = what, .err = err};
	const char *end = json;
	cJSON *top;
	int rc = check_text(&r, json, len);

	if (rc)
		return rc;
	top = cJSON_ParseWithLengthOpts(json, len, &end, false);
	while (top && end < json + len && isspace((unsigned char)*end))
		end++;
	r.m = calloc(1, sizeof(*r.m));
	if (!r.m)
		rc = err_set(err, -ENOMEM, "no memory for manifest %s", what);
	else if (!top || end != json + len)
		rc = bad(&r, "it is not JSON (byte %zu)", (size_t)(end - json));
	else
		rc = read_manifest(&r, top);
	cJSON_Delete(top);
	if (rc)
		manifest_free(r.m);
	else
		*out = r.m;
	return rc;
}

static void format_string(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else if (iscntrl((unsigned char)*s))
			fprintf(f, "\\u%04x", (unsigned char)*s);
		else
			fputc(*s, f);
	}
	fputc('"', f);
}

static void format_parts(FILE *f, const char *indent, const struct manifest_part *parts, uint32_t n)
{
	fputs("\"parts\": [", f);
	for (uint32_t i = 0; i < n; i++) {
		const struct manifest_part *p = &parts[i];

		fprintf(f, "%s\n%s  {\"off\": %llu, \"len\": %llu, ", i ? "," : "", indent,
			(unsigned long long)p->off, (unsigned long long)p->len);
		if (p->blob == MANIFEST_ZERO)
			fputs("\"zero\": true}", f);
		else
			fprintf(f, "\"blob\": %u, \"blob_off\": %llu}", p->blob,
				(unsigned long long)p->blob_off);
	}
	fprintf(f, "%s%s]", n ? "\n" : "", n ? indent : "");
}

static void format_blobs(FILE *f, const struct manifest *m)
{
	fputs("  \"blobs\": [", f);
	for (uint32_t i = 0; i < m->nblobs; i++) {
		fprintf(f, "%s\n    {\"name\": ", i ? "," : "");
		format_string(f, m->blobs[i].name);
		fputs(", \"etag\": ", f);
		format_string(f, m->blobs[i].etag);
		fputc('}', f);
	}
	fprintf(f, "%s],\n", m->nblobs ? "\n  " : "");
}

char *manifest_format(const struct manifest *m)
{
	char digest[2 * SHA256_LEN + 1], root[2 * SHA256_LEN + 1], *buf = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&buf, &len);
	bool failed;

	if (!f)
		return NULL;
	hex_encode(m->digest, SHA256_LEN, digest);
	hex_encode(m->root, SHA256_LEN, root);
	fprintf(f, "{\n  \"format\": \"cairn-image\",\n  \"version\": %d,\n  \"min_reader\": %d,\n",
		MANIFEST_VERSION, MANIFEST_VERSION);
	fprintf(f, "  \"length\": %llu,\n  \"block_size\": %u,\n  \"hash\": \"sha256\",\n",
		(unsigned long long)m->length, BLOCK_SIZE);
	fprintf(f, "  \"digest\": \"" DIGEST_PREFIX "%s\",\n  \"root_hash\": \"%s\",\n", digest,
		root);
	format_blobs(f, m);
	fputs("  ", f);
	format_parts(f, "  ", m->parts, m->nparts);
	fprintf(f, ",\n  \"tree\": {\n    \"length\": %llu,\n    ",
		(unsigned long long)m->geometry.tree_len);
	format_parts(f, "    ", m->tree_parts, m->ntree_parts);
	fputs("\n  }\n}\n", f);
	failed = ferror(f);
	if (fclose(f) || failed) {
		free(buf);
		return NULL;
	}
	return buf;
}

void manifest_free(struct manifest *m)
{
	if (!m)
		return;
	for (uint32_t i = 0; i < m->nblobs; i++) {
		free(m->blobs[i].name);
		free(m->blobs[i].etag);
	}
	free(m->blobs);
	free(m->parts);
	free(m->tree_parts);
	free(m);
}

const struct manifest_part *manifest_find(const struct manifest_part *parts, uint32_t n,
					  uint64_t off)
{
	uint32_t lo = 0, hi = n;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (parts[mid].off <= off)
			lo = mid;
		else
			hi = mid;
	}
	return &parts[lo];
}
