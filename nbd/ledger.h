/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger of one connection that must outlive its server: a memfd that the server writes and
 * its successor reads. What it holds, and why a kill at any instruction leaves it exact, is told
 * where its layout is: include/ledger.h. */
#ifndef NBD_LEDGER_H
#define NBD_LEDGER_H

#include "base/err.h"

/* A new, empty ledger: a memfd of fixed length, sealed against growing and shrinking,
 * close-on-exec. The caller's. A negative errno with a text. */
int ledger_new(struct err *err);

#endif
