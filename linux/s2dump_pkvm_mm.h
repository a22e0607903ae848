/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What nvhe/mm.c keeps to itself: where the slots of EL2's fixmap are. That does
 * not change once pKVM is up.
 */
#ifndef __ARM64_KVM_S2DUMP_PKVM_MM_H
#define __ARM64_KVM_S2DUMP_PKVM_MM_H

#include <linux/types.h>

/* Returns the slot of @cpu, one of hyp_nr_cpus. */
u64 s2dump_pkvm_fixmap(unsigned long cpu);

/* Returns the slot for a block, or 0 if there is none. */
u64 s2dump_pkvm_fixblock(void);

#endif /* __ARM64_KVM_S2DUMP_PKVM_MM_H */
