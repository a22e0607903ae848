/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of s2dump's record format that C needs.
 *
 * abi/ (Rust) defines the format; these are copies of its numbers.
 */
#ifndef __ARM64_KVM_S2DUMP_ABI_H
#define __ARM64_KVM_S2DUMP_ABI_H

#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/types.h>

/* x1 of the hypercall */
#define S2DUMP_OP_DUMP			2

/* status in x1 of the answer */
#define S2DUMP_OK			0
#define S2DUMP_NOT_PERMITTED		1
#define S2DUMP_NO_SUCH_VM		5

/* a slot: where records start, and how many fit */
#define S2DUMP_HEADER_BYTES		128
#define S2DUMP_SLOT_RECORDS		124U

#define S2DUMP_TABLE_LPA2		BIT(0)
#define S2DUMP_TABLE_FWB		BIT(1)
#define S2DUMP_TABLE_XNX		BIT(2)
#define S2DUMP_TABLE_HVHE		BIT(3)

#define S2DUMP_ENCODING_PKVM_7_2	1

#define S2DUMP_VM_PROTECTED		BIT(0)
#define S2DUMP_VM_CREATED		BIT(1)
#define S2DUMP_VM_DYING			BIT(2)

#define S2DUMP_RECORD_LEAF		1

/* A run of entries of one level with equal attributes. */
struct s2dump_record {
	u64	ia;
	u64	oa;
	u64	descriptor;	/* the first of the run */
	u32	count;
	s8	level;
	u8	kind;		/* S2DUMP_RECORD_* */
	u16	flags;
};

static_assert(sizeof(struct s2dump_record) == 32);

#endif /* __ARM64_KVM_S2DUMP_ABI_H */
