/* SPDX-License-Identifier: Apache-2.0 */
#include "control/reply.h"

#include <errno.h>
#include <stdio.h>

unsigned reply_status(int code)
{
	switch (-code) {
	case EINVAL:
	case ERANGE:
	case ENAMETOOLONG:
		return 400;
	case EACCES:
	case EPERM:
		return 403;
	case ENOENT:
		return 404;
	case EEXIST:
	case EBUSY:
	case ESTALE:
		return 409;
	case ENOTSUP:
		return 501;
	case ESHUTDOWN:
		return 503;
	case ETIMEDOUT:
		return 504;
	default:
		return 500;
	}
}

void reply_json(struct api_reply *out, unsigned status, cJSON *json)
{
	out->status = status;
	out->type = "application/json";
	out->body = cJSON_Print(json);
	cJSON_Delete(json);
}

void api_reply_error(struct api_reply *out, unsigned status, int code, const char *text)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "error", text);
	cJSON_AddNumberToObject(o, "errno", -code);
	reply_json(out, status, o);
}

void reply_err(struct api_reply *out, const struct err *e)
{
	api_reply_error(out, reply_status(e->code), e->code, e->text);
}

void reply_add_u64(cJSON *o, const char *key, uint64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	cJSON_AddRawToObject(o, key, text);
}

void reply_add_sources(cJSON *o, const char *key, uint64_t local, uint64_t peer, uint64_t origin)
{
	cJSON *s = cJSON_AddObjectToObject(o, key);

	reply_add_u64(s, "local", local);
	reply_add_u64(s, "peer", peer);
	reply_add_u64(s, "origin", origin);
}
