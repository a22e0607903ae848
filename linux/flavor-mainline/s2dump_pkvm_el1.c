// SPDX-License-Identifier: GPL-2.0-only
/*
 * s2dump at EL1: the part that is particular to mainline trees since Linux 7.2.
 *
 * A VM has its handle from the moment it is made. It loses it with the last
 * reference to its struct kvm, so who holds one keeps the handle from being
 * given to another VM. That is all it should do: the memory of a VM whose
 * process closed it without ending, and EL2's own pages about any VM, are given
 * back at the last reference too. So it is held for the calls of one start only.
 */
#include <linux/kvm_host.h>

#include "s2dump_abi.h"
#include "s2dump_pkvm.h"

u16 s2dump_pkvm_handle(const struct kvm *kvm)
{
	return kvm->arch.pkvm.handle;
}

u16 s2dump_pkvm_await_handle(struct kvm *kvm)
{
	return s2dump_pkvm_handle(kvm);
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

void s2dump_pkvm_put_vm(struct kvm *kvm)
{
	kvm_put_kvm(kvm);
}
