/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/credentials.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "origin/azure_sign.h"

/* Published by Microsoft for the emulator: not a secret. */
#define EMULATOR_KEY                                                                               \
	"Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

#define SAS_HELP "a SAS has the form sv=..&..&sig=.."

static bool is_set(const char *s)
{
	return s && *s;
}

static const char *env_or(const char *set, const char *name)
{
	const char *env = getenv(name);

	return is_set(set) ? set : is_set(env) ? env : set;
}

void origin_config_from_env(struct origin_config *cfg)
{
	cfg->account = env_or(cfg->account, "AZURE_STORAGE_ACCOUNT");
	cfg->key = env_or(cfg->key, "AZURE_STORAGE_KEY");
	cfg->sas_token = env_or(cfg->sas_token, "AZURE_STORAGE_SAS_TOKEN");
	cfg->connection_string = env_or(cfg->connection_string, "AZURE_STORAGE_CONNECTION_STRING");
	cfg->ca_file = env_or(cfg->ca_file, "SSL_CERT_FILE");
	if (!is_set(cfg->identity) || strcmp(cfg->identity, "auto") == 0)
		cfg->identity = env_or(NULL, "AZURE_TOKEN_CREDENTIALS");
}

/* Copy without the blanks around it (secrets in files end in a newline). -ENAMETOOLONG. */
static int copy_trimmed(char *out, size_t cap, const char *s, size_t n)
{
	while (n && isspace((unsigned char)*s))
		s++, n--;
	while (n && isspace((unsigned char)s[n - 1]))
		n--;
	if (n >= cap)
		return -ENAMETOOLONG;
	memcpy(out, s, n);
	out[n] = 0;
	return 0;
}

static bool key_is(const char *s, size_t n, const char *name)
{
	while (n && isspace((unsigned char)*s))
		s++, n--;
	while (n && isspace((unsigned char)s[n - 1]))
		n--;
	return strlen(name) == n && strncasecmp(s, name, n) == 0;
}

static void use_emulator(struct connection_string *c, const char *proxy)
{
	strcpy(c->account, EMULATOR_ACCOUNT);
	strcpy(c->key, EMULATOR_KEY);
	strcpy(c->protocol, "http");
	snprintf(c->blob_endpoint, sizeof(c->blob_endpoint), "%.400s:10000/" EMULATOR_ACCOUNT,
		 *proxy ? proxy : "http://127.0.0.1");
}

/* One KEY=VALUE; keys that concern other services are passed over. -ENAMETOOLONG. */
static int take_pair(struct connection_string *c, const char *key, size_t key_len, const char *v,
		     size_t n, bool *emulator, char proxy[256])
{
	char use[8] = "";
	int rc = 0;

	if (key_is(key, key_len, "AccountName"))
		rc = copy_trimmed(c->account, sizeof(c->account), v, n);
	else if (key_is(key, key_len, "AccountKey"))
		rc = copy_trimmed(c->key, sizeof(c->key), v, n);
	else if (key_is(key, key_len, "SharedAccessSignature"))
		rc = copy_trimmed(c->sas, sizeof(c->sas), v, n);
	else if (key_is(key, key_len, "BlobEndpoint"))
		rc = copy_trimmed(c->blob_endpoint, sizeof(c->blob_endpoint), v, n);
	else if (key_is(key, key_len, "EndpointSuffix"))
		rc = copy_trimmed(c->suffix, sizeof(c->suffix), v, n);
	else if (key_is(key, key_len, "DefaultEndpointsProtocol"))
		rc = copy_trimmed(c->protocol, sizeof(c->protocol), v, n);
	else if (key_is(key, key_len, "DevelopmentStorageProxyUri"))
		rc = copy_trimmed(proxy, 256, v, n);
	else if (key_is(key, key_len, "UseDevelopmentStorage"))
		rc = copy_trimmed(use, sizeof(use), v, n);
	*emulator |= strcasecmp(use, "true") == 0;
	return rc;
}

static void cut_slashes(char *s)
{
	size_t n = strlen(s);

	while (n && s[n - 1] == '/')
		s[--n] = 0;
}

