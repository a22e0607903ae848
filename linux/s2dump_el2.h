/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * s2dump at EL2: the border between C and Rust.
 *
 * Rust decodes, walks and writes slots; C does what needs pKVM's own types and
 * locks. Every struct here has a twin in the Rust sources.
 */
#ifndef __ARM64_KVM_S2DUMP_EL2_H
#define __ARM64_KVM_S2DUMP_EL2_H

#include <linux/build_bug.h>
#include <linux/types.h>

struct kvm_cpu_context;

/* A guest's stage-2 table, told while its lock is held. */
struct s2dump_el2_table {
	void	*vm;		/* what s2dump_el2_table_unlock() wants back */
	u64	vtcr;
	u64	root;		/* physical address of the first root page */
	u32	table_features;	/* S2DUMP_TABLE_* */
	u16	vmid;
	u16	encoding;	/* S2DUMP_ENCODING_* */
	u8	is_protected;
	u8	pad[7];
};
static_assert(sizeof(struct s2dump_el2_table) == 40);

/* A VM of a list. Fields left 0 here are filled by Rust or by EL1. */
struct s2dump_vm_record {
	u64	vtcr;
	u64	root;
	u32	pid;		/* EL1 */
	u32	vcpus;
	u16	handle;
	u16	flags;		/* S2DUMP_VM_* */
	u8	ia_bits;	/* Rust */
	s8	start_level;	/* Rust */
	u16	vmid;
	u8	name[24];	/* EL1 */
	u32	reserved[2];
};
static_assert(sizeof(struct s2dump_vm_record) == 64);

/* Rust: answers one hypercall; the host's x0..x7 come in, x1..x3 go out. */
void s2dump_el2_handle(u64 regs[8]);

/* C, called from Rust. */
bool s2dump_el2_permitted(void);
u64 *s2dump_el2_slot_pin(u64 pfn);
void s2dump_el2_slot_unpin(u64 *slot);
bool s2dump_el2_table_lock(u16 handle, struct s2dump_el2_table *table);
void s2dump_el2_table_unlock(void *vm);
const u64 *s2dump_el2_table_page(u64 pa);
bool s2dump_el2_vm_info(u16 handle, struct s2dump_vm_record *out);

/* C, called from the dispatcher of host hypercalls. */
void handle___pkvm_s2dump(struct kvm_cpu_context *host_ctxt);

#endif /* __ARM64_KVM_S2DUMP_EL2_H */
