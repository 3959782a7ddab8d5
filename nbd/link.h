/* SPDX-License-Identifier: Apache-2.0 */
/* What a link (nbd/server.h) has that other connections have not: a ledger, or a handshake in which
 * one export only can be named. Internal to nbd/. */
#ifndef NBD_LINK_H
#define NBD_LINK_H

#include "nbd/ledger.h"
#include "nbd/server.h"

enum nbd_pause;
struct nbd_connection;

struct nbd_link_ledger {
	struct ledger *l;
	struct ledger_writer writer; /* good in transmission */
	struct ledger_cut cut;	     /* a reply to go on with, at the first turn */
};

struct nbd_link_directory {
	struct nbd_directory directory;
	struct nbd_export *export; /* a reference */
};

/* Make @c, which has link->fd already, what @link says: handshake or transmission, with its ledger
 * taken up. Takes link->ledger; refers to @e. Any thread, before @c starts. -ENOMEM, -EBADMSG. */
int nbd_link_open(struct nbd_connection *c, const struct nbd_link *link, struct nbd_export *e);
void nbd_link_close(struct nbd_connection *c);

/* The rest is for connections with a ledger, on their thread. */

/* The handshake is done but for the bytes in its `out`: transmission begins behind them. What was
 * received past it moves to the ledger. 0 or a negative errno. */
int nbd_link_begin(struct nbd_connection *c);

/* The next request to serve, the same one until nbd_link_served(). GO_ON without *got: look again.
 */
enum nbd_pause nbd_link_next(struct nbd_connection *c, struct nbd_request *r, bool *got);
void nbd_link_served(struct nbd_connection *c);

/* `out` and the body become what is left of the reply that a predecessor began. */
void nbd_link_continue(struct nbd_connection *c);

/* At the end of a turn. */
void nbd_link_settle(struct nbd_connection *c);

#endif
