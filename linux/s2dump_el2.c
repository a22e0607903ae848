// SPDX-License-Identifier: GPL-2.0-only
/*
 * s2dump at EL2: what Rust cannot do by itself.
 *
 * The host is not trusted. Its arguments arrive in registers; nothing is read
 * from memory it can write, and nothing survives a call: no lock, no reference
 * to a VM, no pinned page.
 *
 * Lock order is pKVM's: VM table, then VM. Slots are pinned and unpinned with
 * neither held, because pinning takes the host's and the hypervisor's locks.
 */
#include <asm/kvm_host.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>
#include <asm/kvm_pkvm.h>

#include <nvhe/mem_protect.h>
#include <nvhe/memory.h>
#include <nvhe/pkvm.h>
#include <nvhe/spinlock.h>
#include <nvhe/trap_handler.h>

#include "s2dump_abi.h"
#include "s2dump_el2.h"

/*
 * The gate. EL1 sets it from the command line (s2dump_el1.c); EL2 maps it
 * read-only from the moment the host loses its rights.
 */
bool s2dump_enabled __ro_after_init;

void handle___pkvm_s2dump(struct kvm_cpu_context *host_ctxt)
{
	u64 regs[8];
	int i;

	for (i = 0; i < ARRAY_SIZE(regs); i++)
		regs[i] = cpu_reg(host_ctxt, i);

	s2dump_el2_handle(regs);

	for (i = 1; i <= 3; i++)
		cpu_reg(host_ctxt, i) = regs[i];
}

bool s2dump_el2_permitted(void)
{
	return s2dump_enabled;
}

/*
 * Returns the page as EL2 sees it, or NULL unless the host shares it with EL2.
 * The caller holds no lock, and unpins within the same hypercall.
 *
 * Any value of @pfn is fine: page states live in an array that is backed for
 * RAM only, so what is not RAM is turned away before anybody looks there.
 */
u64 *s2dump_el2_slot_pin(u64 pfn)
{
	void *slot;

	if (pfn >> (PHYS_MASK_SHIFT - PAGE_SHIFT))
		return NULL;

	if (!addr_is_memory(hyp_pfn_to_phys(pfn)))
		return NULL;

	slot = hyp_phys_to_virt(hyp_pfn_to_phys(pfn));
	if (hyp_pin_shared_mem(slot, slot + PAGE_SIZE))
		return NULL;

	return slot;
}

void s2dump_el2_slot_unpin(u64 *slot)
{
	hyp_unpin_shared_mem(slot, (void *)slot + PAGE_SIZE);
}

/*
 * Not cpus_have_final_cap() and what is made of it: that has a BUG() for the
 * time before capabilities are final, which is long past when this can run.
 * EL2 must have no panic path of ours.
 */
static u32 s2dump_table_features(void)
{
	u32 features = 0;

	if (alternative_has_cap_unlikely(ARM64_HAS_LPA2))
		features |= S2DUMP_TABLE_LPA2;
	if (alternative_has_cap_unlikely(ARM64_HAS_STAGE2_FWB))
		features |= S2DUMP_TABLE_FWB;
	if (alternative_has_cap_unlikely(ARM64_HAS_XNX))
		features |= S2DUMP_TABLE_XNX;
	if (alternative_has_cap_unlikely(ARM64_KVM_HVHE))
		features |= S2DUMP_TABLE_HVHE;

	return features;
}

/*
 * Finds a VM and locks its stage-2 table. Teardown takes the VM out of the
 * table of VMs first and needs the VM's lock before it frees anything, so a VM
 * found here stays until s2dump_el2_table_unlock(). A reference would do the
 * same, but makes a concurrent teardown fail, which the host never forgives.
 */
bool s2dump_el2_table_lock(u16 handle, struct s2dump_el2_table *table)
{
	struct pkvm_hyp_vm *vm;
	struct kvm_s2_mmu *mmu;

	hyp_spin_lock(&vm_table_lock);
	vm = get_vm_by_handle(handle);
	if (vm)
		hyp_spin_lock(&vm->lock);
	hyp_spin_unlock(&vm_table_lock);

	if (!vm)
		return false;

	if (!vm->pgt.pgd) {
		hyp_spin_unlock(&vm->lock);
		return false;
	}

	mmu = &vm->kvm.arch.mmu;
	*table = (struct s2dump_el2_table) {
		.vm		= vm,
		.vtcr		= mmu->vtcr,
		.root		= hyp_virt_to_phys(vm->pgt.pgd),
		.table_features	= s2dump_table_features(),
		.vmid		= atomic64_read(&mmu->vmid.id),
		.encoding	= S2DUMP_ENCODING_PKVM_7_2,
		.is_protected	= vm->kvm.arch.pkvm.is_protected,
	};

	return true;
}

void s2dump_el2_table_unlock(void *vm)
{
	hyp_spin_unlock(&((struct pkvm_hyp_vm *)vm)->lock);
}

/*
 * Returns the page of a table as EL2 sees it, or NULL if EL2 may not read it.
 *
 * Tables are pages that the hypervisor owns alone and that one of its pools
 * counts a user of; those are mapped in its linear map. The count keeps out
 * what it owns but maps elsewhere only (its stacks), or needs nobody to see
 * (its data). The lock of the table that names @pa is held, so a true table
 * page cannot change hands meanwhile. What a corrupt table names has no such
 * lock: the check is then no more than a very good guess.
 */
const u64 *s2dump_el2_table_page(u64 pa)
{
	struct hyp_page *page;

	if (!PAGE_ALIGNED(pa) || !addr_is_memory(pa))
		return NULL;

	page = hyp_phys_to_page(pa);
	if (get_hyp_state(page) != PKVM_PAGE_OWNED || !page->refcount)
		return NULL;

	return hyp_phys_to_virt(pa);
}

/* Describes a VM, dying or not. Rust fills the geometry, EL1 pid and name. */
bool s2dump_el2_vm_info(u16 handle, struct s2dump_vm_record *out)
{
	struct pkvm_hyp_vm *vm;
	int i;

	hyp_spin_lock(&vm_table_lock);
	vm = get_vm_by_handle(handle);
	if (vm) {
		struct kvm *kvm = &vm->kvm;

		*out = (struct s2dump_vm_record) {
			.vtcr	= kvm->arch.mmu.vtcr,
			.root	= hyp_virt_to_phys(vm->pgt.pgd),
			.handle	= handle,
			.flags	= S2DUMP_VM_CREATED,
			.vmid	= atomic64_read(&kvm->arch.mmu.vmid.id),
		};
		if (kvm->arch.pkvm.is_protected)
			out->flags |= S2DUMP_VM_PROTECTED;
		if (kvm->arch.pkvm.is_dying)
			out->flags |= S2DUMP_VM_DYING;
		/* A vCPU appears here at its first run; only whether, not what. */
		for (i = 0; i < kvm->created_vcpus; i++)
			out->vcpus += !!READ_ONCE(vm->vcpus[i]);
	}
	hyp_spin_unlock(&vm_table_lock);

	return vm;
}
