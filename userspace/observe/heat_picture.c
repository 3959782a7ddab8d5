/* SPDX-License-Identifier: Apache-2.0 */
#include "observe/heat_picture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

#define WIDTH	    1024
#define LEFT	    96 /* of it, for the rows' labels */
#define RIGHT	    24
#define TOP	    104
#define LEGEND	    132
#define GRID_HEIGHT 640 /* wished for; many cells may need more */
#define CELL_MAX    56

#define LABEL_GAP 14 /* pixels from label to label, at least */

static const struct colour background = {0x0f, 0x13, 0x18};
static const struct colour ink = {0xe6, 0xe9, 0xec}, faint = {0x8b, 0x95, 0xa1};
static const struct colour cold = {0x2b, 0x4d, 0x68}, cold_absent = {0x1a, 0x20, 0x27};

/* From the first read to the hottest. */
static const struct colour hot[] = {
	{0x4b, 0x2a, 0x8c}, {0x8a, 0x2b, 0x8f}, {0xc7, 0x3b, 0x6d},
	{0xf0, 0x6c, 0x3a}, {0xfb, 0xae, 0x2c}, {0xfc, 0xf7, 0xa8},
};
#define HOT_STEPS (sizeof(hot) / sizeof(hot[0]) - 1)

double heat_scene_max(const struct heat_scene *s)
{
	double max = 1;

	for (uint32_t i = 0; i < s->ncells; i++)
		if (s->heat[i] > max)
			max = s->heat[i];
	return max;
}

double heat_share(double heat, double max)
{
	double share;

	if (heat <= 0)
		return 0;
	share = max > 1 ? log(1 + heat) / log(1 + max) : 1;
	return share > 1 ? 1 : share;
}

static uint8_t mix(uint8_t a, uint8_t b, double t)
{
	return (uint8_t)(a + (b - a) * t + 0.5);
}

struct colour heat_colour(double share)
{
	double at = share * HOT_STEPS;
	size_t i = at >= HOT_STEPS ? HOT_STEPS - 1 : (size_t)at;

	if (share <= 0)
		return cold;
	at -= (double)i;
	return (struct colour){mix(hot[i].r, hot[i + 1].r, at), mix(hot[i].g, hot[i + 1].g, at),
			       mix(hot[i].b, hot[i + 1].b, at)};
}

struct colour heat_colour_absent(double share)
{
	struct colour c = heat_colour(share);

	if (share <= 0)
		return cold_absent;
	return (struct colour){mix(background.r, c.r, 0.4), mix(background.g, c.g, 0.4),
			       mix(background.b, c.b, 0.4)};
}

/* ---- the grid ---- */

struct grid {
	uint32_t columns, rows;
	int cell; /* pixels, the gap to the next included */
};

/* Columns that make a row a round number of bytes, and cells as large as fit. */
static struct grid grid_choose(uint32_t ncells)
{
	static const uint32_t columns[] = {16, 24, 32, 48, 64, 96, 128};
	struct grid g = {.columns = 1};

	for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
		g.columns = columns[i];
		g.rows = (ncells + g.columns - 1) / g.columns;
		g.cell = (WIDTH - LEFT - RIGHT) / (int)g.columns;
		if (g.cell > CELL_MAX)
			g.cell = CELL_MAX;
		if (g.rows * (uint32_t)g.cell <= GRID_HEIGHT)
			break;
	}
	g.rows = g.rows ? g.rows : 1;
	return g;
}

static void cell_draw(struct picture *p, int x, int y, int size, double share, uint8_t present)
{
	int filled = (size * present + HEAT_PRESENT_ALL - 1) / HEAT_PRESENT_ALL;

	if (filled == size && present < HEAT_PRESENT_ALL && size > 1)
		filled--;
	picture_fill(p, x, y, size, size - filled, heat_colour_absent(share));
	picture_fill(p, x, y + size - filled, size, filled, heat_colour(share));
}

static void grid_draw(const struct heat_scene *s, const struct grid *g, struct picture *p)
{
	double max = heat_scene_max(s);
	int gap = g->cell > 4 ? 1 : 0, size = g->cell - gap;
	uint32_t labelled = (uint32_t)(LABEL_GAP / g->cell + 1);

	for (uint32_t i = 0; i < s->ncells; i++)
		cell_draw(p, LEFT + (int)(i % g->columns) * g->cell,
			  TOP + (int)(i / g->columns) * g->cell, size, heat_share(s->heat[i], max),
			  s->present[i]);
	for (uint32_t row = 0; row < g->rows; row += labelled) {
		char text[24];
		int y = TOP + (int)row * g->cell + (size - 7) / 2;

		bytes_format(row * g->columns * s->cell_bytes, text, sizeof(text));
		picture_text(p, LEFT - 10 - picture_text_width(1, text), y, 1, faint, text);
	}
}

