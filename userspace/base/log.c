/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const int level_priority[] = {7, 6, 4, 3}; /* syslog's, for journald */

static enum log_level threshold = LOG_INFO_;
static const char *program = "cairn";
static void (*keeper)(const char *line, size_t len);

void log_set_level(enum log_level level)
{
	threshold = level;
}

void log_set_name(const char *name)
{
	program = name;
}

void log_set_keeper(void (*keep)(const char *line, size_t len))
{
	keeper = keep;
}

int log_level_parse(const char *s, enum log_level *out)
{
	for (int i = 0; i < 4; i++) {
		if (strcmp(s, level_names[i]) == 0) {
			*out = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

void log_line(enum log_level level, const char *area, const char *msg, const char *fmt, ...)
{
	char line[2048];
	struct timespec ts;
	struct tm tm;
	va_list ap;
	int n = 0, begin;

	if (level < threshold)
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	if (getenv("JOURNAL_STREAM"))
		n = snprintf(line, sizeof(line), "<%d>", level_priority[level]);
	begin = n;
	n += (int)strftime(line + n, sizeof(line) - (size_t)n, "ts=%Y-%m-%dT%H:%M:%S", &tm);
	n += snprintf(line + n, sizeof(line) - (size_t)n,
		      ".%03ldZ level=%s proc=%s[%d] area=%s msg=\"%s\"", ts.tv_nsec / 1000000,
		      level_names[level], program, getpid(), area, msg);
	if (fmt[0]) {
		line[n++] = ' ';
		va_start(ap, fmt);
		n += vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
		va_end(ap);
	}
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	for (int i = 0; i < n; i++) /* one record, one line, whatever a server sent us */
		if (line[i] == '\n' || line[i] == '\r')
			line[i] = ' ';
	if (keeper)
		keeper(line + begin, (size_t)(n - begin));
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nowhere left to say it */
}
