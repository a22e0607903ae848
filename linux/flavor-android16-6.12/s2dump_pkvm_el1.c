// SPDX-License-Identifier: GPL-2.0-only
/*
 * s2dump at EL1: the part that is particular to android16-6.12.
 *
 * A VM gets its handle when it first runs, and loses it when it is torn down:
 * with the last reference to its struct kvm. So who holds one keeps the handle
 * from being given to another VM, and the VM from dying. It is held for the
 * calls of one start only.
 */
#include <linux/kvm_host.h>

#include "s2dump_abi.h"
#include "s2dump_pkvm.h"

/* Handles are u32 here, but none is larger than the last of S2DUMP_HANDLES. */
u16 s2dump_pkvm_handle(const struct kvm *kvm)
{
	return READ_ONCE(kvm->arch.pkvm.handle);
}

/* Nobody can hold a VM that is being torn down. */
u16 s2dump_pkvm_vm_flags(const struct kvm *kvm)
{
	u16 flags = 0;

	if (kvm->arch.pkvm.enabled)
		flags |= S2DUMP_VM_PROTECTED;
	if (READ_ONCE(kvm->arch.pkvm.handle))
		flags |= S2DUMP_VM_CREATED;

	return flags;
}
