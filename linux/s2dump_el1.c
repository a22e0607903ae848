// SPDX-License-Identifier: GPL-2.0-only
/*
 * s2dump at EL1: what the Rust driver cannot reach by itself.
 */
#include <linux/arm-smccc.h>
#include <linux/atomic.h>
#include <linux/capability.h>
#include <linux/dcache.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/security.h>
#include <linux/sort.h>
#include <linux/string.h>

#include <asm/kvm_asm.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pkvm.h>
#include <asm/virt.h>

#include "s2dump_abi.h"
#include "s2dump_el1.h"
#include "s2dump_el2.h"
#include "s2dump_pkvm.h"

/*
 * The gate, twice: EL2's cannot be read here once pKVM is up. Both are written
 * only while the command line is parsed, long before that.
 */
static bool s2dump_asked_for __ro_after_init;

/* One word of the list, behind on or off. */
static u32 __init s2dump_early_word(const char *word, size_t len)
{
	if (len == strlen("atomic") && !strncmp(word, "atomic", len))
		return S2DUMP_PERMIT_ATOMIC;

	pr_warn("kvm-arm.s2dump: do not know the word %.*s\n", (int)len, word);

	return 0;
}

static int __init s2dump_early_param(char *arg)
{
	u32 permitted = S2DUMP_PERMIT_CALLS;
	const char *word;
	int ret;

	/* Looks at the first letters only. */
	ret = arg ? kstrtobool(arg, &s2dump_asked_for) : -EINVAL;
	if (ret) {
		pr_warn("kvm-arm.s2dump: want on, off, or on,atomic\n");
		s2dump_asked_for = false;
	}

	for (word = arg ? strchr(arg, ',') : NULL; word; word = strchr(word, ',')) {
		word++;
		permitted |= s2dump_early_word(word, strcspn(word, ","));
	}
	kvm_nvhe_sym(s2dump_permitted) = s2dump_asked_for ? permitted : 0;

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

/*
 * Calls EL2 with x1..x7 of @regs; x0..x3 of the answer replace regs[0..3].
 * Several callers at once: only who wants to see what EL2 makes of that.
 */
void s2dump_el1_call_at_once(u64 regs[8])
{
	struct arm_smccc_res res;

	arm_smccc_1_1_hvc(KVM_HOST_SMCCC_FUNC(__pkvm_s2dump), regs[1], regs[2],
			  regs[3], regs[4], regs[5], regs[6], regs[7], &res);
	regs[0] = res.a0;
	regs[1] = res.a1;
	regs[2] = res.a2;
	regs[3] = res.a3;
}

static DEFINE_MUTEX(s2dump_call_mutex);

/*
 * The same, one caller at a time. Who waits for the lock of a VM at EL2 waits
 * with the lock of the VM table held and interrupts masked, and all that load
 * or put a vCPU wait behind; so two calls must not meet there, but here.
 */
void s2dump_el1_call(u64 regs[8])
{
	guard(mutex)(&s2dump_call_mutex);
	s2dump_el1_call_at_once(regs);
}

/* How many pages are shared with EL2 now, for those who look for leaks. */
static atomic_long_t s2dump_shared_pages = ATOMIC_LONG_INIT(0);

long s2dump_el1_shared_pages(void)
{
	return atomic_long_read(&s2dump_shared_pages);
}

/*
 * Not kvm_share_hyp(): it counts the users of a page, and warns if one cannot
 * be unshared. These pages are the driver's alone, and it knows what to do.
 */
int s2dump_el1_share(struct page *page)
{
	int ret = kvm_call_hyp_nvhe(__pkvm_host_share_hyp, page_to_pfn(page));

	if (!ret)
		atomic_long_inc(&s2dump_shared_pages);

	return ret;
}

/* After an error the page still is EL2's to write, and must not be freed. */
int s2dump_el1_unshare(struct page *page)
{
	int ret = kvm_call_hyp_nvhe(__pkvm_host_unshare_hyp, page_to_pfn(page));

	if (!ret)
		atomic_long_dec(&s2dump_shared_pages);

	return ret;
}

u64 s2dump_el1_pfn(struct page *page)
{
	return page_to_pfn(page);
}

/*
 * Tells about a VM and takes a reference, or returns false if it is on its way
 * out. The reference keeps its handle from being given to another VM, and its
 * debugfs name, which teardown frees before the VM leaves vm_list. It must be
 * put without kvm_lock, because that may destroy the VM.
 */
static bool s2dump_hold(struct kvm *kvm, struct s2dump_el1_vm *out)
{
	if (!kvm_get_kvm_safe(kvm))
		return false;

	*out = (struct s2dump_el1_vm) {
		.held	= kvm,
		.pid	= kvm->userspace_pid,
		.handle	= s2dump_pkvm_handle(kvm),
		.flags	= s2dump_pkvm_vm_flags(kvm),
	};
	if (!IS_ERR_OR_NULL(kvm->debugfs_dentry))
		strscpy_pad(out->name, kvm->debugfs_dentry->d_name.name);

	return true;
}

static int s2dump_cmp_handle(const void *a, const void *b)
{
	const struct s2dump_el1_vm *left = a, *right = b;

	return (int)left->handle - (int)right->handle;
}

/* Writes up to @max VMs, by ascending handle; returns how many. */
int s2dump_el1_hold_vms(struct s2dump_el1_vm *out, unsigned int max)
{
	unsigned int count = 0;
	struct kvm *kvm;

	scoped_guard(mutex, &kvm_lock) {
		list_for_each_entry(kvm, &vm_list, vm_list) {
			if (count == max)
				break;
			count += s2dump_hold(kvm, &out[count]);
		}
	}
	sort(out, count, sizeof(*out), s2dump_cmp_handle, NULL);

	return count;
}

/* Finds the VM that has @handle now. */
bool s2dump_el1_hold_vm(u16 handle, struct s2dump_el1_vm *out)
{
	struct kvm *kvm;

	guard(mutex)(&kvm_lock);
	list_for_each_entry(kvm, &vm_list, vm_list) {
		if (handle && s2dump_pkvm_handle(kvm) == handle && s2dump_hold(kvm, out))
			return true;
	}

	return false;
}

/* Not under kvm_lock: this may destroy the VM. */
void s2dump_el1_let_vm_go(struct kvm *held)
{
	kvm_put_kvm(held);
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
