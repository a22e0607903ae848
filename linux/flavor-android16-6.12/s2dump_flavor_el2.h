/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * s2dump at EL2: what is particular to android16-6.12. Included by
 * s2dump_pkvm_el2.c, and by nothing else.
 */
#include "s2dump_flavor_vms.h"

/*
 * S2DUMP_ENCODING_PKVM_ANDROID_6_12, which vmsa/pkvm/android_6_12.rs decodes,
 * holds only with these values, and with those of s2dump_pkvm_el2.c.
 */
#define S2DUMP_FLAVOR_ENCODING	S2DUMP_ENCODING_PKVM_ANDROID_6_12

static_assert(PKVM_PAGE_TAINTED == 3);
static_assert(PKVM_MODULE_OWNED_PAGE == 4);
static_assert(PKVM_NOPAGE == 8);
static_assert(KVM_INVALID_PTE_OWNER_MASK == GENMASK_ULL(9, 2));
static_assert(KVM_INVALID_PTE_LOCKED == BIT_ULL(10));
static_assert(KVM_INVALID_PTE_MMIO_NOTE == BIT_ULL(11));
static_assert(PKVM_ID_HOST == 0 && PKVM_ID_HYP == 1 && PKVM_ID_FFA == 2);
static_assert(PKVM_ID_GUEST == 3 && PKVM_ID_PROTECTED == 4);

/* The numbers behind are those of calls that modules add. */
static_assert((int)__KVM_HOST_SMCCC_FUNC___pkvm_s2dump <
	      (int)__KVM_HOST_SMCCC_FUNC___dynamic_hcalls);

/* There is no band of calls for which the host must be deprivileged. */
static inline bool s2dump_flavor_is_final(void)
{
	return static_branch_likely(&kvm_protected_mode_initialized);
}

static inline bool s2dump_flavor_has_xnx(void)
{
	return SYS_FIELD_GET(ID_AA64MMFR1_EL1, XNX, id_aa64mmfr1_el1_sys_val);
}

static inline void s2dump_flavor_vms_lock(void)
{
	s2dump_flavor_vms_read_lock();
}

static inline void s2dump_flavor_vms_unlock(void)
{
	s2dump_flavor_vms_read_unlock();
}

/* Takes no reference: the VMs are locked. */
static inline struct pkvm_hyp_vm *s2dump_flavor_vm(u16 handle)
{
	return s2dump_flavor_vm_of(handle);
}

/* The VM has another lock, for its vCPUs. */
static inline hyp_spinlock_t *s2dump_flavor_table_lock(struct pkvm_hyp_vm *vm)
{
	return &vm->pgtable_lock;
}

static inline bool s2dump_flavor_is_protected(const struct pkvm_hyp_vm *vm)
{
	return vm->kvm.arch.pkvm.enabled;
}

static inline bool s2dump_flavor_is_dying(const struct pkvm_hyp_vm *vm)
{
	return vm->is_dying;
}

/*
 * Returns whether the host has lost a page to the hypervisor, or to a guest: of
 * EL2 the page frame says nothing. A guest's page is counted while a device
 * may use it. The MMU lets EL2 read such a page only if the guest shares it with
 * EL2, and only a corrupt table leads there.
 */
static inline bool s2dump_flavor_is_hyps(struct hyp_page *page)
{
	return page->host_state == PKVM_NOPAGE;
}

/* The host's state has eight bits. */
static __always_inline void s2dump_flavor_assert_frames(void)
{
	union {
		struct hyp_page	page;
		u64		raw;
	} frame = { .raw = 0 };

	frame.page.host_state = 0xff;
	BUILD_BUG_ON(frame.raw != GENMASK_ULL(31, 24));
}
