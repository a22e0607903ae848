// SPDX-License-Identifier: GPL-2.0-only
/*
 * s2dump at EL2: tables, VMs and memory, as pKVM knows them. What differs from
 * one kernel tree to the next comes from s2dump_flavor_el2.h, inlined.
 *
 * The lock order is pKVM's: VM table, host, hypervisor, VM.
 */
#include <asm/arch_timer.h>
#include <asm/kvm_asm.h>
#include <asm/kvm_host.h>
#include <asm/kvm_hyp.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>
#include <asm/kvm_pkvm.h>
#include <asm/sections.h>

#include <nvhe/mem_protect.h>
#include <nvhe/memory.h>
#include <nvhe/mm.h>
#include <nvhe/pkvm.h>
#include <nvhe/spinlock.h>

#include "s2dump_abi.h"
#include "s2dump_el2.h"
#include "s2dump_pkvm.h"
#include "s2dump_pkvm_mm.h"

/* Once in the object each: pKVM's are inline. */
static noinline void s2dump_lock(hyp_spinlock_t *lock)
{
	hyp_spin_lock(lock);
}

static noinline void s2dump_unlock(hyp_spinlock_t *lock)
{
	hyp_spin_unlock(lock);
}

#include "s2dump_flavor_el2.h"

static_assert(KVM_MAX_PVMS == S2DUMP_HANDLES);
static_assert(KVM_PTE_LEAF_ATTR_HI_S2_XN == GENMASK_ULL(54, 53));

/* What all encodings have in common; each flavor asserts the rest of its own. */
static_assert(PKVM_PAGE_OWNED == 0);
static_assert(PKVM_PAGE_SHARED_OWNED == 1);
static_assert(PKVM_PAGE_SHARED_BORROWED == 2);
static_assert(PKVM_PAGE_STATE_PROT_MASK == GENMASK_ULL(56, 55));
static_assert(sizeof(struct hyp_page) == sizeof(u64));
static_assert(offsetof(struct hyp_page, refcount) == 0);
static_assert(sizeof_field(struct hyp_page, refcount) == 2);
static_assert(offsetof(struct hyp_page, order) == 2);
static_assert(sizeof_field(struct hyp_page, order) == 1);
static_assert(offsetof(struct hyp_page, host_share_guest_count) == 4);
static_assert(sizeof_field(struct hyp_page, host_share_guest_count) == 4);

bool s2dump_pkvm_is_final(void)
{
	return s2dump_flavor_is_final();
}

u16 s2dump_pkvm_encoding(void)
{
	return S2DUMP_FLAVOR_ENCODING;
}

/*
 * Does not use cpus_have_final_cap() or what is built on it: that has a BUG()
 * for the time before capabilities are final, and s2dump must have no panic
 * path at EL2. When this can run, they have long been final.
 */
u32 s2dump_pkvm_table_features(void)
{
	u32 features = 0;

	if (alternative_has_cap_unlikely(ARM64_HAS_LPA2))
		features |= S2DUMP_TABLE_LPA2;
	if (alternative_has_cap_unlikely(ARM64_HAS_STAGE2_FWB))
		features |= S2DUMP_TABLE_FWB;
	if (s2dump_flavor_has_xnx())
		features |= S2DUMP_TABLE_XNX;
	if (alternative_has_cap_unlikely(ARM64_KVM_HVHE))
		features |= S2DUMP_TABLE_HVHE;

	return features;
}

static void s2dump_stage2_describe(struct kvm_s2_mmu *mmu, void *pgd, struct s2dump_el2_table *table)
{
	table->vtcr = mmu->vtcr;
	table->root = hyp_virt_to_phys(pgd);
	table->vmid = atomic64_read(&mmu->vmid.id);
}

/*
 * Teardown first takes the VM out of the table of VMs, and takes the lock of the
 * VM's table before it frees anything. So a VM that is found and locked here
 * stays until it is unlocked.
 *
 * The table of VMs is locked, which guards whether a VM is dying. That is read
 * with the lock of the VM's table held as well, because pKVM takes a page of the
 * guest back under that lock, and only after it marked the VM. So if it is not
 * marked now, the table is whole until unlock.
 */
static u32 s2dump_guest_lock(u16 handle, struct s2dump_el2_table *table)
{
	struct pkvm_hyp_vm *vm = s2dump_flavor_vm(handle);
	hyp_spinlock_t *lock;

	if (!vm)
		return S2DUMP_NO_SUCH_VM;

	lock = s2dump_flavor_table_lock(vm);
	s2dump_lock(lock);
	if (!vm->pgt.pgd) {
		s2dump_unlock(lock);
		return S2DUMP_NO_SUCH_VM;
	}

	table->owner = lock;
	s2dump_stage2_describe(&vm->kvm.arch.mmu, vm->pgt.pgd, table);
	if (s2dump_flavor_is_protected(vm))
		table->flags |= S2DUMP_SLOT_PROTECTED;
	if (s2dump_flavor_is_dying(vm))
		table->flags |= S2DUMP_SLOT_DYING;

	return S2DUMP_OK;
}

