/* SPDX-License-Identifier: Apache-2.0 */
/* The loop on io_uring. */
#include "base/loop_impl.h"

#include <errno.h>

static int uring_open(struct loop *l, struct err *err)
{
	(void)l;
	return err_set(err, -ENOSYS, "the io_uring loop is not built yet");
}

const struct loop_mechanism loop_uring = {
	.name = "io_uring",
	.open = uring_open,
};
