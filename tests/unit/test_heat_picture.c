/* SPDX-License-Identifier: Apache-2.0 */
/* The PNG is read back by libpng, and its pixels are looked at. $CAIRN_KEEP_PICTURE keeps one. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <sys/stat.h>

#include "observe/font.h"
#include "observe/heat_picture.h"

#define CELLS 2560

static char dir[64], path[128];
static struct err err;
static double heat[CELLS];
static uint8_t present[CELLS];

static struct heat_scene scene(void)
{
	for (uint32_t i = 0; i < CELLS; i++) {
		heat[i] = i < 40		? 3000.0 / (1 + i)
			  : i % 97 == 0		? 12
			  : i > 900 && i < 1400 ? 1
						: 0;
		present[i] = i < 1500 ? 64 : i < 1800 ? (uint8_t)(i % 65) : 0;
	}
	return (struct heat_scene){.name = "imagenet-train",
				   .device = "/dev/loop0",
				   .note = "",
				   .length = CELLS * (4ULL << 20),
				   .bytes_present = 1600 * (4ULL << 20),
				   .cell_bytes = 4 << 20,
				   .observed = true,
				   .half_life_s = 30,
				   .ncells = CELLS,
				   .heat = heat,
				   .present = present};
}

static int set_up(void **state)
{
	(void)state;
	scratch_new(dir);
	snprintf(path, sizeof(path), "%s/heat.png", dir);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	scratch_free(dir);
	return 0;
}

static void png_reads_as(const struct picture *p, const char *title)
{
	png_image in = {.version = PNG_IMAGE_VERSION};
	uint8_t *rgb;
	char *file = NULL;
	size_t len = 0;
	FILE *f = fopen(path, "r");

	assert_int_not_equal(png_image_begin_read_from_file(&in, path), 0);
	assert_int_equal(in.width, p->width);
	assert_int_equal(in.height, p->height);
	in.format = PNG_FORMAT_RGB;
	rgb = malloc(PNG_IMAGE_SIZE(in));
	assert_int_not_equal(png_image_finish_read(&in, NULL, rgb, 0, NULL), 0);
	assert_memory_equal(rgb, p->rgb, (size_t)3 * p->width * p->height);
	free(rgb);
	assert_true(getdelim(&file, &len, -1, f) > 0);
	assert_non_null(memmem(file, len, title, strlen(title)));
	free(file);
	fclose(f);
}

static void the_file_is_the_picture(void **state)
{
	struct heat_scene s = scene();
	struct picture p;
	const char *keep = getenv("CAIRN_KEEP_PICTURE");

	(void)state;
	assert_int_equal(heat_picture_draw(&s, &p), 0);
	assert_int_equal(p.width, 1024);
	assert_in_range(p.height, 400, 1400);
	assert_int_equal(picture_write_png(&p, path, "heat of imagenet-train", &err), 0);
	png_reads_as(&p, "heat of imagenet-train");
	if (keep)
		assert_int_equal(picture_write_png(&p, keep, "kept", &err), 0);
	picture_free(&p);
}

static bool picture_has(const struct picture *p, struct colour c)
{
	for (size_t i = 0; i < (size_t)p->width * p->height; i++)
		if (memcmp(p->rgb + 3 * i, &c, 3) == 0)
			return true;
	return false;
}

static void heat_and_presence_can_be_told_apart(void **state)
{
	const double one = 1;
	struct heat_scene s = scene();
	struct picture hot_all, hot_none, cold_all;
	uint8_t full = 64, none = 0;
	const double zero = 0;

	(void)state;
	s.ncells = 1;
	s.heat = &one;
	s.present = &full;
	assert_int_equal(heat_picture_draw(&s, &hot_all), 0);
	s.present = &none;
	assert_int_equal(heat_picture_draw(&s, &hot_none), 0);
	s.heat = &zero;
	s.present = &full;
	assert_int_equal(heat_picture_draw(&s, &cold_all), 0);
	assert_int_not_equal(memcmp(hot_all.rgb, hot_none.rgb, 3 * 1024 * hot_all.height), 0);
	assert_int_not_equal(memcmp(hot_all.rgb, cold_all.rgb, 3 * 1024 * hot_all.height), 0);
	assert_true(picture_has(&hot_none, heat_colour_absent(1)));
	assert_false(picture_has(&cold_all, heat_colour_absent(1)));
	picture_free(&hot_all);
	picture_free(&hot_none);
	picture_free(&cold_all);
}

static int brightness(struct colour c)
{
	return c.r + c.g + c.b;
}

static void hotter_is_brighter(void **state)
{
	(void)state;
	for (int i = 1; i < 100; i++)
		assert_true(brightness(heat_colour(i / 100.0)) <=
			    brightness(heat_colour((i + 1) / 100.0)));
	assert_true(heat_share(0, 100) == 0);
	assert_true(heat_share(1, 1) == 1);
	assert_true(heat_share(100, 100) == 1);
	assert_true(heat_share(1, 1e9) > 0);
}

static void every_size_of_image_makes_a_picture(void **state)
{
	static double much_heat[65536];
	static uint8_t much_present[65536];
	static const uint32_t sizes[] = {0, 1, 2, 15, 16, 17, 100, 4096, 65536};
	struct heat_scene s = scene();

	(void)state;
	s.heat = much_heat;
	s.present = much_present;
	s.name =
		"a name that is far too long to stand on one line of the picture, and \xc3\xa4 too";
	s.note = s.name;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct picture p;

		s.ncells = sizes[i];
		s.observed = i % 2;
		assert_int_equal(heat_picture_draw(&s, &p), 0);
		assert_int_equal(p.width, 1024);
		assert_true(p.height < 8192);
		picture_free(&p);
	}
}

static void a_place_that_can_not_be_written_is_named_and_left_clean(void **state)
{
	struct picture p;
	char in_nothing[160];

	(void)state;
	assert_int_equal(picture_new(8, 8, &p), 0);
	snprintf(in_nothing, sizeof(in_nothing), "%s/none/heat.png", dir);
	assert_int_equal(picture_write_png(&p, in_nothing, "", &err), -ENOENT);
	assert_non_null(strstr(err.text, in_nothing));
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(picture_write_png(&p, path, "", &err), -EISDIR);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(dir), 0); /* nothing else is in there */
	assert_int_equal(mkdir(dir, 0700), 0);
	picture_free(&p);
	assert_int_equal(picture_new(0, 8, &p), -EINVAL);
	assert_int_equal(picture_new(8, PICTURE_SIDE_MAX + 1, &p), -EINVAL);
}

