/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/top_print.h"

#include <string.h>

#include "base/bytes.h"
#include "cli/cli.h"

#define BOLD  "\033[1m"
#define FAINT "\033[2m"
#define HOT   "\033[33m"
#define BAD   "\033[1;31m"
#define PLAIN "\033[0m"

#define LIST_MAX 8 /* extents, and streams, of an image */
#define LIST_MIN 3

struct printer {
	FILE *out;
	bool colours;
	int list; /* how many of each */
};

static const cJSON *member(const cJSON *o, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(o, key);
}

static const char *style(const struct printer *p, const char *code)
{
	return p->colours ? code : "";
}

/* Names are an image's or a job's: no control character of theirs reaches the terminal. */
static void text_put(const struct printer *p, const char *s)
{
	for (; *s; s++)
		fputc((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s, p->out);
}

static const char *seconds_text(double s, char buf[16])
{
	if (s < 1e-3)
		snprintf(buf, 16, "%.3g us", s * 1e6);
	else if (s < 1)
		snprintf(buf, 16, "%.3g ms", s * 1e3);
	else
		snprintf(buf, 16, "%.3g s", s);
	return buf;
}

static const char *rate_text(double bytes, char buf[24])
{
	bytes_format((uint64_t)bytes, buf, 20);
	strcat(buf, "/s");
	return buf;
}

/* ---- the node ---- */

static void source_put(const struct printer *p, const cJSON *s)
{
	const cJSON *l = member(s, "latency");
	bool old = cli_number(l, "count") <= 0;
	char rate[24], a[16], b[16], c[16];

	if (old)
		l = member(s, "latency_since_start");
	fprintf(p->out, "%-8s %10.0f %14s", s->string, cli_number(s, "reads_per_second"),
		rate_text(cli_number(s, "bytes_per_second"), rate));
	if (cli_number(l, "count") > 0)
		fprintf(p->out, " %10s %10s %10s%s", seconds_text(cli_number(l, "p50_seconds"), a),
			seconds_text(cli_number(l, "p99_seconds"), b),
			seconds_text(cli_number(l, "max_seconds"), c),
			old ? "  since the start" : "");
	else
		fprintf(p->out, " %10s %10s %10s", "-", "-", "-");
	fputc('\n', p->out);
}

static void node_put(const struct printer *p, const cJSON *f)
{
	double lost = cli_number(f, "events_lost"), errors = cli_number(f, "read_errors");
	const cJSON *s;

	fprintf(p->out, "%scairn top%s  events lost: %s%.0f%s; observer: ", style(p, BOLD),
		style(p, PLAIN), lost > 0 ? style(p, BAD) : "", lost, style(p, PLAIN));
	text_put(p, cli_text(f, "hooks")); /* last: it is long */
	fputs("\n\n", p->out);
	fprintf(p->out, "%s%-8s %10s %14s %10s %10s %10s%s\n", style(p, BOLD), "SOURCE", "READS/S",
		"BYTES", "P50", "P99", "MAX", style(p, PLAIN));
	cJSON_ArrayForEach (s, member(f, "sources")) {
		source_put(p, s);
	}
	fprintf(p->out, "readers waiting for misses: %.2f on average; failed reads: %s%.0f%s\n",
		cli_number(f, "stall_seconds_per_second"), errors > 0 ? style(p, BAD) : "", errors,
		style(p, PLAIN));
}

/* ---- an image ---- */

static void cache_put(const struct printer *p, const cJSON *i)
{
	const cJSON *c = member(i, "page_cache");

	if (!c)
		return;
	if (member(c, "hit_share"))
		fprintf(p->out, ", page cache %.1f %% hits", 100 * cli_number(c, "hit_share"));
	else
		fprintf(p->out, ", page cache %.1f %% hits since the attach",
			100 * cli_number(c, "hit_share_since_attach"));
}

static void image_put(const struct printer *p, const cJSON *i)
{
	const cJSON *s = member(i, "sources");
	char a[24], b[24], c[24];

	fprintf(p->out, "\n%s", style(p, BOLD));
	text_put(p, cli_text(i, "name"));
	fprintf(p->out, "%s", style(p, PLAIN));
	if (cli_text(i, "device")[0])
		fprintf(p->out, "  %s", cli_text(i, "device"));
	if (cli_text(i, "mounted_on")[0]) {
		fputs(" on ", p->out);
		text_put(p, cli_text(i, "mounted_on"));
	}
	fprintf(p->out, "  %s of %s stored\n",
		bytes_format((uint64_t)cli_number(i, "bytes_present"), a, sizeof(a)),
		bytes_format((uint64_t)cli_number(i, "length"), b, sizeof(b)));
	fprintf(p->out, "  served %s from the store, %s from origins",
		rate_text(cli_number(member(s, "local"), "bytes_per_second"), a),
		rate_text(cli_number(member(s, "origin"), "bytes_per_second"), b));
	if (member(i, "requests_per_second"))
		fprintf(p->out, "; device %.0f requests/s, %s",
			cli_number(i, "requests_per_second"),
			rate_text(cli_number(i, "request_bytes_per_second"), c));
	cache_put(p, i);
	fputc('\n', p->out);
}

static void hottest_put(const struct printer *p, const cJSON *i)
{
	const cJSON *h;
	char off[24];
	int n = 0;

	if (!cJSON_GetArraySize(member(i, "hottest")))
		return;
	fprintf(p->out, "  %s%8s %12s  %s%s\n", style(p, FAINT), "HEAT", "EXTENT AT", "FILES",
		style(p, PLAIN));
	cJSON_ArrayForEach (h, member(i, "hottest")) {
		if (n++ == p->list)
			break;
		fprintf(p->out, "  %s%8.0f%s %12s  ", style(p, HOT), cli_number(h, "heat"),
			style(p, PLAIN),
			bytes_format((uint64_t)cli_number(h, "off"), off, sizeof(off)));
		text_put(p, cli_text(h, "file")[0] ? cli_text(h, "file") : "-");
		if (cli_number(h, "more_files") > 0)
			fprintf(p->out, " and %.0f more", cli_number(h, "more_files"));
		fputc('\n', p->out);
	}
}

static void stream_put(const struct printer *p, const cJSON *s)
{
	char bytes[24], verdict[40];

	if (strcmp(cli_text(s, "verdict"), "stride") == 0)
		snprintf(verdict, sizeof(verdict), "stride %+.0f KiB",
			 cli_number(s, "stride") / 1024);
	else
		snprintf(verdict, sizeof(verdict), "%s", cli_text(s, "verdict"));
	fprintf(p->out, "  %8.0f ", cli_number(s, "tid"));
	text_put(p, cli_text(s, "comm"));
	fprintf(p->out, "%*s %-18s %6.0f %8.0f %12s  ",
		(int)(16 - (strlen(cli_text(s, "comm")) < 16 ? strlen(cli_text(s, "comm")) : 16)),
		"", verdict, cli_number(s, "run"), cli_number(s, "windows"),
		bytes_format((uint64_t)cli_number(s, "bytes"), bytes, sizeof(bytes)));
	if (cli_text(s, "file")[0])
		text_put(p, cli_text(s, "file"));
	else if (cli_number(s, "ino") > 0)
		fprintf(p->out, "inode %.0f", cli_number(s, "ino"));
	else
		fputs("the device itself", p->out);
	fputc('\n', p->out);
}

static void streams_put(const struct printer *p, const cJSON *i)
{
	const cJSON *s;
	int n = 0;

	if (!cJSON_GetArraySize(member(i, "streams")))
		return;
	fprintf(p->out, "  %s%8s %-16s %-18s %6s %8s %12s  %s%s\n", style(p, FAINT), "TASK", "",
		"VERDICT", "RUN", "WINDOWS", "BYTES", "FILE", style(p, PLAIN));
	cJSON_ArrayForEach (s, member(i, "streams")) {
		if (n++ == p->list)
			break;
		stream_put(p, s);
	}
}

/* ---- all ---- */

static double activity(const cJSON *i)
{
	const cJSON *s;
	double sum = cli_number(i, "request_bytes_per_second");

	cJSON_ArrayForEach (s, member(i, "sources")) {
		sum += cli_number(s, "bytes_per_second");
	}
	return sum;
}

/* The busiest that is not before @last, which was printed last (NULL: none); by name where equally
 * busy, as they come. */
static const cJSON *image_next(const cJSON *images, const cJSON *last)
{
	const cJSON *best = NULL, *i;
	bool passed = !last;

	cJSON_ArrayForEach (i, images) {
		double a = activity(i), limit = last ? activity(last) : 0;

		if (last && (a > limit || (a == limit && !passed))) {
			passed = passed || i == last;
			continue;
		}
		passed = passed || i == last;
		if (!best || a > activity(best))
			best = i;
	}
	return best;
}

void top_print(const cJSON *frame, bool colours, uint32_t rows, FILE *out)
{
	const cJSON *images = member(frame, "images"), *i = NULL;
	int n = cJSON_GetArraySize(images);
	struct printer p = {.out = out, .colours = colours, .list = LIST_MAX};

	if (n && rows != UINT32_MAX) { /* 7 lines of the node, 5 of each image and its two lists */
		int room = ((int)rows - 7 - 5) / 2;

		p.list = room > LIST_MAX ? LIST_MAX : room < LIST_MIN ? LIST_MIN : room;
	}
	node_put(&p, frame);
	if (!n)
		fputs("\nno images; see cairn attach --help\n", out);
	while ((i = image_next(images, i))) {
		image_put(&p, i);
		hottest_put(&p, i);
		streams_put(&p, i);
	}
}

/* Where the escape code or character at @s ends, and the columns it takes. */
static const char *glyph_end(const char *s, uint32_t *columns)
{
	*columns = 0;
	if (*s == '\033') {
		for (s += 1 + (s[1] == '['); *s && (*s < '@' || *s > '~'); s++)
			;
		return *s ? s + 1 : s;
	}
	*columns = 1;
	for (s++; ((unsigned char)*s & 0xc0) == 0x80; s++)
		;
	return s;
}

void top_put(const char *text, uint32_t columns, uint32_t rows, FILE *out)
{
	uint32_t row = 0, column = 0, width;

	fputs("\033[H", out);
	while (*text && row < rows) {
		const char *end;

		if (*text == '\n') {
			fputs("\033[K", out);
			if (++row < rows)
				fputs("\r\n", out);
			column = 0;
			text++;
			continue;
		}
		end = glyph_end(text, &width);
		if (column + width <= columns)
			fwrite(text, 1, (size_t)(end - text), out);
		column += width;
		text = end;
	}
	fputs(PLAIN "\033[J", out);
	fflush(out);
}