/* The lock of the table is held, or of a guest the one it is found under. */
u32 s2dump_pkvm_all_table(u64 target, struct s2dump_el2_table *table)
{
	u64 name = target & (BIT_ULL(S2DUMP_TARGET_KIND_SHIFT) - 1);
	u64 kind = target >> S2DUMP_TARGET_KIND_SHIFT;

	*table = (struct s2dump_el2_table) {
		.table_features	= s2dump_pkvm_table_features(),
		.encoding	= s2dump_pkvm_encoding(),
	};

	if (kind == S2DUMP_TARGET_GUEST_STAGE2 && name <= U16_MAX)
		return s2dump_guest_lock(name, table);

	if (kind == S2DUMP_TARGET_HOST_STAGE2 && !name) {
		s2dump_stage2_describe(&host_mmu.arch.mmu, host_mmu.pgt.pgd, table);
		return S2DUMP_OK;
	}

	if (kind == S2DUMP_TARGET_HYP_STAGE1 && !name) {
		table->vtcr = read_sysreg(tcr_el2);
		table->mair = read_sysreg(mair_el2);
		table->root = hyp_virt_to_phys(pkvm_pgtable.pgd);
		return S2DUMP_OK;
	}

	return S2DUMP_UNKNOWN_TARGET;
}

/* The lock of the host's table or of EL2's; NULL of a guest's, which is found under that of the VMs. */
static hyp_spinlock_t *s2dump_lock_of(u64 target)
{
	switch (target >> S2DUMP_TARGET_KIND_SHIFT) {
	case S2DUMP_TARGET_HOST_STAGE2:
		return &host_mmu.lock;
	case S2DUMP_TARGET_HYP_STAGE1:
		return &pkvm_pgd_lock;
	default:
		return NULL;
	}
}

u32 s2dump_pkvm_table_lock(u64 target, struct s2dump_el2_table *table)
{
	hyp_spinlock_t *lock = s2dump_lock_of(target);
	u32 status;

	if (lock)
		s2dump_lock(lock);
	else
		s2dump_flavor_vms_lock();

	status = s2dump_pkvm_all_table(target, table);
	if (lock && status == S2DUMP_OK)
		table->owner = lock;
	else if (lock)
		s2dump_unlock(lock);
	else
		s2dump_flavor_vms_unlock();

	return status;
}

void s2dump_pkvm_table_unlock(void *owner)
{
	s2dump_unlock(owner);
}

void s2dump_pkvm_all_lock(void)
{
	s2dump_flavor_vms_lock();
	s2dump_lock(&host_mmu.lock);
	s2dump_lock(&pkvm_pgd_lock);
}

void s2dump_pkvm_all_unlock(void)
{
	s2dump_unlock(&pkvm_pgd_lock);
	s2dump_unlock(&host_mmu.lock);
	s2dump_flavor_vms_unlock();
}

/*
 * The count excludes pages that the hypervisor owns but maps only elsewhere
 * (its stacks), and pages that nobody needs to see (its data).
 */
bool s2dump_pkvm_is_counted(u64 pa)
{
	struct hyp_page *page = hyp_phys_to_page(pa);

	return s2dump_flavor_is_hyps(page) && page->refcount;
}

void s2dump_pkvm_frames_lock(void)
{
	s2dump_lock(&host_mmu.lock);
}

void s2dump_pkvm_frames_unlock(void)
{
	s2dump_unlock(&host_mmu.lock);
}

/*
 * The array of states is backed for the pages of all regions, but pKVM never
 * writes those of NOMAP regions: their zeros would say that the host owns them.
 * A page is memory if all of it is.
 */
bool s2dump_pkvm_region(u64 pa, struct s2dump_el2_region *out)
{
	unsigned int left = 0, right = min_t(unsigned int, hyp_memblock_nr, HYP_MEMBLOCK_REGIONS);
	const struct memblock_region *reg;

	s2dump_flavor_assert_frames();

	/* The regions are sorted: look for the first that ends behind @pa. */
	while (left < right) {
		unsigned int middle = (left + right) / 2;

		reg = &hyp_memory[middle];
		if (ALIGN_DOWN(reg->base + reg->size, PAGE_SIZE) <= pa)
			left = middle + 1;
		else
			right = middle;
	}

	for (; left < min_t(unsigned int, hyp_memblock_nr, HYP_MEMBLOCK_REGIONS); left++) {
		u64 start, end;

		reg = &hyp_memory[left];
		start = max_t(u64, PAGE_ALIGN(reg->base), ALIGN_DOWN(pa, PAGE_SIZE));
		end = ALIGN_DOWN(reg->base + reg->size, PAGE_SIZE);
		if (start >= end)
			continue;

		*out = (struct s2dump_el2_region) {
			.start	= start,
			.frames	= (end - start) >> PAGE_SHIFT,
			.states	= reg->flags & MEMBLOCK_NOMAP ? NULL :
				  (const u64 *)hyp_phys_to_page(start),
		};

		return true;
	}

	return false;
}

