// SPDX-License-Identifier: Apache-2.0
/* handover kill tcp|unix DEVICE KILLS    a kernel NBD device whose server is killed again and again
 * handover serve DEVICE                  one that is not ours, by the older ioctl interface
 * handover bench [SECONDS]               AF_UNIX against loopback TCP, the same server, no kernel
 * NBD
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/vm/handover/modes.h"

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "kill") == 0)
		return mode_kill(strcmp(argv[2], "tcp") == 0, argv[3], atoi(argv[4]));
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		return mode_serve(argv[2]);
	if (argc >= 2 && argc <= 3 && strcmp(argv[1], "bench") == 0)
		return mode_bench(argc == 3 ? atof(argv[2]) : 1.0);
	fprintf(stderr,
		"usage: handover kill tcp|unix DEVICE KILLS | serve DEVICE | bench [SECONDS]\n");
	return 2;
}
