/* SPDX-License-Identifier: Apache-2.0 */
/* What the bench's origin counts, and its log of requests: both of files only, both since a reset.
 *
 * Bytes and requests of trees and of manifests are apart from those of data, by their names. The
 * log holds the first LOG_MAX requests: when each came and when its last bytes were about to leave.
 */
#ifndef TESTS_BENCH_COUNTERS_H
#define TESTS_BENCH_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define LOG_MAX 65536

enum kind { DATA, TREE, MANIFEST, KINDS };

static struct {
	_Atomic uint64_t requests, heads, ranges, errors; /* errors: answered 4xx */
	_Atomic uint64_t body_bytes;
	_Atomic uint64_t kind_requests[KINDS], kind_bytes[KINDS];
	_Atomic uint64_t connections, open;
	_Atomic uint64_t in_flight, max_in_flight;
	_Atomic uint64_t rounds; /* requests that came while no other was in flight */
} count;

struct entry {
	_Atomic uint64_t end_ns; /* 0: not yet */
	uint64_t start_ns, off, len;
	char path[104];
};

static struct entry log_entries[LOG_MAX];
static _Atomic uint64_t log_used, log_since_ns;

static inline enum kind kind_of(const char *path)
{
	static const char *const ends[KINDS] = {[TREE] = ".tree", [MANIFEST] = ".cairn.json"};
	size_t len = strlen(path);

	for (int k = TREE; k < KINDS; k++)
		if (len > strlen(ends[k]) && strcmp(path + len - strlen(ends[k]), ends[k]) == 0)
			return (enum kind)k;
	return DATA;
}

/* NULL when the log is full. */
static inline struct entry *count_start(const char *path, bool head)
{
	uint64_t now = ++count.in_flight, most = count.max_in_flight;
	struct entry *e;

	while (now > most && !atomic_compare_exchange_weak(&count.max_in_flight, &most, now))
		;
	count.rounds += now == 1;
	count.requests++;
	count.heads += head;
	count.kind_requests[kind_of(path)]++;
	now = log_used < LOG_MAX ? log_used++ : LOG_MAX;
	if (now >= LOG_MAX)
		return NULL;
	e = &log_entries[now];
	e->end_ns = 0;
	e->start_ns = clock_now_ns();
	e->off = e->len = 0;
	snprintf(e->path, sizeof(e->path), "%s", path);
	return e;
}

/* Before, since a client may have the bytes and send its next request before a send returns. */
static inline void log_sending(struct entry *e)
{
	if (e)
		e->end_ns = clock_now_ns();
}

static inline void count_reset(void)
{
	count.requests = count.heads = count.ranges = count.errors = count.body_bytes = 0;
	for (int k = 0; k < KINDS; k++)
		count.kind_requests[k] = count.kind_bytes[k] = 0;
	count.connections = count.open - 1; /* but not the one that asks */
	count.max_in_flight = count.in_flight;
	count.rounds = 0;
	log_used = 0;
	log_since_ns = clock_now_ns();
}

static inline void print_stats(FILE *f)
{
	static const char *const names[KINDS] = {"data", "tree", "manifest"};

	fprintf(f, "{\"requests\":%ju,\"heads\":%ju,\"ranges\":%ju,\"errors\":%ju,",
		(uintmax_t)count.requests, (uintmax_t)count.heads, (uintmax_t)count.ranges,
		(uintmax_t)count.errors);
	fprintf(f, "\"body_bytes\":%ju,\"connections\":%ju,\"open\":%ju,",
		(uintmax_t)count.body_bytes, (uintmax_t)count.connections, (uintmax_t)count.open);
	for (int k = 0; k < KINDS; k++)
		fprintf(f, "\"%s_requests\":%ju,\"%s_bytes\":%ju,", names[k],
			(uintmax_t)count.kind_requests[k], names[k],
			(uintmax_t)count.kind_bytes[k]);
	fprintf(f, "\"in_flight\":%ju,\"max_in_flight\":%ju,\"rounds\":%ju",
		(uintmax_t)count.in_flight, (uintmax_t)count.max_in_flight,
		(uintmax_t)count.rounds);
}

/* Milliseconds since the reset; "end" is null before the first byte of an answer. */
static inline void print_log(FILE *f)
{
	uint64_t n = log_used, since = log_since_ns;

	fprintf(f, "[");
	for (uint64_t i = 0; i < n && i < LOG_MAX; i++) {
		const struct entry *e = &log_entries[i];
		uint64_t end = e->end_ns;

		fprintf(f, "%s{\"start\":%.3f,\"end\":", i ? ",\n" : "",
			(double)(e->start_ns - since) / 1e6);
		fprintf(f, end ? "%.3f" : "null", (double)(end - since) / 1e6);
		fprintf(f, ",\"off\":%ju,\"len\":%ju,\"path\":\"", (uintmax_t)e->off,
			(uintmax_t)e->len);
		for (const char *p = e->path; *p; p++)
			fprintf(f, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
		fprintf(f, "\"}");
	}
	fprintf(f, "]\n");
}

#endif
