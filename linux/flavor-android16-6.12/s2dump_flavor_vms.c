// SPDX-License-Identifier: GPL-2.0-only
/*
 * Included by nvhe/pkvm.c, behind what it defines: a part of that file, since
 * all this is static there.
 */
#ifdef CONFIG_PKVM_S2DUMP

#include "s2dump_flavor_vms.h"

void s2dump_flavor_vms_read_lock(void)
{
	hyp_read_lock(&vm_table_lock);
}

void s2dump_flavor_vms_read_unlock(void)
{
	hyp_read_unlock(&vm_table_lock);
}

/*
 * Releases after 6.12.23 put this in the place of a VM if the secure world could
 * not be told that it ended. In some of them the lookup returns it as it is.
 */
#define S2DUMP_LEAKED_VM	((struct pkvm_hyp_vm *)0xdeadbeef)

/* The lookup takes for granted that there is a table. */
struct pkvm_hyp_vm *s2dump_flavor_vm_of(u16 handle)
{
	struct pkvm_hyp_vm *vm = vm_table ? get_vm_by_handle(handle) : NULL;

	return vm == S2DUMP_LEAKED_VM ? NULL : vm;
}

#endif /* CONFIG_PKVM_S2DUMP */
