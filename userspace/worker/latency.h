/* SPDX-License-Identifier: Apache-2.0 */
/* How long readers of the worker's exports waited, by where the bytes were. */
#ifndef WORKER_LATENCY_H
#define WORKER_LATENCY_H

#include "base/histogram.h"

struct latency {
	struct histogram local;	   /* resident, or on the store's disk */
	struct histogram origin;   /* a block or more came from the origin */
	_Atomic uint64_t stall_ns; /* waited for fills, failed ones too, over all readers */
};

struct latency_view {
	struct histogram_view local, origin;
	uint64_t stall_ns;
};

#endif