/* ---- words ---- */

static void title_draw(const struct heat_scene *s, struct picture *p)
{
	char line[256], a[24], b[24];
	double part = s->length ? 100.0 * (double)s->bytes_present / (double)s->length : 0;

	snprintf(line, sizeof(line), "%.50s", s->name);
	picture_text(p, RIGHT, 22, 3, ink, line);
	snprintf(line, sizeof(line), "%s, %s (%.1f %%) in the store%s%s",
		 bytes_format(s->length, a, sizeof(a)),
		 bytes_format(s->bytes_present, b, sizeof(b)), part > 100 ? 100 : part,
		 s->device[0] ? ", " : "", s->device);
	picture_text(p, RIGHT, 56, 2, faint, line);
	if (s->observed)
		snprintf(line, sizeof(line), "one cell is %s; heat halves in each idle %g s",
			 bytes_format(s->cell_bytes, a, sizeof(a)), s->half_life_s);
	else
		snprintf(line, sizeof(line), "one cell is %s; no heat: %.110s",
			 bytes_format(s->cell_bytes, a, sizeof(a)), s->note);
	picture_text(p, RIGHT, 82, 1, faint, line);
}

#define BAR_WIDTH  440
#define BAR_HEIGHT 18

static void scale_draw(const struct heat_scene *s, struct picture *p, int y)
{
	double max = heat_scene_max(s);
	int last = -100;
	char text[24];

	picture_text(p, LEFT, y, 2, ink, "heat (reads)");
	for (int x = 0; x < BAR_WIDTH; x++)
		picture_fill(p, LEFT + x, y + 24, 1, BAR_HEIGHT,
			     heat_colour((x + 1.0) / BAR_WIDTH));
	for (double tick = 1; tick < max * 10; tick *= 10) {
		double at = tick < max ? tick : max;
		int x = (int)(heat_share(at, max) * (BAR_WIDTH - 1));

		snprintf(text, sizeof(text), "%.0f", at);
		if (tick < max && BAR_WIDTH - x < 60) /* the last label stands there */
			continue;
		if (x - last < picture_text_width(1, text) + 8)
			continue;
		last = x;
		picture_fill(p, LEFT + x, y + 24 + BAR_HEIGHT, 1, 5, faint);
		picture_text(p, LEFT + x - picture_text_width(1, text) / 2, y + 52, 1, faint, text);
	}
}

static void presence_draw(struct picture *p, int x, int y)
{
	static const struct {
		const char *text;
		uint8_t present;
	} keys[] = {{"none", 0}, {"half", 32}, {"all", 64}};

	picture_text(p, x, y, 2, ink, "in the store");
	for (int i = 0; i < 3; i++) {
		int at = x + i * 120;

		cell_draw(p, at, y + 24, BAR_HEIGHT, 0, keys[i].present);
		cell_draw(p, at + BAR_HEIGHT + 2, y + 24, BAR_HEIGHT, 0.7, keys[i].present);
		picture_text(p, at + 2 * BAR_HEIGHT + 10, y + 30, 1, faint, keys[i].text);
	}
	picture_text(p, x, y + 52, 1, faint, "left: cold (no read counted)   right: hot");
}

int heat_picture_draw(const struct heat_scene *s, struct picture *out)
{
	struct grid g = grid_choose(s->ncells);
	uint32_t grid_height = g.rows * (uint32_t)g.cell;
	struct picture p;
	int rc = picture_new(WIDTH, TOP + grid_height + LEGEND, &p);
	int y = TOP + (int)grid_height + 32;

	if (rc)
		return rc;
	picture_fill(&p, 0, 0, (int)p.width, (int)p.height, background);
	title_draw(s, &p);
	grid_draw(s, &g, &p);
	if (s->observed)
		scale_draw(s, &p, y);
	presence_draw(&p, s->observed ? LEFT + BAR_WIDTH + 60 : LEFT, y);
	*out = p;
	return 0;
}
