/* SPDX-License-Identifier: Apache-2.0 */
#include "image/runs.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/tree.h"

#define RUNS_SEEN_MAX (1U << 20) /* 16 MiB of memory */

int runs_add(struct runs *r, uint64_t off, uint64_t len)
{
	struct run *last = r->n ? &r->v[r->n - 1] : NULL;

	if (len == 0)
		return 0;
	if (last && off <= last->off + last->len) {
		if (off + len > last->off + last->len)
			last->len = off + len - last->off;
		return 0;
	}
	if (r->n == r->room) {
		uint32_t room = r->room ? 2 * r->room : 64;
		struct run *v = reallocarray(r->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		r->v = v;
		r->room = room;
	}
	r->v[r->n++] = (struct run){off, len};
	return 0;
}

void runs_clear(struct runs *r)
{
	free(r->v);
	*r = (struct runs){0};
}

static int find(int fd, uint64_t length, struct runs *r)
{
	uint64_t at = 0;

	while (at < length) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;
		uint64_t start, end;
		int rc;

		if (data < 0 && errno == ENXIO)
			return 0;
		if (data < 0 && (errno == EINVAL || errno == EOPNOTSUPP))
			return runs_add(r, at, length - at);
		if (data < 0)
			return -errno;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		if ((uint64_t)data >= length)
			return 0;
		start = (uint64_t)data & ~(uint64_t)(BLOCK_SIZE - 1);
		end = ((uint64_t)hole + BLOCK_SIZE - 1) & ~(uint64_t)(BLOCK_SIZE - 1);
		if (end > length)
			end = length;
		rc = runs_add(r, start, end - start);
		if (rc)
			return rc;
		if (r->n >= RUNS_SEEN_MAX && (rc = runs_limit(r, RUNS_SEEN_MAX / 2)))
			return rc;
		at = end;
	}
	return 0;
}

int runs_find(int fd, uint64_t length, struct runs *out, struct err *err)
{
	struct runs r = {0};
	int rc = find(fd, length, &r);

	if (rc) {
		runs_clear(&r);
		return err_set(err, rc, "can't find the holes of the file: %s", strerror(-rc));
	}
	*out = r;
	return 0;
}

static int larger_first(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? 1 : x > y ? -1 : 0;
}

static uint64_t hole_after(const struct runs *r, uint32_t i)
{
	return r->v[i + 1].off - (r->v[i].off + r->v[i].len);
}

int runs_limit(struct runs *r, uint32_t max)
{
	uint32_t keep = max - 1, equal, n = 0;
	uint64_t *holes, least = 0;

	if (r->n <= max)
		return 0;
	holes = calloc(r->n, sizeof(*holes));
	if (!holes)
		return -ENOMEM;
	for (uint32_t i = 0; i + 1 < r->n; i++)
		holes[i] = hole_after(r, i);
	qsort(holes, r->n - 1, sizeof(*holes), larger_first);
	/* Holes larger than `least` all stay, and `equal` of those as large as it. */
	least = keep ? holes[keep - 1] : UINT64_MAX;
	for (equal = 0; equal < keep && holes[keep - 1 - equal] == least;)
		equal++;
	free(holes);
	for (uint32_t i = 1; i < r->n; i++) {
		uint64_t hole = r->v[i].off - (r->v[n].off + r->v[n].len);
		bool stays = hole > least || (hole == least && equal > 0);

		if (hole == least && stays)
			equal--;
		if (stays)
			r->v[++n] = r->v[i];
		else
			r->v[n].len = r->v[i].off + r->v[i].len - r->v[n].off;
	}
	r->n = n + 1;
	return 0;
}

/* The last run that starts at or before @off; UINT32_MAX if none. */
static uint32_t last_before(const struct runs *r, uint64_t off)
{
	uint32_t lo = 0, hi = r->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (r->v[mid].off <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo - 1;
}

const struct run *runs_at(const struct runs *r, uint64_t off)
{
	uint32_t i = last_before(r, off);

	return i != UINT32_MAX && off < r->v[i].off + r->v[i].len ? &r->v[i] : NULL;
}

uint64_t runs_total(const struct runs *r)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < r->n; i++)
		sum += r->v[i].len;
	return sum;
}

int run_units_init(struct run_units *u, const struct runs *runs, unsigned shift)
{
	*u = (struct run_units){.runs = runs, .shift = shift};
	u->first = calloc(runs->n + 1, sizeof(*u->first));
	if (!u->first)
		return -ENOMEM;
	for (uint32_t i = 0; i < runs->n; i++) {
		const struct run *r = &runs->v[i];

		u->first[i] = u->n;
		u->n += ((r->off + r->len - 1) >> shift) - (r->off >> shift) + 1;
	}
	u->first[runs->n] = u->n;
	return 0;
}

void run_units_clear(struct run_units *u)
{
	free(u->first);
	u->first = NULL;
}

struct run run_unit(const struct run_units *u, uint64_t i, uint32_t *run_index)
{
	uint32_t lo = 0, hi = u->runs->n;
	uint64_t cell, start, end;
	const struct run *r;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (u->first[mid] <= i)
			lo = mid;
		else
			hi = mid;
	}
	r = &u->runs->v[lo];
	cell = (r->off >> u->shift) + (i - u->first[lo]);
	start = cell << u->shift;
	end = (cell + 1) << u->shift;
	if (start < r->off)
		start = r->off;
	if (end > r->off + r->len)
		end = r->off + r->len;
	if (run_index)
		*run_index = lo;
	return (struct run){start, end - start};
}
