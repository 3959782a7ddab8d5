/* SPDX-License-Identifier: Apache-2.0 */
/* Traces of extents that are read, made from a seed. */
#ifndef BENCH_EVICT_TRACE_H
#define BENCH_EVICT_TRACE_H

#include <stdint.h>

struct trace {
	const char *name;
	uint32_t *read;	  /* names of what is read, < names */
	uint64_t n, warm; /* what comes before @warm is not counted */
	uint32_t names;
	uint32_t grain; /* so many names are an extent: 64 or fewer */
};

#define TRACES 15

/* The @i-th trace for a store of @room extents; its reads are the caller's to free. */
struct trace trace_make(int i, uint32_t room, uint64_t seed);

#endif
