/* SPDX-License-Identifier: Apache-2.0 */
/* cairn heat */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/bytes.h"
#include "cli/cli.h"
#include "cli/screen.h"
#include "control/client.h"
#include "observe/heat_picture.h"

#define PNG_CELLS 4096

static const char usage[] =
	"Usage: cairn heat IMAGE [--png FILE] [--json]\n"
	"Where an image is read, and how much of it is in the store. IMAGE is a name, URL or "
	"device.\n"
	"\n"
	"  --png FILE   draw it as a picture\n"
	"  --json       cells with heat, and with blocks present of 64\n";

struct wishes {
	const char *subject, *png;
	bool json, help;
};

static int wishes_parse(int argc, char **argv, struct wishes *w)
{
	static const struct option options[] = {{"png", required_argument, NULL, 'p'},
						{"json", no_argument, NULL, 'j'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	int opt;

	*w = (struct wishes){0};
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == '?')
			return 2;
		if (opt == 'p')
			w->png = optarg;
		w->json = w->json || opt == 'j';
		w->help = w->help || opt == 'h';
	}
	if (w->help)
		return 0;
	if (optind + 1 != argc)
		return cli_usage_error(argv[0], optind < argc ? "takes one image" : "which image?");
	w->subject = argv[optind];
	return 0;
}

static int ask(const char *subject, unsigned cells, cJSON **reply, struct err *err)
{
	char *path = client_path("/v1/exports/", subject), *full = NULL;
	int rc;

	if (path && asprintf(&full, "%s/heat?cells=%u", path, cells) >= 0)
		rc = cli_ask("GET", full, NULL, reply, err);
	else
		rc = err_set(err, -ENOMEM, "out of memory");
	free(path);
	free(full);
	return rc;
}

/* ---- the scene ---- */

static int scene_make(const cJSON *reply, struct heat_scene *s, double **heat, uint8_t **present)
{
	const cJSON *h = cJSON_GetObjectItemCaseSensitive(reply, "heat");
	const cJSON *p = cJSON_GetObjectItemCaseSensitive(reply, "present");
	uint32_t n = (uint32_t)cJSON_GetArraySize(h), i = 0;

	*heat = calloc(n + 1, sizeof(**heat));
	*present = calloc(n + 1, 1);
	if (!*heat || !*present)
		return -ENOMEM;
	*s = (struct heat_scene){
		.name = cli_text(reply, "name"),
		.device = cli_text(reply, "device"),
		.note = cli_text(reply, "device")[0] ? cli_text(reply, "hooks")
						     : "it has no device",
		.length = (uint64_t)cli_number(reply, "length"),
		.bytes_present = (uint64_t)cli_number(reply, "bytes_present"),
		.cell_bytes = (uint64_t)cli_number(reply, "cell_bytes"),
		.observed = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(reply, "observed")),
		.half_life_s = cli_number(reply, "half_life_seconds"),
		.ncells = n,
		.heat = *heat,
		.present = *present};
	for (h = h ? h->child : NULL, p = p ? p->child : NULL; h && p; h = h->next, p = p->next) {
		(*heat)[i] = h->valuedouble;
		(*present)[i++] = (uint8_t)p->valuedouble;
	}
	return 0;
}

/* ---- on the terminal ---- */

/* Without colours heat is a digit, 1 to 9, and presence of what is cold a letter. */
static char cell_letter(double share, uint8_t present)
{
	if (share > 0)
		return (char)('1' + (int)(share * 8.999));
	return present == 0 ? '.' : present < HEAT_PRESENT_ALL ? '-' : '=';
}

static const char *cell_bar(uint8_t present)
{
	static const char *const bars[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};

	return bars[present == 0 ? 0 : present >= HEAT_PRESENT_ALL ? 8 : 1 + present * 7 / 65];
}