int connection_string_parse(const char *s, struct connection_string *out, struct err *err)
{
	char proxy[256] = "";
	bool emulator = false;

	memset(out, 0, sizeof(*out));
	strcpy(out->protocol, "https");
	for (const char *p = s; *p; p += *p == ';') {
		size_t n = strcspn(p, ";"), key = strcspn(p, "=");

		if (key < n && take_pair(out, p, key, p + key + 1, n - key - 1, &emulator, proxy))
			return err_set(err, -EINVAL, "the connection string's %.*s is too long",
				       (int)(key < 40 ? key : 40), p);
		if (key >= n && strspn(p, " \t\r\n") < n)
			return err_set(err, -EINVAL,
				       "the connection string has a part that is not KEY=VALUE: "
				       "put it in quotes, and copy it again");
		p += n;
	}
	cut_slashes(proxy);
	if (emulator)
		use_emulator(out, proxy);
	cut_slashes(out->blob_endpoint);
	if (*out->blob_endpoint && !*out->account &&
	    url_endpoint_account(out->blob_endpoint, out->suffix, out->account))
		return err_set(err, -EINVAL,
			       "the connection string's BlobEndpoint is not http(s)://HOST..");
	if (!*out->account)
		return err_set(err, -EINVAL,
			       "the connection string has neither AccountName nor BlobEndpoint");
	if (strcmp(out->protocol, "http") != 0 && strcmp(out->protocol, "https") != 0)
		return err_set(err, -EINVAL,
			       "the connection string's DefaultEndpointsProtocol is neither "
			       "http nor https");
	return 0;
}

/* @what names where the key was: never the key. */
static int take_key(const char *key, const char *what, struct credentials *cred, struct err *err)
{
	char trimmed[512];

	if (copy_trimmed(trimmed, sizeof(trimmed), key, strlen(key)) ||
	    base64_decode(trimmed, cred->key, sizeof(cred->key), &cred->key_len))
		return err_set(err, -EACCES,
			       "%s is no storage account key: that is base64, 88 characters "
			       "that end in ==",
			       what);
	return 0;
}

/* Without '?', and with the '+' of a signature that was pasted undecoded made safe. */
static int take_sas(const char *sas, const char *what, struct credentials *cred, struct err *err)
{
	char trimmed[ORIGIN_URL_MAX], sig[256];
	bool in_sig = false;
	size_t k = 0;

	if (copy_trimmed(trimmed, sizeof(trimmed), sas, strlen(sas)))
		return err_set(err, -EACCES, "%s is too long: " SAS_HELP, what);
	for (const char *p = trimmed + (*trimmed == '?'); *p; p++) {
		if (p == trimmed || p[-1] == '&' || p[-1] == '?')
			in_sig = strncasecmp(p, "sig=", 4) == 0;
		if ((unsigned char)*p <= 0x20 || strchr("\"<>\\^`{|}#", *p) ||
		    k + 4 > sizeof(cred->sas))
			return err_set(err, -EACCES,
				       "%s holds a character that no SAS has: " SAS_HELP, what);
		if (*p == '+' && in_sig) {
			memcpy(cred->sas + k, "%2B", 3);
			k += 3;
		} else {
			cred->sas[k++] = *p;
		}
	}
	cred->sas[k] = 0;
	if (!url_query_value(cred->sas, "sig", sig, sizeof(sig)))
		return err_set(err, -EACCES, "%s has no signature: " SAS_HELP, what);
	return 0;
}

static int no_credential(const struct origin_config *cfg, const struct url *u,
			 const struct connection_string *cs, struct err *err)
{
	if (*cs->account && strcmp(cs->account, u->account) != 0)
		return err_set(err, -EACCES,
			       "no credential for account %s: the connection string is for "
			       "account %s",
			       u->account, cs->account);
	if (is_set(cfg->account) && strcmp(cfg->account, u->account) != 0 &&
	    (is_set(cfg->key) || is_set(cfg->sas_token)))
		return err_set(err, -EACCES,
			       "no credential for account %s: AZURE_STORAGE_ACCOUNT is %.63s",
			       u->account, cfg->account);
	return err_set(err, -EACCES,
		       "no credential for account %s: set AZURE_STORAGE_KEY, "
		       "AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING, or append ?SAS "
		       "to the URL",
		       u->account);
}

