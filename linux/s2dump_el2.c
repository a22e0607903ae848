// SPDX-License-Identifier: GPL-2.0-only
/*
 * s2dump at EL2: what Rust cannot do by itself. What differs from one kernel
 * tree to the next is behind s2dump_pkvm.h.
 *
 * The host is not trusted. Its arguments arrive in registers; nothing is read
 * from memory it can write, and nothing survives a call: no lock, no reference
 * to a VM, no pinned page.
 *
 * Slots are pinned and unpinned with no lock held, because pinning takes the
 * host's and the hypervisor's locks.
 */
#include <asm/arch_timer.h>
#include <asm/kvm_host.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>

#include <nvhe/mem_protect.h>
#include <nvhe/memory.h>
#include <nvhe/trap_handler.h>

#include "s2dump_abi.h"
#include "s2dump_el2.h"
#include "s2dump_pkvm.h"

/*
 * The gate: S2DUMP_PERMIT_*. EL1 sets it from the command line
 * (s2dump_el1.c); EL2 maps it read-only from the moment the host loses its
 * rights.
 */
u32 s2dump_permitted __ro_after_init;

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

u32 s2dump_el2_permitted(void)
{
	return s2dump_pkvm_is_final() ? s2dump_permitted : 0;
}

u64 s2dump_el2_counter(void)
{
	return arch_timer_read_cntvct_el0();
}

u32 s2dump_el2_counter_hz(void)
{
	return arch_timer_get_cntfrq();
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
 * Whether EL2's own stage 1 lets EL2 read at @va now. PAR_EL1 is the host's
 * or a guest's, so it is put back.
 */
static bool s2dump_is_readable(const u64 *va)
{
	u64 saved = read_sysreg_par(), par;

	asm volatile("at s1e2r, %0" :: "r" (va));
	isb();
	par = read_sysreg_par();
	write_sysreg(saved, par_el1);

	return !(par & SYS_PAR_EL1_F);
}

/*
 * Returns the page of a table as EL2 sees it, or NULL if EL2 may not read it.
 *
 * The lock of the table that names @pa is held, so a true table page cannot
 * change hands meanwhile. What a corrupt table names has no such lock. Then
 * both checks are needed: a page may be owned by EL2 and not be mapped, and a
 * page that the host shares and EL2 has pinned is mapped, but not for us to
 * load from. A page that passes both and is unmapped before the last load of
 * this call is what remains: see docs/threat-model.md.
 */
const u64 *s2dump_el2_table_page(u64 pa)
{
	const u64 *page;

	if (!PAGE_ALIGNED(pa) || !addr_is_memory(pa) || !s2dump_pkvm_is_counted(pa))
		return NULL;

	page = hyp_phys_to_virt(pa);

	return s2dump_is_readable(page) ? page : NULL;
}
