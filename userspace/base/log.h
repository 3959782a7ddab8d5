/* SPDX-License-Identifier: Apache-2.0 */
/* One-line structured logs on stderr: `level=warn area=store msg="disk full" path=/var/..`.
 *
 * Thread-safe: a line is one write(2). Under journald a <N> priority is put before the line.
 * No secret is ever passed in; log_redact() is for URLs that may carry a SAS.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stddef.h>

enum log_level { LOG_DEBUG_, LOG_INFO_, LOG_WARN_, LOG_ERROR_ };

void log_set_level(enum log_level level);
void log_set_name(const char *name); /* "cairnd", "worker"; kept by reference */

/* Also give each line, without its priority and end, to @keep: any thread, must not wait. NULL: no
 * more. */
void log_set_keeper(void (*keep)(const char *line, size_t len));

/* "debug" "info" "warn" "error" -> 0, else -EINVAL. */
int log_level_parse(const char *s, enum log_level *out);

/* @msg is a short constant sentence; @fmt makes `key=value` pairs and may be "". */
void log_line(enum log_level level, const char *area, const char *msg, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#define log_debug(area, msg, ...) log_line(LOG_DEBUG_, area, msg, __VA_ARGS__)
#define log_info(area, msg, ...)  log_line(LOG_INFO_, area, msg, __VA_ARGS__)
#define log_warn(area, msg, ...)  log_line(LOG_WARN_, area, msg, __VA_ARGS__)
#define log_error(area, msg, ...) log_line(LOG_ERROR_, area, msg, __VA_ARGS__)

#endif
