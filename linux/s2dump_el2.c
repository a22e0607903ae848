// SPDX-License-Identifier: GPL-2.0-only
/*
 * s2dump at EL2: what needs pKVM's own functions. What differs from one kernel
 * tree to the next is behind s2dump_pkvm.h.
 *
 * The host is not trusted. Its arguments arrive in registers. EL2 reads nothing
 * from memory the host can write, and keeps nothing after a call: no lock, no
 * reference to a VM, no pinned page.
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
 * (s2dump_el1.c); EL2 maps it read-only from the moment the host is
 * deprivileged.
 */
u32 s2dump_permitted __ro_after_init;

/* What this CPU saved of the host is this call's alone: no copy on the stack. */
void handle___pkvm_s2dump(struct kvm_cpu_context *host_ctxt)
{
	s2dump_el2_handle(&cpu_reg(host_ctxt, 0));
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
 * Returns the first of @pages pages as EL2 sees them, or NULL unless the host
 * shares all of them with EL2. The caller holds no lock, and unpins within the
 * same hypercall.
 *
 * @pfn and @pages may have any value. The array of page states is backed for
 * RAM only, so each address is checked to be RAM before the array is read.
 * pKVM pins all pages or none, and wants them in one region of memory.
 */
u64 *s2dump_el2_slot_pin(u64 pfn, u32 pages)
{
	void *slot;
	u32 i;

	if (!pages || pages > S2DUMP_SLOT_PAGES || pfn >> (PHYS_MASK_SHIFT - PAGE_SHIFT))
		return NULL;

	for (i = 0; i < pages; i++) {
		if (!addr_is_memory(hyp_pfn_to_phys(pfn + i)))
			return NULL;
	}

	slot = hyp_phys_to_virt(hyp_pfn_to_phys(pfn));
	if (hyp_pin_shared_mem(slot, slot + pages * PAGE_SIZE))
		return NULL;

	return slot;
}

void s2dump_el2_slot_unpin(u64 *slot, u32 pages)
{
	hyp_unpin_shared_mem(slot, (void *)slot + pages * PAGE_SIZE);
}

/*
 * Returns whether EL2's own stage 1 lets EL2 read at @va now. PAR_EL1 belongs
 * to the host or a guest, so it is restored.
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
 * The lock of the table that names @pa is held, so a page of that table cannot
 * change hands meanwhile. A corrupt table may name another page, which this
 * lock does not protect. So both checks are needed: a page that EL2 owns may
 * not be mapped, and a page that is mapped may be the host's, shared and
 * pinned, from which EL2 must not load. One risk remains: a page that passes
 * both checks may be unmapped before the last load of this call. See
 * docs/threat-model.md.
 */
const u64 *s2dump_el2_table_page(u64 pa)
{
	const u64 *page;

	if (!PAGE_ALIGNED(pa) || !addr_is_memory(pa) || !s2dump_pkvm_is_counted(pa))
		return NULL;

	page = hyp_phys_to_virt(pa);

	return s2dump_is_readable(page) ? page : NULL;
}
