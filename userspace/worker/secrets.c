/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/secrets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"

#define SECRET_MAX (64 * KIB)

/* In the memfd: this, then the texts one after another. Both sides are one binary. */
struct head {
	int32_t code[SECRETS];
	uint32_t len[SECRETS];
};

static const char *file_of(const struct config *cfg, int i)
{
	const char *files[SECRETS] = {cfg->azure_key_file, cfg->azure_sas_token_file,
				      cfg->azure_connection_string_file};

	return files[i];
}

/* *out stays NULL when there is no such file to read. */
static int secret_read(const char *path, char **out)
{
	size_t len;
	int rc = path[0] ? file_read_all(path, SECRET_MAX, out, &len) : 0;

	if (!rc && *out)
		(*out)[strcspn(*out, "\r\n")] = 0;
	return rc;
}

void secrets_wipe(char *secrets[SECRETS])
{
	for (int i = 0; i < SECRETS; i++) {
		if (secrets[i])
			explicit_bzero(secrets[i], strlen(secrets[i]));
		free(secrets[i]);
		secrets[i] = NULL;
	}
}

int secrets_pass(const struct config *cfg)
{
	int fd = memfd_create("cairn-secrets", MFD_CLOEXEC), rc = fd < 0 ? -errno : 0;
	char *text[SECRETS] = {NULL};
	struct head h = {0};
	uint64_t off = sizeof(h);

	for (int i = 0; !rc && i < SECRETS; i++) {
		h.code[i] = secret_read(file_of(cfg, i), &text[i]);
		h.len[i] = text[i] ? (uint32_t)strlen(text[i]) : 0;
		if (text[i])
			rc = pwrite_all(fd, text[i], h.len[i], off);
		off += h.len[i];
	}
	if (!rc)
		rc = pwrite_all(fd, &h, sizeof(h), 0);
	secrets_wipe(text);
	if (rc && fd >= 0)
		close(fd);
	return rc ? rc : fd;
}

static int take_from(int fd, const struct config *cfg, int codes[SECRETS], char *out[SECRETS])
{
	struct head h;
	uint64_t off = sizeof(h);
	int rc = pread_all(fd, &h, sizeof(h), 0);

	for (int i = 0; !rc && i < SECRETS; i++) {
		codes[i] = h.code[i];
		if (!file_of(cfg, i)[0] || h.code[i])
			continue;
		out[i] = h.len[i] <= SECRET_MAX ? calloc(1, h.len[i] + 1) : NULL;
		rc = out[i] ? pread_all(fd, out[i], h.len[i], off) : -ENOMEM;
		off += h.len[i];
	}
	return rc;
}

int secrets_take(const struct config *cfg, int fd, char *out[SECRETS], struct err *err)
{
	int codes[SECRETS] = {0}, rc = 0;

	memset(out, 0, SECRETS * sizeof(*out));
	for (int i = 0; fd < 0 && i < SECRETS; i++)
		codes[i] = secret_read(file_of(cfg, i), &out[i]);
	if (fd >= 0) {
		rc = take_from(fd, cfg, codes, out);
		close(fd);
	}
	if (rc)
		err_set(err, rc, "the secrets that the supervisor passed can't be read: %s",
			strerror(-rc));
	for (int i = 0; !rc && i < SECRETS; i++)
		if (codes[i])
			rc = err_set(err, codes[i], "can't read the secret in %s: %s",
				     file_of(cfg, i), strerror(-codes[i]));
	if (rc)
		secrets_wipe(out);
	return rc;
}
