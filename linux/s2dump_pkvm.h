/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs from one pKVM tree to the next: all that s2dump must know of
 * pKVM's own structures, locks and encodings.
 *
 * A flavor of tree implements this in two files of its own directory
 * (flavor-mainline/ and so on): s2dump_pkvm_el2.c for the hypervisor, and
 * s2dump_pkvm_el1.c for the host. Nothing else of s2dump depends on the tree.
 */
#ifndef __ARM64_KVM_S2DUMP_PKVM_H
#define __ARM64_KVM_S2DUMP_PKVM_H

#include <linux/types.h>

struct kvm;
struct s2dump_el2_table;
struct s2dump_el2_vm;

#ifdef __KVM_NVHE_HYPERVISOR__

/*
 * Whether the host is deprivileged: before, nobody may ask EL2 anything. A
 * tree whose hypercalls come in bands has the call in the last of them.
 */
bool s2dump_pkvm_is_final(void);

/*
 * Locks the table that @target names and tells about it; returns S2DUMP_OK, or
 * a status with no lock held. @target is any number of the host's.
 *
 * Called with no lock held. Must not take a reference to a VM: that would make
 * a concurrent teardown fail, or worse. Whether a VM is dying is read under
 * the lock that guards it, at a moment when the table's lock is held too.
 */
u32 s2dump_pkvm_table_lock(u64 target, struct s2dump_el2_table *table);
void s2dump_pkvm_table_unlock(void *owner);

/*
 * Whether @pa, an aligned address of RAM, is a page that only the hypervisor
 * owns and that one of its pools counts a user of: so a table page, or like
 * one. Called under the lock of the table that names it.
 */
bool s2dump_pkvm_is_counted(u64 pa);

/*
 * Describes a VM, dying or not, or returns false. Called with no lock held;
 * the work under the VM table's lock is bounded whatever the host made.
 */
bool s2dump_pkvm_vm_info(u16 handle, struct s2dump_el2_vm *out);

#else

/* 0: this VM has no handle, as it never ran (in trees that are like that). */
u16 s2dump_pkvm_handle(const struct kvm *kvm);

/* S2DUMP_VM_*, as the host sees them now. */
u16 s2dump_pkvm_vm_flags(const struct kvm *kvm);

#endif

#endif /* __ARM64_KVM_S2DUMP_PKVM_H */
