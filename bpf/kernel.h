/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What we look at of the kernel, and no more. The offsets are those of the running kernel: each
 * access is relocated at load (CO-RE), so a build needs no BTF on its machine.
 */
#ifndef BPF_KERNEL_H
#define BPF_KERNEL_H

#include <stdbool.h>
#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct block_device {
	__u32 bd_dev;
};

struct bvec_iter {
	__u64 bi_sector; /* of 512 bytes */
	unsigned int bi_size;
} __attribute__((packed));

struct bio {
	struct block_device *bi_bdev;
	unsigned int bi_opf; /* enum req_op | 1 << enum req_flag_bits */
	struct bvec_iter bi_iter;
};

struct super_block {
	__u32 s_dev;
};

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_rdev; /* of the file that is a device */
	__s64 i_size;
};

struct address_space {
	struct inode *host;
};

struct file_ra_state {
	unsigned int size; /* of the window, pages */
};

struct readahead_control {
	struct address_space *mapping;
	unsigned long _index;
};

struct folio {
	unsigned long flags;
	struct address_space *mapping;
	unsigned long index;
	unsigned int _folio_nr_pages; /* only where flags say that it is large */
};

typedef struct {
	unsigned long f;
} memdesc_flags_t;

/* As later kernels have it: compat.bpf.h. */
struct folio___later {
	memdesc_flags_t flags;
	unsigned int _nr_pages;
};

struct page {
	struct address_space *mapping;
	unsigned long index;
};

#pragma clang attribute pop

enum pageflags { PG_head = 6 };
enum req_flag_bits { __REQ_RAHEAD = 19 }; /* their values are the running kernel's */

#define REQ_OP_MASK 0xffU
#define REQ_OP_READ 0U

/* dev_t as the kernel has it inside. */
#define DEV_MINOR_BITS 20
#define DEV_MINOR_MASK ((1U << DEV_MINOR_BITS) - 1)
#define DEV_LOOP       7U
#define DEV_NBD	       43U

#endif