static void what_lies_outside_is_not_drawn(void **state)
{
	struct picture p;
	const struct colour white = {255, 255, 255};

	(void)state;
	assert_int_equal(picture_new(8, 8, &p), 0);
	picture_fill(&p, -100, -100, 300, 300, white);
	picture_text(&p, -3, 5, 2, (struct colour){9, 9, 9}, "WW");
	picture_text(&p, 7, -5, 2, (struct colour){9, 9, 9}, "WW");
	assert_int_equal(p.rgb[0], 255);
	picture_free(&p);
}

static void letters_differ(void **state)
{
	(void)state;
	for (char a = '!'; a < '~'; a++)
		for (char b = (char)(a + 1); b <= '~'; b++)
			assert_memory_not_equal(font_glyph(a), font_glyph(b), FONT_WIDTH);
	assert_memory_equal(font_glyph('\n'), font_glyph('\xff'), FONT_WIDTH);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_file_is_the_picture),
		T(heat_and_presence_can_be_told_apart),
		T(hotter_is_brighter),
		T(every_size_of_image_makes_a_picture),
		T(a_place_that_can_not_be_written_is_named_and_left_clean),
		T(what_lies_outside_is_not_drawn),
		T(letters_differ),
	};

	return cmocka_run_group_tests_name("heat_picture", tests, NULL, NULL);
}
