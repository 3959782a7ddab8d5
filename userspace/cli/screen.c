/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define ALTERNATE  "\033[?1049h\033[?25l\033[H\033[2J"
#define BACK_AGAIN "\033[0m\033[?25h\033[?1049l"
#define KEY_END	   0x04 /* ^D */

static struct termios before;
static bool taken, has_keys;
static volatile sig_atomic_t ended_by;

static uint32_t environment_number(const char *name, uint32_t otherwise)
{
	const char *s = getenv(name);
	unsigned long n = s ? strtoul(s, NULL, 10) : 0;

	return n >= 20 && n <= 1000 ? (uint32_t)n : otherwise;
}

struct screen_size screen_size(void)
{
	struct winsize w;

	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_col >= 20 && w.ws_row >= 5)
		return (struct screen_size){w.ws_col, w.ws_row};
	return (struct screen_size){environment_number("COLUMNS", 80),
				    environment_number("LINES", 24)};
}

bool screen_has_colours(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && !(no && no[0]) && term && strcmp(term, "dumb") != 0;
}

/* In the cube of 6 by 6 by 6 that follows the 16 system colours. */
static int cube(uint8_t v)
{
	return v < 48 ? 0 : v < 115 ? 1 : (v - 35) / 40;
}

void screen_colour(uint8_t r, uint8_t g, uint8_t b, bool behind)
{
	printf("\033[%d;5;%dm", behind ? 48 : 38, 16 + 36 * cube(r) + 6 * cube(g) + cube(b));
}

void screen_plain(void)
{
	fputs("\033[0m", stdout);
}

static void on_end(int sig)
{
	ended_by = sig;
}

static void on_resize(int sig)
{
	(void)sig; /* poll() returns */
}

static void signals_take(void)
{
	static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	struct sigaction end = {.sa_handler = on_end}, resize = {.sa_handler = on_resize};

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		sigaction(ends[i], &end, NULL);
	sigaction(SIGWINCH, &resize, NULL);
}

int screen_take(void)
{
	struct termios raw;

	if (!isatty(STDOUT_FILENO))
		return -ENOTTY;
	signals_take();
	has_keys = !tcgetattr(STDIN_FILENO, &before);
	taken = true;
	atexit(screen_give_back);
	if (has_keys) {
		raw = before;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO); /* ^C stays a signal */
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	fputs(ALTERNATE, stdout);
	fflush(stdout);
	return 0;
}

void screen_give_back(void)
{
	if (!taken)
		return;
	taken = false;
	fputs(BACK_AGAIN, stdout);
	fflush(stdout);
	if (has_keys)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
}

int screen_wait(int timeout_ms)
{
	struct pollfd p = {.fd = has_keys ? STDIN_FILENO : -1, .events = POLLIN};
	char key = 0;
	int n;

	if (ended_by)
		return -EINTR;
	n = poll(&p, 1, timeout_ms);
	if (ended_by)
		return -EINTR;
	if (n <= 0)
		return 0;
	if (read(STDIN_FILENO, &key, 1) != 1 || key == KEY_END)
		return 'q'; /* hung up */
	return key;
}

int screen_ended_by(void)
{
	return ended_by;
}