static void cell_put(bool colours, double share, uint8_t present)
{
	struct colour front = heat_colour(share), back = heat_colour_absent(share);

	if (!colours) {
		putchar(cell_letter(share, present));
		return;
	}
	screen_colour(front.r, front.g, front.b, false);
	screen_colour(back.r, back.g, back.b, true);
	fputs(cell_bar(present), stdout);
}

static void legend_put(bool colours, const struct heat_scene *s, double max)
{
	char size[24];

	printf("a cell is %s; ", bytes_format(s->cell_bytes, size, sizeof(size)));
	if (!colours)
		fputs("in the store: . none, - part, = all", stdout);
	else
		fputs("filled as far as it is in the store", stdout);
	if (!s->observed) {
		printf("; no heat: %s\n", s->note);
		return;
	}
	fputs("; heat: ", stdout);
	for (int i = 1; i <= 9; i++)
		cell_put(colours, i / 9.0, HEAT_PRESENT_ALL);
	if (colours)
		screen_plain();
	printf(" up to %.0f reads, halved in each idle %g s\n", max, s->half_life_s);
}

static void map_print(const struct heat_scene *s, uint32_t columns)
{
	bool colours = screen_has_colours();
	double max = heat_scene_max(s);
	char a[24], b[24];

	printf("%s  %s, %s in the store%s%s\n\n", s->name, bytes_format(s->length, a, sizeof(a)),
	       bytes_format(s->bytes_present, b, sizeof(b)), s->device[0] ? ", on " : "",
	       s->device);
	for (uint32_t i = 0; i < s->ncells; i++) {
		if (i % columns == 0)
			printf("%10s ", bytes_format(i * s->cell_bytes, a, sizeof(a)));
		cell_put(colours, heat_share(s->heat[i], max), s->present[i]);
		if (i % columns != columns - 1 && i != s->ncells - 1)
			continue;
		if (colours)
			screen_plain();
		putchar('\n');
	}
	putchar('\n');
	legend_put(colours, s, max);
}

/* ---- */

static int picture_print(const struct heat_scene *s, const char *file, struct err *err)
{
	char title[320];
	struct picture p;
	int rc = heat_picture_draw(s, &p);

	if (rc)
		return err_set(err, rc, "no memory for the picture");
	snprintf(title, sizeof(title), "heat of %s", s->name);
	rc = picture_write_png(&p, file, title, err);
	picture_free(&p);
	return rc;
}

static int heat_print(const cJSON *reply, const struct wishes *w, uint32_t columns, struct err *err)
{
	struct heat_scene s;
	double *heat = NULL;
	uint8_t *present = NULL;
	char *text;
	int rc = 0;

	if (w->json) {
		text = cJSON_PrintUnformatted(reply);
		puts(text ? text : "");
		free(text);
	}
	if (w->json && !w->png)
		return 0;
	rc = scene_make(reply, &s, &heat, &present);
	if (rc)
		err_set(err, rc, "out of memory");
	else if (w->png)
		rc = picture_print(&s, w->png, err);
	else
		map_print(&s, columns);
	free(heat);
	free(present);
	return rc;
}

int cli_heat(int argc, char **argv)
{
	struct wishes w;
	struct err err = {0};
	struct screen_size size = screen_size();
	/* 16 times what fits beside the labels, and a map that fits the screen */
	uint32_t columns = size.columns > 28 ? (size.columns - 12) / 16 * 16 : 16;
	uint32_t rows = size.rows > 10 ? size.rows - 6 : 4;
	cJSON *reply;
	int rc = wishes_parse(argc, argv, &w);

	if (rc)
		return rc;
	if (w.help)
		return fputs(usage, stdout) < 0;
	if (ask(w.subject, w.png || w.json ? PNG_CELLS : columns * rows, &reply, &err))
		return cli_fail(argv[0], &err);
	rc = heat_print(reply, &w, columns, &err);
	cJSON_Delete(reply);
	return rc ? cli_fail(argv[0], &err) : 0;
}
