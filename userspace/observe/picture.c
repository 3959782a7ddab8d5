/* SPDX-License-Identifier: Apache-2.0 */
#include "observe/picture.h"

#include <errno.h>
#include <limits.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "observe/font.h"

int picture_new(uint32_t width, uint32_t height, struct picture *out)
{
	uint8_t *rgb;

	if (!width || !height || width > PICTURE_SIDE_MAX || height > PICTURE_SIDE_MAX)
		return -EINVAL;
	rgb = calloc((size_t)width * height, 3);
	if (!rgb)
		return -ENOMEM;
	out->width = width;
	out->height = height;
	out->rgb = rgb;
	return 0;
}

void picture_free(struct picture *p)
{
	free(p->rgb);
	*p = (struct picture){0};
}

static void dot(struct picture *p, int x, int y, struct colour c)
{
	uint8_t *at;

	if (x < 0 || y < 0 || (uint32_t)x >= p->width || (uint32_t)y >= p->height)
		return;
	at = p->rgb + 3 * ((size_t)y * p->width + (size_t)x);
	at[0] = c.r;
	at[1] = c.g;
	at[2] = c.b;
}

void picture_fill(struct picture *p, int x, int y, int width, int height, struct colour c)
{
	for (int j = y; j < y + height; j++)
		for (int i = x; i < x + width; i++)
			dot(p, i, j, c);
}

int picture_text(struct picture *p, int x, int y, int scale, struct colour c, const char *text)
{
	for (; *text; text++, x += (FONT_WIDTH + 1) * scale) {
		const uint8_t *glyph = font_glyph(*text);

		for (int i = 0; i < FONT_WIDTH; i++)
			for (int j = 0; j < FONT_HEIGHT; j++)
				if (glyph[i] >> j & 1)
					picture_fill(p, x + i * scale, y + j * scale, scale, scale,
						     c);
	}
	return x;
}

int picture_text_width(int scale, const char *text)
{
	return (int)strlen(text) * (FONT_WIDTH + 1) * scale;
}

/* libpng ends a failed call by a jump to here. */
static int png_put(const struct picture *p, const char *title, FILE *f)
{
	png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
	png_infop info = png ? png_create_info_struct(png) : NULL;
	char key[] = "Title";
	png_text text;

	memset(&text, 0, sizeof(text));
	text.compression = PNG_TEXT_COMPRESSION_NONE;
	text.key = key;
	text.text = (char *)title;
	if (!info || setjmp(png_jmpbuf(png))) {
		png_destroy_write_struct(&png, &info);
		return info ? -EIO : -ENOMEM;
	}
	png_init_io(png, f);
	png_set_IHDR(png, info, p->width, p->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
		     PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
	png_set_text(png, info, &text, 1);
	png_write_info(png, info);
	for (uint32_t y = 0; y < p->height; y++)
		png_write_row(png, p->rgb + 3 * (size_t)y * p->width);
	png_write_end(png, info);
	png_destroy_write_struct(&png, &info);
	return 0;
}

int picture_write_png(const struct picture *p, const char *path, const char *title, struct err *err)
{
	char tmp[PATH_MAX];
	FILE *f;
	int rc;

	if (snprintf(tmp, sizeof(tmp), "%s.%d.tmp", path, getpid()) >= (int)sizeof(tmp))
		return err_set(err, -ENAMETOOLONG, "the path of the picture is too long");
	f = fopen(tmp, "we");
	if (!f)
		return err_set(err, -errno, "can't write %s: %s", path, strerror(errno));
	rc = png_put(p, title, f);
	if (fclose(f) && !rc)
		rc = -errno;
	if (!rc && rename(tmp, path))
		rc = -errno;
	if (!rc)
		return 0;
	unlink(tmp);
	return err_set(err, rc, "can't write %s: %s", path, strerror(-rc));
}
