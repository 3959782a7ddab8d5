/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel lets one FUSE mount do: /sys/fs/fuse/connections/ID/, where ID is the mount's
 * device number. The server behind the mount is not asked, so nothing here waits for it. */
#ifndef NBD_FUSECTL_H
#define NBD_FUSECTL_H

/* Direct reads that the mount on @point (absolute, without links) may have in flight; the kernel's
 * default is 12. A wish: a refusal is logged at debug level and reads are as they were. */
void fusectl_wish_background(const char *point, unsigned reads);

#endif