/* The facts, in this order: those of memory, one that all may see, the others. */
#define S2DUMP_HYP_FACTS	4

u64 s2dump_pkvm_facts(bool hyp)
{
	return hyp_memblock_nr + 1 + (hyp ? S2DUMP_HYP_FACTS + hyp_nr_cpus : 0);
}

static void s2dump_hyp_fact(u64 number, struct s2dump_fact *out)
{
	switch (number) {
	case 0:
	case 1:
		/* pKVM halves a quarter of the addresses: the states of frames are above. */
		out->kind = number ? S2DUMP_FACT_HYP_VMEMMAP : S2DUMP_FACT_HYP_PRIVATE;
		out->size = BIT_ULL(pkvm_pgtable.ia_bits - 3);
		out->start = __hyp_vmemmap - (number ? 0 : out->size);
		break;
	case 2:
		out->kind = S2DUMP_FACT_HYP_LINEAR;
		out->value = hyp_physvirt_offset;
		break;
	case 3:
		out->kind = S2DUMP_FACT_FIXBLOCK;
		out->start = s2dump_pkvm_fixblock();
		out->size = out->start ? PMD_SIZE : 0;
		break;
	default:
		out->kind = S2DUMP_FACT_FIXMAP;
		out->value = number - S2DUMP_HYP_FACTS;
		out->start = s2dump_pkvm_fixmap(out->value);
		out->size = PAGE_SIZE;
	}
}

void s2dump_pkvm_fact(u64 number, struct s2dump_fact *out)
{
	*out = (struct s2dump_fact) {};
	if (number < hyp_memblock_nr) {
		const struct memblock_region *reg = &hyp_memory[number];

		out->kind = S2DUMP_FACT_MEMORY;
		out->start = reg->base;
		out->size = reg->size;
		out->flags = reg->flags & MEMBLOCK_NOMAP ? S2DUMP_FACT_NOMAP : 0;
	} else if (number == hyp_memblock_nr) {
		out->kind = S2DUMP_FACT_HYP_TEXT;
		out->start = ALIGN_DOWN(__hyp_pa(__hyp_text_start), PAGE_SIZE);
		out->size = PAGE_ALIGN(__hyp_pa(__hyp_text_end)) - out->start;
	} else {
		s2dump_hyp_fact(number - hyp_memblock_nr - 1, out);
	}
}

/*
 * A vCPU is in the VM's array once it has run. It is only counted, not looked
 * into. The host chose how many there may be, and pKVM does not bound that.
 */
static void s2dump_count_vcpus(const struct pkvm_hyp_vm *vm, struct s2dump_el2_vm *out)
{
	u32 max = min_t(u32, vm->kvm.created_vcpus, KVM_MAX_VCPUS);

	for (; out->looked_at < max; out->looked_at++)
		out->record.vcpus += !!READ_ONCE(vm->vcpus[out->looked_at]);
}

bool s2dump_pkvm_vm_info(u16 handle, struct s2dump_el2_vm *out)
{
	struct pkvm_hyp_vm *vm;
	u64 locked_at;

	s2dump_flavor_vms_lock();
	locked_at = arch_timer_read_cntvct_el0();
	vm = s2dump_flavor_vm(handle);
	if (vm) {
		struct kvm *kvm = &vm->kvm;

		*out = (struct s2dump_el2_vm) {
			.record = {
				.vtcr	= kvm->arch.mmu.vtcr,
				.root	= vm->pgt.pgd ? hyp_virt_to_phys(vm->pgt.pgd) : 0,
				.handle	= handle,
				.flags	= S2DUMP_VM_CREATED,
				.vmid	= atomic64_read(&kvm->arch.mmu.vmid.id),
			},
		};
		if (s2dump_flavor_is_protected(vm))
			out->record.flags |= S2DUMP_VM_PROTECTED;
		if (s2dump_flavor_is_dying(vm))
			out->record.flags |= S2DUMP_VM_DYING;
		s2dump_count_vcpus(vm, out);
		out->held_ticks = min_t(u64, arch_timer_read_cntvct_el0() - locked_at, U32_MAX);
	}
	s2dump_flavor_vms_unlock();

	return vm;
}
