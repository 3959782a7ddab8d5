/* SPDX-License-Identifier: Apache-2.0 */
/* The exports of the worker before, opened again: what the store has at once and with no word to
 * the origin, the rest beside serving, several at a time, until the origin gives it or says that it
 * is gone. Meanwhile they stay in the roster, and their names are kept free. */
#ifndef WORKER_REOPEN_H
#define WORKER_REOPEN_H

#include "worker/exports_impl.h"

struct adopter;
struct reopening;

/* What the roster says and the store has. Before any other thread looks at the table. */
void exports_reopen(struct exports *x);

/* Observe the devices of the table, and go on with the rest of the roster on threads of its own
 * (none when there is no rest). Once, when the worker serves. */
void reopening_start(struct exports *x, struct adopter *a);

/* Ends the threads: waits for calls to the origin that are under way, REOPEN_DEADLINE_MS at most.
 */
#define REOPEN_DEADLINE_MS 4000
void reopening_stop(struct exports *x);

/* Under the table's lock; @r may be NULL. */
/* Texts of worker/roster.h, its own. @out NULL: only how many. */
size_t reopening_list(struct reopening *r, const char **out);
int reopening_check(struct reopening *r, const char *url, const char *name, struct err *err);
void reopening_free(struct reopening *r);

#endif
