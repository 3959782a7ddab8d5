/* SPDX-License-Identifier: Apache-2.0 */
/* Runs: where a file holds data and where holes, in whole blocks. */
#ifndef IMAGE_RUNS_H
#define IMAGE_RUNS_H

#include <stdint.h>

#include "base/err.h"

/* Starts at a multiple of 64 KiB, and ends at one or at the end of what it is a run of. */
struct run {
	uint64_t off, len;
};

/* In order, neither overlapping nor touching. Zero it before first use. */
struct runs {
	struct run *v;
	uint32_t n, room;
};

/* Add [off, off + len), which starts at or after the last run's start; joins it when they touch. */
int runs_add(struct runs *r, uint64_t off, uint64_t len);
void runs_clear(struct runs *r);

/* The data of @fd in [0, length): SEEK_DATA and SEEK_HOLE, widened to whole blocks. A file system
 * that knows no holes gives one run. More than a million runs are joined over their smallest holes,
 * so memory stays bounded. */
int runs_find(int fd, uint64_t length, struct runs *out, struct err *err);

/* At most @max (>= 1) runs, by joining over the smallest holes. 0 or -ENOMEM. */
int runs_limit(struct runs *r, uint32_t max);

/* The run that holds @off, or NULL. */
const struct run *runs_at(const struct runs *r, uint64_t off);

uint64_t runs_total(const struct runs *r);

/* Runs cut along a grid of 2^shift bytes, numbered: jobs for a crew. */
struct run_units {
	const struct runs *runs;
	uint64_t *first; /* number of each run's first unit */
	uint64_t n;
	unsigned shift;
};
int run_units_init(struct run_units *u, const struct runs *runs, unsigned shift); /* 0, -ENOMEM */
void run_units_clear(struct run_units *u);
struct run run_unit(const struct run_units *u, uint64_t i, uint32_t *run_index);

#endif
