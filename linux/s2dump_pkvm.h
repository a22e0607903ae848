/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What needs pKVM's own structures, locks and encodings, which differ from one
 * tree to the next.
 *
 * For the hypervisor s2dump_pkvm_el2.c implements this. Where trees differ, it
 * goes by s2dump_flavor_el2.h, of which each flavor has its own in its directory
 * (flavor-mainline/ and so on). For the host each flavor has its own
 * s2dump_pkvm_el1.c. What is static to a file of pKVM's is reached from a file
 * of ours that this file includes. No other C of s2dump depends on the tree.
 */
#ifndef __ARM64_KVM_S2DUMP_PKVM_H
#define __ARM64_KVM_S2DUMP_PKVM_H

#include <linux/types.h>

struct kvm;
struct s2dump_el2_region;
struct s2dump_el2_table;
struct s2dump_el2_vm;
struct s2dump_fact;

#ifdef __KVM_NVHE_HYPERVISOR__

/*
 * Returns whether the host is deprivileged, or, where a tree does not tell more,
 * whether that has begun: until it ends, the host is trusted. Before, EL2 answers
 * no call. A tree whose hypercalls come in bands has ours in the band that begins
 * there, and returns true.
 */
bool s2dump_pkvm_is_final(void);

/*
 * Locks the table that @target names and describes it; returns S2DUMP_OK, or
 * another status with no lock held. The host may give any number as @target.
 *
 * Called with no lock held. Must not take a reference to a VM: that would make
 * a concurrent teardown fail, or worse. Whether a VM is dying is read under
 * the lock that guards it, at a moment when the table's lock is held too.
 */
u32 s2dump_pkvm_table_lock(u64 target, struct s2dump_el2_table *table);
void s2dump_pkvm_table_unlock(void *owner);

/*
 * Returns whether @pa, an aligned address of RAM, is a page that, as far as its
 * page frame tells, only the hypervisor owns, and of which one of its pools
 * counts a user: a table page, or a page like one. Called under the lock of the
 * table that names it.
 */
bool s2dump_pkvm_is_counted(u64 pa);

/*
 * Returns how many facts there are; those about input addresses of EL2's table
 * are the last, and count only if @hyp. Then describes the one with @number,
 * which is less. Needs no lock: facts do not change after boot.
 */
u64 s2dump_pkvm_facts(bool hyp);
void s2dump_pkvm_fact(u64 number, struct s2dump_fact *out);

/* Returns S2DUMP_ENCODING_*: of tables, and of what is kept about page frames. */
u16 s2dump_pkvm_encoding(void);

/*
 * Locks what pKVM keeps about page frames: while it is locked, no page changes
 * hands. Called with no lock held.
 */
void s2dump_pkvm_frames_lock(void);
void s2dump_pkvm_frames_unlock(void);

/*
 * Describes the rest of the region of memory that the page at @pa is in, or
 * the first region behind it; returns false if there is none. A region whose
 * states are given has them mapped, all of them. Called with the lock held;
 * @pa may have any value.
 */
bool s2dump_pkvm_region(u64 pa, struct s2dump_el2_region *out);

/* Returns S2DUMP_TABLE_*: the same for all tables. */
u32 s2dump_pkvm_table_features(void);

/*
 * Locks, in this order, the table of VMs, the host's table and EL2's own: while
 * they are locked, no page changes hands. Called with no lock held.
 */
void s2dump_pkvm_all_lock(void);
void s2dump_pkvm_all_unlock(void);

/*
 * As s2dump_pkvm_table_lock(), but with all of the above locked. So it locks
 * only a guest's table, and only then is an owner to be unlocked. The caller
 * unlocks one before it asks for another.
 */
u32 s2dump_pkvm_all_table(u64 target, struct s2dump_el2_table *table);

/*
 * Describes a VM, dying or not, or returns false if no VM has @handle. Called
 * with no lock held. The work under the VM table's lock is bounded, whatever
 * VMs the host made.
 */
bool s2dump_pkvm_vm_info(u16 handle, struct s2dump_el2_vm *out);

#else

/* Returns 0 if the VM has no handle: some trees give one at the first run. */
u16 s2dump_pkvm_handle(const struct kvm *kvm);

/*
 * The same, after a first run that goes on at EL2, which may list the VM
 * before the host knows the handle. May sleep.
 */
u16 s2dump_pkvm_await_handle(struct kvm *kvm);

/* Returns S2DUMP_VM_*, as the host sees them now. */
u16 s2dump_pkvm_vm_flags(const struct kvm *kvm);

/*
 * Puts a reference that may be the last one, on behalf of a process that need
 * not be the VM's. Called where kvm_put_kvm() may be.
 */
void s2dump_pkvm_put_vm(struct kvm *kvm);

#endif

#endif /* __ARM64_KVM_S2DUMP_PKVM_H */
