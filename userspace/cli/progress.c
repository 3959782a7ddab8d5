/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"

#define BAR	    24
#define PLAIN_EVERY (5 * NSEC_PER_SEC)

static void format_left(uint64_t seconds, char *buf, size_t len)
{
	if (seconds >= 3600)
		snprintf(buf, len, "%lluh%02llum", (unsigned long long)seconds / 3600,
			 (unsigned long long)seconds / 60 % 60);
	else
		snprintf(buf, len, "%llu:%02llu", (unsigned long long)seconds / 60,
			 (unsigned long long)seconds % 60);
}

static void draw(const struct progress *p, uint64_t done, uint64_t total, uint64_t now)
{
	double seconds = (double)(now - p->begun_ns) / 1e9;
	double rate = seconds > 0 ? (double)(done - p->begun_at) / seconds : 0;
	unsigned full = total ? (unsigned)((double)done / (double)total * BAR) : BAR;
	unsigned percent = total ? (unsigned)((double)done / (double)total * 100) : 100;
	char bar[BAR + 1], of[24], at[24], speed[24], left[24] = "-:--";

	memset(bar, '.', BAR);
	memset(bar, '#', full < BAR ? full : BAR);
	bar[BAR] = 0;
	bytes_format(done, at, sizeof(at));
	bytes_format(total, of, sizeof(of));
	bytes_format((uint64_t)rate, speed, sizeof(speed));
	if (done == total)
		format_left((uint64_t)seconds, left, sizeof(left));
	else if (rate > 0)
		format_left((uint64_t)((double)(total - done) / rate), left, sizeof(left));
	if (p->terminal)
		fprintf(stderr, "\r\033[K%s [%s] %u%% %s/s, %s %s", p->phase, bar, percent, speed,
			left, done == total ? "taken" : "left");
	else
		fprintf(stderr, "%s: %u%%, %s of %s, %s/s, %s %s\n", p->phase, percent, at, of,
			speed, left, done == total ? "taken" : "left");
	fflush(stderr);
}

static void on_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct progress *p = arg;
	uint64_t now = clock_now_ns();

	if (p->quiet)
		return;
	if (strcmp(p->phase, phase) != 0 || done < p->begun_at) {
		progress_end(p);
		snprintf(p->phase, sizeof(p->phase), "%s", phase);
		p->begun_ns = p->said_ns = now;
		p->begun_at = p->last = done;
	}
	if (done == p->last || (!p->terminal && done != total && now - p->said_ns < PLAIN_EVERY))
		return;
	p->said_ns = now;
	p->last = done;
	draw(p, done, total, now);
	p->drawn = p->terminal;
	if (done == total)
		progress_end(p);
}

void progress_init(struct progress *p, bool quiet)
{
	memset(p, 0, sizeof(*p));
	p->image.fn = on_progress;
	p->image.arg = p;
	p->quiet = quiet;
	p->terminal = isatty(STDERR_FILENO);
}

void progress_end(struct progress *p)
{
	if (p->drawn)
		fputc('\n', stderr);
	p->drawn = false;
	p->phase[0] = 0;
}
