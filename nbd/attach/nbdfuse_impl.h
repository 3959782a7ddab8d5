/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the way "nbdfuse". */
#ifndef NBD_ATTACH_NBDFUSE_IMPL_H
#define NBD_ATTACH_NBDFUSE_IMPL_H

#include "nbd/attach/attach.h"

/* nbdfuse_sweep.c */
void attach_nbdfuse_sweep(const struct attach_env *env);

/* Files of ours, then the folder, which stays when it is not empty. */
void attach_nbdfuse_dir_remove(const char *dir);

#endif
