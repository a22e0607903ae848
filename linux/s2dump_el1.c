// SPDX-License-Identifier: GPL-2.0-only
/*
 * s2dump at EL1: helpers for what Rust for Linux cannot do.
 */
#include <linux/arm-smccc.h>
#include <linux/atomic.h>
#include <linux/capability.h>
#include <linux/cleanup.h>
#include <linux/dcache.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/security.h>
#include <linux/sort.h>
#include <linux/srcu.h>
#include <linux/string.h>

#include <asm/kvm_asm.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pkvm.h>
#include <asm/sections.h>
#include <asm/virt.h>

#include "s2dump_abi.h"
#include "s2dump_el1.h"
#include "s2dump_el2.h"
#include "s2dump_pkvm.h"

/*
 * A copy of the gate, because EL1 cannot read EL2's once pKVM is up. Both are
 * written only while the command line is parsed, long before that.
 */
static bool s2dump_asked_for __ro_after_init;

struct s2dump_word {
	const char	*word;
	u32		permitted;	/* S2DUMP_PERMIT_* */
};

/* Whole words: what only begins like one of these opens no gate. */
static const struct s2dump_word s2dump_words[] __initconst = {
	{ "on",		S2DUMP_PERMIT_CALLS },
	{ "1",		S2DUMP_PERMIT_CALLS },
	{ "y",		S2DUMP_PERMIT_CALLS },
	{ "off",	0 },
	{ "0",		0 },
	{ "n",		0 },
	{ "atomic",	S2DUMP_PERMIT_ATOMIC },
	{ "hyp",	S2DUMP_PERMIT_HYP },
};

static int __init s2dump_early_word(const char *word, size_t len, u32 *permitted)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(s2dump_words); i++) {
		if (strlen(s2dump_words[i].word) == len &&
		    !strncmp(s2dump_words[i].word, word, len)) {
			*permitted |= s2dump_words[i].permitted;
			return 0;
		}
	}
	pr_warn("kvm-arm.s2dump: %.*s? Want off, or on with or without ,atomic and ,hyp\n",
		(int)len, word);

	return -EINVAL;
}

