/* SPDX-License-Identifier: Apache-2.0 */
/* The cairn command: one function a command, each returning the exit status (0 done, 1 failed, 2
 * wrong usage) and printing its own error as "cairn: COMMAND: TEXT". argv[0] is the command's name.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "base/err.h"

extern const char *cli_socket; /* of the daemon */

int cli_export(int argc, char **argv);
int cli_attach(int argc, char **argv);
int cli_detach(int argc, char **argv);
int cli_mount(int argc, char **argv);
int cli_umount(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_top(int argc, char **argv);
int cli_heat(int argc, char **argv);
int cli_tune(int argc, char **argv);
int cli_fetch(int argc, char **argv);
int cli_limit(int argc, char **argv);
int cli_upgrade(int argc, char **argv);

/* Print the error; returns 1, or 2 after cli_usage_error. */
int cli_fail(const char *command, const struct err *err);
int cli_usage_error(const char *command, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Ask the daemon. Its error becomes ours; *out (may be NULL) is the reply's JSON, the caller's to
 * delete. */
int cli_ask(const char *method, const char *path, const char *body, cJSON **out, struct err *err);

/* A member's text; "" when there is none. */
const char *cli_text(const cJSON *o, const char *key);
double cli_number(const cJSON *o, const char *key);

/* What a person asked for; NULL or 0 = not said. */
struct export_wish {
	const char *url, *name, *way, *device, *on_deadline, *promote;
	unsigned queues;
	bool refresh;
};

/* What one of the options says that are the same for each command: n, w, d, q, o, p and r of its
 * table; another @opt is passed over. @file: "erofs-file" may be promoted to, too. 0, or 2 with the
 * error printed. */
int cli_wish_take(const char *command, int opt, bool file, struct export_wish *w);

/* Have all of the image in the store before this returns. */
int cli_fetch_whole(const char *key, struct err *err);

/* POST /v1/exports. Says on stderr when "auto" passed over its first way, and why. */
int cli_export_post(const struct export_wish *w, cJSON **out, struct err *err);
/* DELETE /v1/exports/KEY */
int cli_export_delete(const char *key, bool force, struct err *err);

#endif
