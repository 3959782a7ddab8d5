/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LEDGER_LEN (64 << 10)

int ledger_new(struct err *err)
{
	int fd = memfd_create("cairn-ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING), rc;

	if (fd >= 0 && !ftruncate(fd, LEDGER_LEN) &&
	    !fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
		return fd;
	rc = -errno;
	if (fd >= 0)
		close(fd);
	return err_set(err, rc, "no memory for a connection's ledger: %s", strerror(-rc));
}
