/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/attach/module.h"

#include <errno.h>
#include <libkmod.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define PARAMETERS "max_part=0"

/* Of /etc/modprobe.d only "blacklist" is heeded, by the flag; "options" there come before ours. */
static int insert(struct kmod_ctx *ctx)
{
	struct kmod_list *list = NULL, *item;
	int rc = kmod_module_new_from_lookup(ctx, "nbd", &list);

	if (!rc && !list)
		rc = -ENOENT;
	kmod_list_foreach(item, list)
	{
		struct kmod_module *m = kmod_module_get_module(item);

		rc = kmod_module_probe_insert_module(m, KMOD_PROBE_APPLY_BLACKLIST, PARAMETERS,
						     NULL, NULL, NULL);
		kmod_module_unref(m);
		if (rc)
			break;
	}
	kmod_module_unref_list(list);
	return rc;
}

static int refusal(struct err *err, int rc)
{
	struct utsname u;

	uname(&u);
	if (rc > 0)
		return err_set(err, -ENOTSUP,
			       "the nbd module is on a blacklist of this system (/etc/modprobe.d)");
	if (rc == -ENOENT)
		return err_set(err, -ENOTSUP,
			       "this system has no nbd module for its kernel %s: install it "
			       "(Ubuntu: linux-modules-extra-%s), or, in a container, run modprobe "
			       "nbd max_part=0 on the host",
			       u.release, u.release);
	return err_set(err, rc == -EPERM ? rc : -ENOTSUP,
		       "the nbd module does not load: %s; run modprobe nbd max_part=0 on the host",
		       strerror(-rc));
}

int nbd_module_load(struct err *err)
{
	struct kmod_ctx *ctx;
	int rc;

	if (access("/sys/module/nbd", F_OK) == 0)
		return 0;
	ctx = kmod_new(NULL, NULL);
	if (!ctx)
		return err_set(err, -ENOMEM, "libkmod: %s", strerror(errno));
	kmod_set_log_priority(ctx, 0);
	rc = insert(ctx);
	kmod_unref(ctx);
	return rc ? refusal(err, rc) : 0;
}
