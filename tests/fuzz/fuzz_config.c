/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration file: what is accepted is printed as a file that reads the same. */
#include "base/config.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct config first, second; /* their strings are compared whole */
	struct err err = {0};
	char path[64], *text = NULL;
	size_t text_len;
	FILE *out;
	int fd = file_of(data, len, path);
	int rc = config_load(path, &first, &err);

	close(fd);
	if (rc) {
		must(err.code < 0 && err.text[0] && !strchr(err.text, '\n'));
		return 0;
	}
	out = open_memstream(&text, &text_len);
	must(out);
	config_print(&first, out);
	must(fclose(out) == 0);
	fd = file_of(text, text_len, path);
	rc = config_load(path, &second, &err);
	close(fd);
	if (rc)
		fprintf(stderr, "%s\n%s\n", err.text, text);
	must(rc == 0);
	free(text);
	out = open_memstream(&text, &text_len);
	must(out);
	config_print(&second, out);
	must(fclose(out) == 0);
	free(text);
	must(first.store_size == second.store_size);
	must(first.fill_deadline_ms == second.fill_deadline_ms);
	must(strcmp(first.store_path, second.store_path) == 0);
	must(strcmp(first.control_group, second.control_group) == 0);
	must(strcmp(first.metrics_listen, second.metrics_listen) == 0);
	return 0;
}
