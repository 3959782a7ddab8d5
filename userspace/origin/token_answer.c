/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/token_answer.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "origin/azure_sign.h"

#define LIFE_MAX_S (400 * 86400)

/* A number, or a string of digits as IMDS has them; -1 when it is neither. */
static int64_t number_of(const cJSON *object, const char *name)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, name);
	const char *s = cJSON_GetStringValue(v);
	size_t n = s ? strlen(s) : 0;

	if (cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble < 1e12)
		return (int64_t)v->valuedouble;
	if (!n || n > 12 || strspn(s, "0123456789") != n)
		return -1;
	return strtoll(s, NULL, 10);
}

static void copy_id(char out[TOKEN_ID_MAX], const cJSON *object, const char *name)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
	size_t n = s ? strlen(s) : 0;

	if (n && n < TOKEN_ID_MAX && strspn(s, "0123456789abcdefABCDEF-") == n)
		strcpy(out, s);
}

/* The claims in the middle of HEAD.CLAIMS.SIGNATURE, or NULL. The caller deletes it. */
static cJSON *claims_of(const char *token)
{
	const char *dot = strchr(token, '.'), *end = dot ? strchr(dot + 1, '.') : NULL;
	size_t n = end ? (size_t)(end - dot - 1) : 0, len;
	char b64[TOKEN_MAX + 4], json[TOKEN_MAX];
	cJSON *claims = NULL;

	if (!n)
		return NULL;
	for (size_t i = 0; i < n; i++)
		b64[i] = dot[1 + i] == '-' ? '+' : dot[1 + i] == '_' ? '/' : dot[1 + i];
	while (n % 4)
		b64[n++] = '=';
	b64[n] = 0;
	if (base64_decode(b64, json, sizeof(json), &len) == 0)
		claims = cJSON_ParseWithLength(json, len);
	OPENSSL_cleanse(b64, sizeof(b64));
	OPENSSL_cleanse(json, sizeof(json));
	return claims;
}

static void take_ids(const cJSON *answer, struct token_answer *out)
{
	cJSON *claims = claims_of(out->token);

	copy_id(out->client, answer, "client_id");
	copy_id(out->client, claims, "azp");
	copy_id(out->client, claims, "appid");
	copy_id(out->object, claims, "oid");
	cJSON_Delete(claims);
}

static int take_token(const cJSON *answer, struct token_answer *out, struct err *err)
{
	const char *s =
		cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "access_token"));
	const char *type =
		cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "token_type"));
	size_t n = s ? strlen(s) : 0;

	if (!n)
		return err_set(err, -EBADMSG, "the answer holds no access_token");
	if (n >= TOKEN_MAX)
		return err_set(err, -EBADMSG, "the token has %zu bytes, over %d", n, TOKEN_MAX - 1);
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr("-._~+/=", s[i]))
			return err_set(err, -EBADMSG,
				       "the token holds a character that no token has");
	if (type && strcasecmp(type, "Bearer") != 0)
		return err_set(err, -EBADMSG, "the token is of type %.40s, not Bearer", type);
	strcpy(out->token, s);
	return 0;
}

static int take_life(const cJSON *answer, time_t now, struct token_answer *out, struct err *err)
{
	int64_t in = number_of(answer, "expires_in"), on = number_of(answer, "expires_on");
	int64_t renew = number_of(answer, "refresh_in"), life = in;

	if (in < 0 && on < 0)
		return err_set(err, -EBADMSG, "the answer says neither expires_in nor expires_on");
	/* One in the past beside a life that is left is a clock that is wrong */
	if (on >= 0 && (in < 0 || (on > now && on - now < in)))
		life = on - now;
	if (life <= 0)
		return err_set(err, -EBADMSG,
			       "the token had ended when it came: is this node's clock right?");
	out->life_s = (uint32_t)(life < LIFE_MAX_S ? life : LIFE_MAX_S);
	out->renew_s = renew > 0 && renew < life ? (uint32_t)renew : 0;
	return 0;
}

/* cJSON frees without wiping. */
static void wipe_token(cJSON *answer)
{
	char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "access_token"));

	if (s)
		OPENSSL_cleanse(s, strlen(s));
}

int token_answer_parse(const char *json, size_t len, time_t now, struct token_answer *out,
		       struct err *err)
{
	cJSON *answer = cJSON_ParseWithLength(json, len);
	int rc;

	memset(out, 0, sizeof(*out));
	if (!cJSON_IsObject(answer))
		rc = err_set(err, -EBADMSG, "the answer is not JSON of a token");
	else
		rc = take_token(answer, out, err);
	if (!rc)
		rc = take_life(answer, now, out, err);
	if (!rc)
		take_ids(answer, out);
	else
		OPENSSL_cleanse(out->token, sizeof(out->token));
	wipe_token(answer);
	cJSON_Delete(answer);
	return rc;
}

const char *token_answer_error(const char *body, const char *secret, char *out, size_t cap)
{
	cJSON *answer = cJSON_Parse(body);
	const char *code = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "error"));
	const char *text =
		cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "error_description"));

	*out = 0;
	if (code || text)
		snprintf(out, cap, "%.60s%s%s", code ? code : "", code && text ? ": " : "",
			 text ? text : "");
	if (secret && *secret && ((text && strstr(text, secret)) || (code && strstr(code, secret))))
		*out = 0;
	out[strcspn(out, "\r\n")] = 0; /* trace ids follow */
	for (char *p = out; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f || *p == '"')
			*p = ' ';
	cJSON_Delete(answer);
	return out;
}
