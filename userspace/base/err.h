/* SPDX-License-Identifier: Apache-2.0 */
/* An error on its way up: a negative errno for the program and one sentence for the person.
 *
 * Functions return 0 or a negative errno; those that know the image, extent or file also take
 * `struct err *` and fill it exactly once, where the thing is known.  The text names the thing and
 * the remedy, and never holds a secret (no SAS signature, key or token).
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>

struct err {
	int code;	/* 0 or a negative errno */
	char text[768]; /* one sentence, no newline */
};

/* Set @e (may be NULL) and return @code, so that callers write `return err_set(e, -EIO, "..")`. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "prefix: " before the text that is there. Returns e->code. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
