// SPDX-License-Identifier: GPL-2.0-only
/*
 * s2dump at EL1: the part that is particular to android16-6.12.
 *
 * A VM gets its handle when it first runs, and loses it when it is torn down:
 * with the last reference to its struct kvm. So who holds one keeps the handle
 * from being given to another VM, and the VM from dying. It is held for the
 * calls of one start only.
 */
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/sched/mm.h>
#include <linux/workqueue.h>

#include "s2dump_abi.h"
#include "s2dump_pkvm.h"

/* Handles are u32 here, but none is larger than the last of S2DUMP_HANDLES. */
u16 s2dump_pkvm_handle(const struct kvm *kvm)
{
	return READ_ONCE(kvm->arch.pkvm.handle);
}

/*
 * pkvm_create_hyp_vm() calls EL2 and sets the handle under config_lock, under
 * which the VMM's memory is read too. So the wait can be killed; 0 is said then.
 */
u16 s2dump_pkvm_await_handle(struct kvm *kvm)
{
	u16 handle = s2dump_pkvm_handle(kvm);

	if (handle)
		return handle;

	if (mutex_lock_killable(&kvm->arch.config_lock))
		return 0;

	handle = s2dump_pkvm_handle(kvm);
	mutex_unlock(&kvm->arch.config_lock);

	return handle;
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

struct s2dump_put {
	struct work_struct	work;
	struct kvm		*kvm;
};

static void s2dump_put_vm_work(struct work_struct *work)
{
	struct s2dump_put *put = container_of(work, struct s2dump_put, work);
	/* Freed with the VM, unless it is still used. */
	struct mm_struct *mm = mmget_not_zero(put->kvm->mm) ? put->kvm->mm : NULL;

	if (mm)
		kthread_use_mm(mm);
	kvm_put_kvm(put->kvm);
	if (mm) {
		kthread_unuse_mm(mm);
		mmput(mm);
	}
}

/*
 * With the last reference the kernel takes the pages that it had pinned for the
 * guest off the count of locked pages: that of the current process, which it
 * takes for the VMM. Another one has fewer, and that is a WARN. So the last
 * reference is put where the current memory is the VMM's, or if the VMM has
 * ended, where there is none.
 */
void s2dump_pkvm_put_vm(struct kvm *kvm)
{
	struct s2dump_put put = { .kvm = kvm };

	if (kvm->mm == current->mm) {
		kvm_put_kvm(kvm);
		return;
	}

	if (refcount_dec_not_one(&kvm->users_count))
		return;

	INIT_WORK_ONSTACK(&put.work, s2dump_put_vm_work);
	queue_work(system_unbound_wq, &put.work);
	flush_work(&put.work);
	destroy_work_on_stack(&put.work);
}