/* A list of words; one that is not known closes the gate. The last list counts. */
static int __init s2dump_early_param(char *arg)
{
	const char *word = arg ?: "";
	u32 permitted = 0;
	int ret;

	do {
		size_t len = strcspn(word, ",");

		ret = s2dump_early_word(word, len, &permitted);
		word += len;
	} while (!ret && *word++);

	s2dump_asked_for = !ret && permitted & S2DUMP_PERMIT_CALLS;
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
 * s2dump has no lockdown reason of its own, as that would change a core enum.
 * LOCKDOWN_KCORE is the nearest: it stops root from reading what the kernel
 * keeps to itself.
 */
int s2dump_el1_open_allowed(void)
{
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;

	return security_locked_down(LOCKDOWN_KCORE);
}

/*
 * Calls EL2 with x1..x7 of @regs; x0..x3 of the answer replace regs[0..3].
 * Several callers may be here at once; only tests of EL2 want that.
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

#ifdef CONFIG_PKVM_S2DUMP_SELFTEST
/* The most callers there were at once: tests want to see 1. */
static atomic_t s2dump_callers = ATOMIC_INIT(0);
static atomic_t s2dump_most_callers = ATOMIC_INIT(0);

static void s2dump_count_caller(int change)
{
	int now = atomic_add_return(change, &s2dump_callers);
	int most = atomic_read(&s2dump_most_callers);

	while (now > most && !atomic_try_cmpxchg(&s2dump_most_callers, &most, now))
		;
}

int s2dump_el1_most_callers(void)
{
	return atomic_read(&s2dump_most_callers);
}
#else
static void s2dump_count_caller(int change)
{
}
#endif

/*
 * The same, one caller at a time. A second caller would wait at EL2 for the
 * lock of the VM, with the lock of the VM table held and interrupts masked, and
 * every load and put of a vCPU would wait behind it. So callers wait here.
 */
void s2dump_el1_call(u64 regs[8])
{
	guard(mutex)(&s2dump_call_mutex);
	s2dump_count_caller(1);
	s2dump_el1_call_at_once(regs);
	s2dump_count_caller(-1);
}

/* How many pages are shared with EL2 now, for those who look for leaks. */
static atomic_long_t s2dump_shared_pages = ATOMIC_LONG_INIT(0);

long s2dump_el1_shared_pages(void)
{
	return atomic_long_read(&s2dump_shared_pages);
}

/*
 * Does not use kvm_share_hyp(), which counts the users of a page and warns if
 * one cannot be unshared. Only one user shares these pages, and it handles the
 * error.
 */
int s2dump_el1_share(struct page *page)
{
	int ret = kvm_call_hyp_nvhe(__pkvm_host_share_hyp, page_to_pfn(page));

	if (!ret)
		atomic_long_inc(&s2dump_shared_pages);

	return ret;
}

/*
 * After an error the page still is EL2's to write, and must not be freed:
 * whoever got it next could neither share nor donate it, and would fail for no
 * reason of its own. A lost page is better.
 */
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

/* Start and end of what EL2 has in the image of the kernel beside its code: data, constants, variables. Whole pages. */
void s2dump_el1_hyp_image(u64 out[3][2])
{
	const char *const image[3][2] = {
		{ __hyp_data_start, __hyp_data_end },
		{ __hyp_rodata_start, __hyp_rodata_end },
		{ __hyp_bss_start, __hyp_bss_end },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(image); i++) {
		out[i][0] = ALIGN_DOWN(__pa_symbol(image[i][0]), PAGE_SIZE);
		out[i][1] = PAGE_ALIGN(__pa_symbol(image[i][1]));
	}
}

/*
 * Returns the first of 1 << order pages that follow each other. They are
 * zeroed, because user space can map them before EL2 fills them, and compound,
 * because it can map each of them. They are not split: single pages would go
 * back to lists from which the next session takes none.
 */
struct page *s2dump_el1_alloc_pages(unsigned int order)
{
	return alloc_pages(GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_COMP, order);
}

void s2dump_el1_free_pages(struct page *page, unsigned int order)
{
	__free_pages(page, order);
}

/*
 * Describes a VM and takes a reference to it, or returns false if its last
 * reference is gone. With the reference no other VM gets its handle, and its
 * debugfs name stays, which is freed before the VM leaves vm_list. The
 * reference must be put without kvm_lock, because that may destroy the VM.
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

unsigned int s2dump_el1_count_vms(void)
{
	guard(mutex)(&kvm_lock);

	return list_count_nodes(&vm_list);
}

/*
 * Holds and writes up to @max VMs, by ascending handle; returns how many. Those
 * made last are left out: they stand first in the list.
 */
int s2dump_el1_hold_vms(struct s2dump_el1_vm *out, unsigned int max)
{
	unsigned int count = 0;
	struct kvm *kvm;

	scoped_guard(mutex, &kvm_lock) {
		list_for_each_entry_reverse(kvm, &vm_list, vm_list) {
			if (count == max)
				break;
			count += s2dump_hold(kvm, &out[count]);
		}
	}
	sort(out, count, sizeof(*out), s2dump_cmp_handle, NULL);

	return count;
}

/* Reads the handles of VMs that are held, and nothing else, again. */
void s2dump_el1_read_handles(struct s2dump_el1_vm *vms, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		vms[i].handle = s2dump_pkvm_await_handle(vms[i].held);
}

/* Holds the VM that has @handle now, or returns false if there is none. */
bool s2dump_el1_hold_vm(u16 handle, struct s2dump_el1_vm *out)
{
	struct kvm *kvm;

	guard(mutex)(&kvm_lock);
	list_for_each_entry(kvm, &vm_list, vm_list) {
		if (s2dump_pkvm_handle(kvm) == handle && s2dump_hold(kvm, out))
			return true;
	}

	return false;
}

/* Must not be called with kvm_lock held, because this may destroy the VM. */
void s2dump_el1_let_vm_go(struct kvm *held)
{
	s2dump_pkvm_put_vm(held);
}

/*
 * Writes memory slots of a VM that is held to @page, from @offset on, and returns
 * how many: of those that begin at the input address @from or above the first
 * @max. They are of one moment, and in ascending addresses. One that is about to
 * be deleted or moved is left out: there can be no more than one.
 */
unsigned int s2dump_el1_memory_slots(struct kvm *held, u64 from, struct page *page,
				     unsigned int offset, unsigned int max)
{
	struct s2dump_memory_slot *out = page_address(page) + offset;
	struct kvm_memslot_iter iter;
	unsigned int count = 0;

	guard(srcu)(&held->srcu);
	kvm_for_each_memslot_in_gfn_range(&iter, kvm_memslots(held), from >> PAGE_SHIFT, ~0ULL) {
		const struct kvm_memory_slot *slot = iter.slot;

		if (count == max)
			break;
		if (slot->flags & KVM_MEMSLOT_INVALID || slot->base_gfn < from >> PAGE_SHIFT)
			continue;

		out[count++] = (struct s2dump_memory_slot) {
			.ia	= slot->base_gfn << PAGE_SHIFT,
			.size	= (u64)slot->npages << PAGE_SHIFT,
			.hva	= slot->userspace_addr,
			.flags	= slot->flags & U16_MAX,	/* the others are KVM's own */
			.id	= slot->id,
		};
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
