// SPDX-License-Identifier: GPL-2.0-only
/*
 * Included by nvhe/mm.c, behind what it defines: a part of that file, since all
 * this is static there.
 */
#ifdef CONFIG_PKVM_S2DUMP

#include "s2dump_pkvm_mm.h"

u64 s2dump_pkvm_fixmap(unsigned long cpu)
{
	return per_cpu_ptr(&fixmap_slots, cpu)->addr;
}

u64 s2dump_pkvm_fixblock(void)
{
#ifdef HAS_FIXBLOCK
	return hyp_fixblock_slot.addr;
#else
	return 0;
#endif
}

#endif /* CONFIG_PKVM_S2DUMP */