/* A token goes over TLS only. */
static int take_identity(const struct origin_config *cfg, const struct url *u,
			 const struct connection_string *cs, struct credentials *cred,
			 struct err *err)
{
	struct err why = {0};

	if (identity_parse(cfg->identity, &cred->identity, err))
		return -EINVAL;
	if (strncasecmp(u->base, "https:", 6) != 0) {
		if (cred->identity == IDENTITY_AUTO)
			no_credential(cfg, u, cs, &why);
		return err_set(err, -EACCES, "%s%san identity's token is sent over https only",
			       why.text, *why.text ? "; " : "");
	}
	cred->use_identity = true;
	if (cred->identity != IDENTITY_AUTO)
		return 0;
	no_credential(cfg, u, cs, &why);
	snprintf(cred->why, sizeof(cred->why), "%.150s; ",
		 strstr(why.text, ": set ") ? "no key and no SAS is set" : why.text);
	return 0;
}

static int choose(const struct origin_config *cfg, const struct url *u,
		  const struct connection_string *cs, struct credentials *cred, struct err *err)
{
	bool cs_fits = *cs->account && strcmp(cs->account, u->account) == 0;
	bool cfg_fits = !is_set(cfg->account) || strcmp(cfg->account, u->account) == 0;

	identity_parse(cfg->identity, &cred->identity, NULL); /* a bad one matters if it is used */
	if (*u->query)
		return take_sas(u->query, "the SAS in the URL", cred, err);
	if (cred->identity != IDENTITY_AUTO && cred->identity != IDENTITY_OFF)
		return take_identity(cfg, u, cs, cred, err);
	if (cs_fits && *cs->key)
		return take_key(cs->key, "the connection string's AccountKey", cred, err);
	if (cs_fits && *cs->sas)
		return take_sas(cs->sas, "the connection string's SharedAccessSignature", cred,
				err);
	if (cfg_fits && is_set(cfg->key))
		return take_key(cfg->key, "AZURE_STORAGE_KEY", cred, err);
	if (cfg_fits && is_set(cfg->sas_token))
		return take_sas(cfg->sas_token, "AZURE_STORAGE_SAS_TOKEN", cred, err);
	if (cred->identity == IDENTITY_OFF)
		return no_credential(cfg, u, cs, err);
	return take_identity(cfg, u, cs, cred, err);
}

/* Where an az:// URL's account is. */
static void set_base(struct url *u, const struct connection_string *cs)
{
	bool fits = strcmp(cs->account, u->account) == 0;

	if (fits && *cs->blob_endpoint)
		strcpy(u->base, cs->blob_endpoint);
	else
		snprintf(u->base, sizeof(u->base), "%s://%s.blob.%s", fits ? cs->protocol : "https",
			 u->account, fits && *cs->suffix ? cs->suffix : "core.windows.net");
}

static bool may_be_azure(const char *url)
{
	return strncasecmp(url, "az:", 3) == 0 || strncasecmp(url, "http", 4) == 0;
}

int credentials_resolve(const char *url, const struct origin_config *cfg, struct url *u,
			struct credentials *cred, struct err *err)
{
	struct connection_string cs = {0};
	struct err cs_err = {0};
	struct url_hints hints;
	int rc = 0;

	memset(cred, 0, sizeof(*cred));
	if (is_set(cfg->connection_string) && may_be_azure(url))
		rc = connection_string_parse(cfg->connection_string, &cs, &cs_err);
	if (rc)
		memset(&cs, 0, sizeof(cs));
	hints = (struct url_hints){cfg->account, *cs.blob_endpoint ? cs.blob_endpoint : NULL,
				   cs.suffix};
	if (url_parse(url, &hints, u, err))
		return -EINVAL;
	if (u->kind != URL_AZURE)
		return 0;
	if (rc && !*u->query) /* a broken one matters only if it might have been used */
		return err_set(err, rc, "%s", cs_err.text);
	if (!*u->base)
		set_base(u, &cs);
	return choose(cfg, u, &cs, cred, err);
}
