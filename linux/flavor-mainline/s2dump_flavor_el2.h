/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * s2dump at EL2: what is particular to mainline trees since Linux 7.2. Included
 * by s2dump_pkvm_el2.c, and by nothing else.
 */

/*
 * S2DUMP_ENCODING_PKVM_7_2, which vmsa/pkvm/v7_2.rs decodes, holds only with these
 * values, and with those of s2dump_pkvm_el2.c.
 */
#define S2DUMP_FLAVOR_ENCODING	S2DUMP_ENCODING_PKVM_7_2

static_assert(PKVM_NOPAGE == 3);
static_assert((KVM_PTE_LEAF_ATTR_HI_SW & PKVM_PAGE_STATE_PROT_MASK) ==
	      PKVM_PAGE_STATE_PROT_MASK);
static_assert(KVM_INVALID_PTE_TYPE_MASK == GENMASK_ULL(63, 60));
static_assert(KVM_INVALID_PTE_TYPE_LOCKED == 1);
static_assert(KVM_HOST_INVALID_PTE_TYPE_DONATION == 2);
static_assert(KVM_GUEST_INVALID_PTE_TYPE_POISONED == 3);
static_assert(PKVM_ID_HOST == 0 && PKVM_ID_HYP == 1 && PKVM_ID_GUEST == 2);

/* Calls of this band exist only once the host is deprivileged. */
static_assert((int)__KVM_HOST_SMCCC_FUNC___pkvm_s2dump >=
	      (int)__KVM_HOST_SMCCC_FUNC_PKVM_ONLY);

static inline bool s2dump_flavor_is_final(void)
{
	return true;
}

static inline bool s2dump_flavor_has_xnx(void)
{
	return alternative_has_cap_unlikely(ARM64_HAS_XNX);
}

static inline void s2dump_flavor_vms_lock(void)
{
	s2dump_lock(&vm_table_lock);
}

static inline void s2dump_flavor_vms_unlock(void)
{
	s2dump_unlock(&vm_table_lock);
}

/* Takes no reference: the VMs are locked. */
static inline struct pkvm_hyp_vm *s2dump_flavor_vm(u16 handle)
{
	return get_vm_by_handle(handle);
}

static inline hyp_spinlock_t *s2dump_flavor_table_lock(struct pkvm_hyp_vm *vm)
{
	return &vm->lock;
}

static inline bool s2dump_flavor_is_protected(const struct pkvm_hyp_vm *vm)
{
	return vm->kvm.arch.pkvm.is_protected;
}

static inline bool s2dump_flavor_is_dying(const struct pkvm_hyp_vm *vm)
{
	return vm->kvm.arch.pkvm.is_dying;
}

/* Returns whether only the hypervisor owns a page. */
static inline bool s2dump_flavor_is_hyps(struct hyp_page *page)
{
	return get_hyp_state(page) == PKVM_PAGE_OWNED;
}

/* What is kept of a page in these states; folded when this is compiled. */
static __always_inline u64 s2dump_flavor_frame_of(int host_state, int hyp_state)
{
	union {
		struct hyp_page	page;
		u64		raw;
	} frame = { .raw = 0 };

	set_host_state(&frame.page, host_state);
	set_hyp_state(&frame.page, hyp_state);

	return frame.raw;
}

/* Four bits for the host's state, then four for the complement of EL2's. */
static __always_inline void s2dump_flavor_assert_frames(void)
{
	BUILD_BUG_ON(s2dump_flavor_frame_of(0xf, PKVM_NOPAGE) != GENMASK_ULL(27, 24));
	BUILD_BUG_ON(s2dump_flavor_frame_of(0, 0xc) != GENMASK_ULL(31, 28));
}
