/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's nbd module, by libkmod. */
#ifndef NBD_MODULE_H
#define NBD_MODULE_H

#include "base/err.h"

/* There already, built in or loaded by whom ever, or loaded now, without partition scan
 * (max_part=0). -ENOTSUP: this system has none, and the text says where it comes from; -EPERM. */
int nbd_module_load(struct err *err);

#endif
