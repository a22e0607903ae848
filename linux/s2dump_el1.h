/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * s2dump at EL1: what the Rust driver and debugfs get from C.
 */
#ifndef __ARM64_KVM_S2DUMP_EL1_H
#define __ARM64_KVM_S2DUMP_EL1_H

#include <linux/build_bug.h>
#include <linux/types.h>

struct kvm;
struct page;
struct ptdump_prot_bits;

/* A VM of the host that has a pKVM handle, whether or not it ever ran. */
struct s2dump_el1_vm {
	u32	pid;
	u16	handle;
	u16	flags;		/* S2DUMP_VM_* */
	char	name[24];	/* of its debugfs directory, zero padded */
};
static_assert(sizeof(struct s2dump_el1_vm) == 32);

bool s2dump_el1_available(void);
int s2dump_el1_open_allowed(void);
void s2dump_el1_call(u64 regs[8]);
int s2dump_el1_share(struct page *page);
int s2dump_el1_unshare(struct page *page);
u64 s2dump_el1_pfn(struct page *page);
int s2dump_el1_vms(struct s2dump_el1_vm *out, unsigned int max);

/* Rust: makes /dev/s2dump. Called once, and only if it may be there. */
int s2dump_driver_init(void);

/* For ptdump.c: true if the files are made here, and must not be made there. */
#ifdef CONFIG_PKVM_S2DUMP
bool s2dump_debugfs_create(struct kvm *kvm, const struct ptdump_prot_bits *bits,
			   unsigned int nr_bits);
#else
static inline bool s2dump_debugfs_create(struct kvm *kvm,
					 const struct ptdump_prot_bits *bits,
					 unsigned int nr_bits)
{
	return false;
}
#endif

#endif /* __ARM64_KVM_S2DUMP_EL1_H */
