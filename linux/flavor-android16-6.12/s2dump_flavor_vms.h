/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What nvhe/pkvm.c keeps to itself: the table of VMs.
 */
#ifndef __ARM64_KVM_S2DUMP_FLAVOR_VMS_H
#define __ARM64_KVM_S2DUMP_FLAVOR_VMS_H

#include <linux/types.h>

struct pkvm_hyp_vm;

/* Locks the table against VMs that come or go. Other readers are not kept out. */
void s2dump_flavor_vms_read_lock(void);
void s2dump_flavor_vms_read_unlock(void);

/*
 * Returns the VM with @handle, dying or not, or NULL. Called with the table
 * locked, and takes no reference: a teardown that found one would stop the
 * machine.
 */
struct pkvm_hyp_vm *s2dump_flavor_vm_of(u16 handle);

#endif /* __ARM64_KVM_S2DUMP_FLAVOR_VMS_H */
