/* SPDX-License-Identifier: Apache-2.0 */
/* The files with secrets that [azure] names are readable by root only, and the worker is not root:
 * the supervisor reads them anew at each start of a worker and hands their text over in a memfd,
 * which the worker reads once and closes. */
#ifndef WORKER_SECRETS_H
#define WORKER_SECRETS_H

#include "base/config.h"
#include "base/err.h"

enum secret { SECRET_KEY, SECRET_SAS, SECRET_CONNECTION_STRING, SECRETS };

/* A memfd of the caller's; what could not be read is said in it. -EMFILE, -ENOMEM.. */
int secrets_pass(const struct config *cfg);

/* The texts, NULL where [azure] names no file, each the caller's to wipe and free: from @fd, which
 * is closed, or from the files themselves where it is -1. The error names the file and why. */
int secrets_take(const struct config *cfg, int fd, char *out[SECRETS], struct err *err);

void secrets_wipe(char *secrets[SECRETS]);

#endif
