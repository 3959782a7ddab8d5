/* SPDX-License-Identifier: Apache-2.0 */
/* Policies that others use, to replay a trace under: caches of names, each of one place. */
#ifndef BENCH_EVICT_REFERENCE_H
#define BENCH_EVICT_REFERENCE_H

#include <stdbool.h>
#include <stdint.h>

struct reference {
	const char *name;
	void *(*new)(uint32_t room, uint32_t names);
	bool (*read)(void *cache, uint32_t name); /* a hit? */
	void (*free)(void *cache);
};

#define REFERENCES 5
extern const struct reference references[REFERENCES];

#endif
