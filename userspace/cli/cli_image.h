/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_CLI_IMAGE_H
#define CLI_CLI_IMAGE_H

/* `cairn image COMMAND ..`: argv[0] is "image". Prints its own errors; returns the exit status:
 * 0 done, 1 failed, 2 wrong usage. */
int cli_image(int argc, char **argv);

#endif
