/* SPDX-License-Identifier: Apache-2.0 */
/* What every unit test needs before cmocka's own header, and a scratch directory. */
#ifndef TESTS_UNIT_CHECK_H
#define TESTS_UNIT_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static inline char *scratch_new(char path[64])
{
	strcpy(path, "/tmp/cairn-unit.XXXXXX");
	assert_non_null(mkdtemp(path));
	return path;
}

static inline void scratch_free(const char *path)
{
	char cmd[128];

	assert_true(strncmp(path, "/tmp/cairn-unit.", 16) == 0);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", path);
	assert_int_equal(system(cmd), 0);
}

#endif
