/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/window.h"

void window_init(struct window *w, uint32_t most)
{
	*w = (struct window){.most = most, .limit = most};
}

void window_good(struct window *w)
{
	if (w->limit == w->most || ++w->good < w->limit)
		return;
	w->limit++;
	w->good = 0;
}

bool window_busy(struct window *w, uint64_t began_ns, uint64_t now_ns)
{
	if (began_ns <= w->cut_ns || w->limit == 1)
		return false;
	w->limit /= 2;
	w->good = 0;
	w->cut_ns = now_ns;
	return true;
}
