/* SPDX-License-Identifier: Apache-2.0 */
#include "fill/readahead.h"

static bool continues(const struct readahead_stream *s, uint64_t off, uint32_t len)
{
	uint64_t slack = (uint64_t)len * READAHEAD_QUEUE;

	if (!s->run)
		return false;
	if (slack > READAHEAD_SLACK)
		slack = READAHEAD_SLACK;
	if (off >= s->next && off < s->issued) /* hits in the window were not told to us */
		return true;
	return off <= s->next + slack && off + slack >= s->next;
}

static struct readahead_stream *stream_of(struct readahead *ra, uint64_t off, uint32_t len)
{
	struct readahead_stream *oldest = &ra->streams[0];

	for (int i = 0; i < READAHEAD_STREAMS; i++) {
		struct readahead_stream *s = &ra->streams[i];

		if (continues(s, off, len))
			return s;
		if (s->used < oldest->used)
			oldest = s;
	}
	*oldest = (struct readahead_stream){.next = off};
	return oldest;
}

static void widen(const struct readahead *ra, struct readahead_stream *s)
{
	uint64_t most = s->run * 2 < ra->max ? s->run * 2 : ra->max;

	s->window = s->window + READAHEAD_STEP < most ? s->window + READAHEAD_STEP : most;
}

/* In whole extents once it is that much. */
static uint64_t window_end(const struct readahead *ra, const struct readahead_stream *s)
{
	const uint64_t extent = 4ULL << 20;
	uint64_t end = s->next + s->window;

	if (s->window >= extent)
		end = end / extent * extent;
	return end < ra->size ? end : ra->size;
}

bool readahead_note(struct readahead *ra, uint64_t off, uint32_t len, bool missed, uint64_t *from,
		    uint64_t *to, uint64_t *wake_at, uint32_t *stream)
{
	struct readahead_stream *s = stream_of(ra, off, len);
	uint64_t end = off + len;

	s->used = ++ra->tick;
	s->reads++;
	/* Inside the window the hits between were not told to us, so they count by what they
	 * skipped. */
	s->run += off >= s->next && off < s->issued ? end - s->next : len;
	if (end > s->next)
		s->next = end;
	if (!ra->max || s->run < READAHEAD_MIN_RUN || s->reads < READAHEAD_MIN_READS)
		return false;
	if (missed)
		widen(ra, s);
	*from = s->issued > s->next ? s->issued : s->next;
	*to = window_end(ra, s);
	*wake_at = s->next;
	*stream = (uint32_t)(s - ra->streams);
	if (*to <= *from)
		return false;
	s->issued = *to;
	return true;
}
