/* SPDX-License-Identifier: Apache-2.0 */
/* A crew: threads that take numbered jobs, in order, until none is left or one fails. What push,
 * seal and verify hash, send and read with. */
#ifndef IMAGE_CREW_H
#define IMAGE_CREW_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "origin/origin.h"

/* Who wants to know how far things are. fn runs on the thread that called: when a phase
 * begins, some times a second, and at its end if it went well. */
struct image_progress {
	void (*fn)(void *arg, const char *phase, uint64_t done, uint64_t total);
	void *arg;
};

/* What one thread of the crew has to itself. */
struct crew_hand {
	uint8_t *scratch;	      /* @scratch bytes, aligned to 4 KiB */
	struct origin_client *client; /* NULL unless the crew has an origin_config */
};

struct crew {
	unsigned threads;		    /* 0 = one a CPU */
	uint64_t jobs;			    /* run() is called once for each of 0 .. jobs - 1 */
	size_t scratch;			    /* bytes a thread */
	const struct origin_config *config; /* not NULL: each thread gets a loop and a client */
	/* Runs on any of the threads. The first error stops the crew; crew_run returns it. */
	int (*run)(void *arg, struct crew_hand *hand, uint64_t job, struct err *err);
	void *arg;
	const struct image_progress *progress; /* may be NULL */
	const char *phase;		       /* "hashing" */
	_Atomic uint64_t done;		       /* bytes; run() adds to it */
	uint64_t total;
};

/* Returns when every thread has ended. 0, the error of run(), or -EAGAIN/-ENOMEM. */
int crew_run(struct crew *crew, struct err *err);

#endif
