/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/config.h"

static struct config cfg;
static struct err err;
static char path[] = "/tmp/test_config.XXXXXX";

static int load(const char *text)
{
	int fd;

	strcpy(path + strlen(path) - 6, "XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	memset(&err, 0, sizeof(err));
	fd = config_load(path, &cfg, &err);
	unlink(path);
	return fd;
}

static void refused(const char *text, const char *why)
{
	assert_int_equal(load(text), -EINVAL);
	if (!strstr(err.text, why) || strncmp(err.text, path, strlen(path)) != 0)
		fail_msg("\"%s\" does not say \"%s\" and the file", err.text, why);
}

static char *printed(const struct config *c)
{
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	config_print(c, f);
	fclose(f);
	return text;
}

static void an_empty_file_gives_the_defaults(void **state)
{
	struct config defaults;

	(void)state;
	config_defaults(&defaults);
	assert_int_equal(load(""), 0);
	assert_memory_equal(&cfg, &defaults, sizeof(cfg));
	assert_string_equal(cfg.control_socket, "/run/cairn/control.sock");
	assert_string_equal(cfg.nbd_socket, "/run/cairn/nbd.sock");
	assert_int_equal(cfg.nbd_miss_memory, 48 * MIB);
	assert_int_equal(cfg.fill_deadline_ms, 90000);
	assert_int_equal(cfg.manifest_max_age_ms, 3600000);
	assert_int_equal(cfg.store_size, 0);
}

static void every_kind_of_value_is_read(void **state)
{
	(void)state;
	assert_int_equal(
		load("# a comment\n[store]\npath = /mnt/nvme/cairn ; another\nsize = 1.5TiB\n"
		     "[fill]\ndeadline=2.5\nreadahead = 0\n[daemon]\nlog_level = debug\n"
		     "metrics_listen = [::1]:9100\n[nbd]\nmax_connections = 65536\n"),
		0);
	assert_string_equal(cfg.store_path, "/mnt/nvme/cairn");
	assert_int_equal(cfg.store_size, 3 * TIB / 2);
	assert_int_equal(cfg.fill_deadline_ms, 2500);
	assert_int_equal(cfg.readahead, 0);
	assert_string_equal(cfg.log_level, "debug");
	assert_string_equal(cfg.metrics_listen, "[::1]:9100");
	assert_int_equal(cfg.nbd_max_connections, 65536);
}

static void what_is_printed_is_read_back_as_the_same(void **state)
{
	struct config before;
	char *text;

	(void)state;
	assert_int_equal(load("[store]\nsize=3GiB\n[fill]\ndeadline=1.5\n[azure]\naccount=a\n"), 0);
	before = cfg;
	text = printed(&before);
	assert_int_equal(load(text), 0);
	assert_memory_equal(&cfg, &before, sizeof(cfg));
	free(text);
}

static void the_example_file_is_the_defaults(void **state)
{
	struct config defaults;
	char *text, *file;
	size_t len;

	(void)state;
	if (file_read_all("deploy/cairnd.conf", 65536, &file, &len))
		skip(); /* not run from the top of the source */
	config_defaults(&defaults);
	text = printed(&defaults);
	assert_string_equal(file,
			    text); /* else: build/cairnd --print-config > deploy/cairnd.conf */
	free(text);
	free(file);
}

static void a_misspelt_key_gets_the_nearest_named(void **state)
{
	(void)state;
	refused("[fill]\nthreads=2\nreadahaed=1MiB\n",
		":3: unknown key 'readahaed' in [fill]; did you mean "
		"[fill] readahead?");
	refused("[nbd]\nreadahead=1MiB\n", "did you mean [fill] readahead?");
	refused("[fill]\nxyzzy=1\n", "it takes threads, memory, deadline, on_deadline, readahead");
}

static void an_unknown_section_is_an_error_even_when_empty(void **state)
{
	(void)state;
	refused("[stroe]\n", ":1: unknown section [stroe]; there are daemon, nbd, store, fill");
	refused("[stroe]\nsize=1GiB\n", ":1: unknown section");
	refused("size=1GiB\n", "before any [section]");
}

static void a_value_out_of_range_says_what_is_allowed(void **state)
{
	(void)state;
	refused("[fill]\nthreads = 0\n",
		":2: [fill] threads = 0: must be a whole number from 1 to 256");
	refused("[nbd]\nthreads = -1\n", "whole number");
	refused("[nbd]\nthreads = 3x\n", "whole number");
	refused("[store]\nsize = 1MiB\n", "auto, or a size from 64.0 MiB to");
	refused("[fill]\nmemory = lots\n", "a size from 4.0 MiB");
	refused("[azure]\nidentity = az\n", "one of auto|off|environment|workload|managed");
	refused("[azure]\nidentity =\n", "one of auto|off");
	refused("[daemon]\nlog_level = loud\n", "one of debug|info|warn|error");
	refused("[daemon]\nlog_level = debug|info\n", "one of debug|info|warn|error");
	refused("[daemon]\nmetrics_listen = 9100\n", "ADDRESS:PORT");
	refused("[daemon]\nmetrics_listen = ::1:9100\n", "[IPV6]:PORT");
	refused("[store]\npath = cairn\n", "an absolute path");
	refused("[store]\npath =\n", "an absolute path");
	refused("[fill]\ndeadline = 1e9\n", "seconds from 1 to 86400");
}

static void a_socket_path_too_long_for_the_kernel_is_refused(void **state)
{
	char text[256];

	(void)state;
	snprintf(text, sizeof(text), "[nbd]\nsocket = /%0107d\n", 0);
	refused(text, "at most 107 bytes");
	snprintf(text, sizeof(text), "[nbd]\nsocket = /%0106d\n", 0);
	assert_int_equal(load(text), 0);
}

static void a_key_set_twice_is_an_error_with_both_lines(void **state)
{
	(void)state;
	refused("[fill]\nthreads=2\n\nthreads=3\n",
		":4: [fill] threads is set a second time (first on line 2)");
}

static void a_malformed_line_is_an_error(void **state)
{
	char text[512];

	(void)state;
	refused("[fill]\nthreads\n", ":2: not a line of an INI file");
	refused("[fill\nthreads=2\n", ":1: not a line");
	snprintf(text, sizeof(text), "[store]\npath = /%0300d\n", 0);
	refused(text, ":2: this line is longer than");
}

static void a_secret_in_the_file_is_refused_and_not_repeated(void **state)
{
	(void)state;
	refused("[azure]\nkey = c2VjcmV0\n", "[azure] key_file = PATH");
	assert_null(strstr(err.text, "c2VjcmV0"));
	refused("[azure]\nsas_token = sv=2021&sig=c2VjcmV0\n", "[azure] sas_token_file = PATH");
	assert_null(strstr(err.text, "c2VjcmV0"));
	refused("[azure]\naccount = a?sig=c2VjcmV0\n", "sas_token_file");
	assert_null(strstr(err.text, "c2VjcmV0"));
	refused("[store]\nconn = x;AccountKey=c2VjcmV0\n", "connection_string_file");
	assert_null(strstr(err.text, "c2VjcmV0"));
}

static void a_failed_load_changes_nothing(void **state)
{
	(void)state;
	assert_int_equal(load("[fill]\nthreads=7\n"), 0);
	refused("[fill]\nthreads=9\nx=1\n", "unknown key");
	assert_int_equal(cfg.fill_threads, 7);
	assert_int_equal(config_load("/nonexistent/c.conf", &cfg, &err), -ENOENT);
	assert_int_equal(config_load("/tmp", &cfg, &err), -EIO);
	assert_int_equal(cfg.fill_threads, 7);
}

static void an_address_is_split_at_the_ports_colon(void **state)
{
	char host[32], port[8];

	(void)state;
	assert_int_equal(config_split_address("[::1]:9100", host, 32, port, 8), 0);
	assert_string_equal(host, "::1");
	assert_string_equal(port, "9100");
	assert_int_equal(config_split_address(":80", host, 32, port, 8), 0);
	assert_string_equal(host, "");
	assert_int_equal(config_split_address("10.0.0.1:0", host, 32, port, 8), -EINVAL);
	assert_int_equal(config_split_address("10.0.0.1:65536", host, 32, port, 8), -EINVAL);
	assert_int_equal(config_split_address("[::1:80", host, 32, port, 8), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_file_gives_the_defaults),
		cmocka_unit_test(every_kind_of_value_is_read),
		cmocka_unit_test(what_is_printed_is_read_back_as_the_same),
		cmocka_unit_test(the_example_file_is_the_defaults),
		cmocka_unit_test(a_misspelt_key_gets_the_nearest_named),
		cmocka_unit_test(an_unknown_section_is_an_error_even_when_empty),
		cmocka_unit_test(a_value_out_of_range_says_what_is_allowed),
		cmocka_unit_test(a_socket_path_too_long_for_the_kernel_is_refused),
		cmocka_unit_test(a_key_set_twice_is_an_error_with_both_lines),
		cmocka_unit_test(a_malformed_line_is_an_error),
		cmocka_unit_test(a_secret_in_the_file_is_refused_and_not_repeated),
		cmocka_unit_test(a_failed_load_changes_nothing),
		cmocka_unit_test(an_address_is_split_at_the_ports_colon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
