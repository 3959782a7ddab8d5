/* SPDX-License-Identifier: Apache-2.0 */
/* The note of a kernel device, which a later supervisor believes when it takes devices away. */
#include "fuzz.h"
#include "nbd/attach/device_note.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	char *json = take_string(&in, 0);
	static struct device_note n;

	memset(&n, 0xee, sizeof(n));
	if (device_note_parse(json, &n) == 0) {
		must(n.index >= -1 && n.nports <= NOTE_PORTS_MAX);
		must(memchr(n.identity, 0, sizeof(n.identity)));
		must(memchr(n.boot, 0, sizeof(n.boot)));
		must(n.pid > 0);
		for (uint32_t i = 0; i < n.nports; i++)
			must(n.ports[i] > 0);
		(void)device_note_writer_lives(&n);
	} else {
		must(n.nports == 0xeeeeeeeeU); /* written on success only */
	}
	free(json);
	return 0;
}
