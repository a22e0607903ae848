// SPDX-License-Identifier: GPL-2.0-only
/*
 * s2dump at EL1: what the Rust driver cannot reach by itself.
 */
#include <linux/arm-smccc.h>
#include <linux/capability.h>
#include <linux/dcache.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/security.h>

#include <asm/kvm_asm.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pkvm.h>
#include <asm/virt.h>

#include "s2dump_abi.h"
#include "s2dump_el1.h"

/*
 * The gate, twice: EL2's cannot be read here once pKVM is up. Both are written
 * only while the command line is parsed, long before that.
 */
static bool s2dump_asked_for __ro_after_init;

static int __init s2dump_early_param(char *arg)
{
	int ret = arg ? kstrtobool(arg, &s2dump_asked_for) : -EINVAL;

	if (ret)
		pr_warn("kvm-arm.s2dump: want on or off\n");
	kvm_nvhe_sym(s2dump_enabled) = s2dump_asked_for;

	return ret;
}
early_param("kvm-arm.s2dump", s2dump_early_param);

/* Whether pKVM is up and s2dump was asked for; never changes after boot. */
bool s2dump_el1_available(void)
{
	return s2dump_asked_for && is_pkvm_initialized();
}

/*
 * There is no lockdown reason of our own, as that would change a core enum.
 * LOCKDOWN_KCORE is the nearest: root reading what the kernel keeps to itself.
 */
int s2dump_el1_open_allowed(void)
{
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;

	return security_locked_down(LOCKDOWN_KCORE);
}

/* Calls EL2 with x1..x7 of @regs; x0..x3 of the answer replace regs[0..3]. */
void s2dump_el1_call(u64 regs[8])
{
	struct arm_smccc_res res;

	arm_smccc_1_1_hvc(KVM_HOST_SMCCC_FUNC(__pkvm_s2dump), regs[1], regs[2],
			  regs[3], regs[4], regs[5], regs[6], regs[7], &res);
	regs[0] = res.a0;
	regs[1] = res.a1;
	regs[2] = res.a2;
	regs[3] = res.a3;
}

/*
 * Not kvm_share_hyp(): it counts the users of a page, and warns if one cannot
 * be unshared. These pages are the driver's alone, and it knows what to do.
 */
int s2dump_el1_share(struct page *page)
{
	return kvm_call_hyp_nvhe(__pkvm_host_share_hyp, page_to_pfn(page));
}

/* After an error the page still is EL2's to write, and must not be freed. */
int s2dump_el1_unshare(struct page *page)
{
	return kvm_call_hyp_nvhe(__pkvm_host_unshare_hyp, page_to_pfn(page));
}

u64 s2dump_el1_pfn(struct page *page)
{
	return page_to_pfn(page);
}

/*
 * Returns the VM with the smallest handle above @after, or NULL. The reference
 * keeps its debugfs name, which teardown frees before it leaves vm_list. The
 * caller puts it without kvm_lock, because that may destroy the VM.
 */
static struct kvm *s2dump_next_vm(pkvm_handle_t after)
{
	struct kvm *kvm, *next;

	guard(mutex)(&kvm_lock);
	for (;;) {
		next = NULL;
		list_for_each_entry(kvm, &vm_list, vm_list) {
			if (kvm->arch.pkvm.handle > after &&
			    (!next || kvm->arch.pkvm.handle < next->arch.pkvm.handle))
				next = kvm;
		}

		/* One that fails here is on its way out: not worth a line. */
		if (!next || kvm_get_kvm_safe(next))
			return next;
		after = next->arch.pkvm.handle;
	}
}

static void s2dump_describe_vm(const struct kvm *kvm, struct s2dump_el1_vm *out)
{
	*out = (struct s2dump_el1_vm) {
		.pid	= kvm->userspace_pid,
		.handle	= kvm->arch.pkvm.handle,
	};

	if (kvm->arch.pkvm.is_protected)
		out->flags |= S2DUMP_VM_PROTECTED;
	if (READ_ONCE(kvm->arch.pkvm.is_created))
		out->flags |= S2DUMP_VM_CREATED;
	if (READ_ONCE(kvm->arch.pkvm.is_dying))
		out->flags |= S2DUMP_VM_DYING;
	if (!IS_ERR_OR_NULL(kvm->debugfs_dentry))
		strscpy_pad(out->name, kvm->debugfs_dentry->d_name.name);
}

/* Writes up to @max VMs, by ascending handle; returns how many. */
int s2dump_el1_vms(struct s2dump_el1_vm *out, unsigned int max)
{
	pkvm_handle_t last = 0;
	struct kvm *kvm;
	int count = 0;

	while (count < max && (kvm = s2dump_next_vm(last))) {
		s2dump_describe_vm(kvm, &out[count]);
		last = out[count++].handle;
		kvm_put_kvm(kvm);
	}

	return count;
}

/* Protected mode is finalized at device_initcall_sync, which is before this. */
static int __init s2dump_init(void)
{
	if (!s2dump_asked_for)
		return 0;

	if (!is_pkvm_initialized()) {
		pr_warn("s2dump: kvm-arm.s2dump=on has no effect without kvm-arm.mode=protected\n");
		return 0;
	}

	return s2dump_driver_init();
}
late_initcall(s2dump_init);
