/* SPDX-License-Identifier: Apache-2.0 */
/* A call that may hang, made in a child that may be lost: opening a file on a mount whose server is
 * stuck, draining a loop device. For single-threaded programs (the child runs C of any kind). */
#ifndef BASE_BOUNDED_H
#define BASE_BOUNDED_H

#include "base/err.h"

struct bounded_result {
	int rc;	   /* 0 or a negative errno, as @fn returned it */
	int value; /* a second number, if @fn sets one */
	char text[512];
};

/* Run fn(arg, result) in a child, wait @timeout_ms. Returns result->rc; -ETIMEDOUT when the child
 * was killed (it may be unkillable for a while: nobody waits for it); -EIO when it died. */
int bounded_call(int (*fn)(void *arg, struct bounded_result *res), void *arg, int timeout_ms,
		 struct bounded_result *out);

#endif
