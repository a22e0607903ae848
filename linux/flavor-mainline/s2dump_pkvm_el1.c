// SPDX-License-Identifier: GPL-2.0-only
/*
 * s2dump at EL1: the part that is particular to mainline trees since Linux 7.2.
 *
 * A VM has its handle from the moment it is made until the last reference to
 * its struct kvm is put. So while somebody holds a reference, no other VM gets
 * the handle. The reference does not keep the guest's memory.
 */
#include <linux/kvm_host.h>

#include "s2dump_abi.h"
#include "s2dump_pkvm.h"

u16 s2dump_pkvm_handle(const struct kvm *kvm)
{
	return kvm->arch.pkvm.handle;
}

u16 s2dump_pkvm_vm_flags(const struct kvm *kvm)
{
	u16 flags = 0;

	if (kvm->arch.pkvm.is_protected)
		flags |= S2DUMP_VM_PROTECTED;
	if (READ_ONCE(kvm->arch.pkvm.is_created))
		flags |= S2DUMP_VM_CREATED;
	if (READ_ONCE(kvm->arch.pkvm.is_dying))
		flags |= S2DUMP_VM_DYING;

	return flags;
}
