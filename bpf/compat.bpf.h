/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Where kernels from 5.15 on differ in what we look at.
 *
 * - struct folio is of 5.16. Before it, mm_filemap_add_to_page_cache hands a struct page, in which
 *   mapping and index have the same names; in a later kernel's struct page index has another.
 * - Large folios in the page cache are of 5.18. A folio that is large knows how many pages it has
 * in _folio_nr_pages; as _nr_pages from 6.14 on. Its flags are a struct of one word from 6.18 on.
 * - page_cache_ra_order() is of 5.18 ("readahead: large folios"), page_cache_ra_unbounded() older
 *   than all we know. The tracepoints of the same names are of 6.18; userspace/observe/loader.c
 *   chooses by what BTF has.
 * - mm_filemap_get_pages, _map_pages and _fault are tracepoints of 6.12.
 * - block_bio_queue has the bio as its only argument since 5.11.
 */
#ifndef BPF_COMPAT_H
#define BPF_COMPAT_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/kernel.h"

static __always_inline struct address_space *compat_added_mapping(const __u64 *ctx)
{
	if (bpf_core_type_exists(struct folio))
		return ((struct folio *)ctx[0])->mapping;
	return ((struct page *)ctx[0])->mapping;
}

static __always_inline __u64 compat_added_index(const __u64 *ctx)
{
	if (bpf_core_type_exists(struct folio))
		return ((struct folio *)ctx[0])->index;
	return ((struct page *)ctx[0])->index;
}

static __always_inline __u32 compat_added_pages(const __u64 *ctx)
{
	const struct folio *folio = (const struct folio *)ctx[0];
	const struct folio___later *later = (const struct folio___later *)ctx[0];
	unsigned long flags;

	if (!bpf_core_type_exists(struct folio))
		return 1;
	flags = bpf_core_field_exists(folio->flags) ? folio->flags : later->flags.f;
	if (!(flags & (1UL << bpf_core_enum_value(enum pageflags, PG_head))))
		return 1;
	if (bpf_core_field_exists(folio->_folio_nr_pages))
		return folio->_folio_nr_pages;
	return bpf_core_field_exists(later->_nr_pages) ? later->_nr_pages : 1;
}

static __always_inline bool compat_is_ahead(const struct bio *bio)
{
	return bio->bi_opf & (1U << bpf_core_enum_value(enum req_flag_bits, __REQ_RAHEAD));
}

#endif
