// SPDX-License-Identifier: MIT OR Apache-2.0
//! VMs: handles and VMIDs.

use super::{Need, On, Rule, PKVM};
use s2dump_abi::slot::{vm_flags, VmRecord};
use s2dump_abi::target::{END_HANDLE, FIRST_HANDLE};

pub(super) static VMID: Rule = Rule {
    id: "vm-vmid",
    meaning: "a VM's VMID is the place of its handle in pKVM's table, and never the host's",
    broken: "the TLB may take one VM's translations for another's",
    on: &[On::Vm],
    needs: &[Need::List],
    scope: PKVM,
    yields_to: &[],
    check: |sight, _| {
        let vm = created(sight.vm.as_ref()?)?;
        if !(FIRST_HANDLE..END_HANDLE).contains(&vm.handle) {
            return Some(format!("handle {:#x} is none that pKVM gives", vm.handle));
        }
        let expected = vm.handle - FIRST_HANDLE + 1;
        (vm.vmid != expected).then(|| format!("vm:{:#x} has VMID {}, not {expected}", vm.handle, vm.vmid))
    },
};

pub(super) static UNIQUE: Rule = Rule {
    id: "vm-unique",
    meaning: "no two VMs have the same VMID or the same root table",
    broken: "what one VM maps, another has",
    on: &[On::Vm],
    needs: &[Need::List],
    scope: PKVM,
    yields_to: &["vm-vmid"],
    check: |sight, machine| {
        let vm = created(sight.vm.as_ref()?)?;
        let others = machine.vms.iter().filter(|other| other.handle < vm.handle).filter_map(created);
        others.into_iter().find_map(|other| match (other.root == vm.root, other.vmid == vm.vmid) {
            (true, _) => Some(format!("vm:{:#x} and vm:{:#x} have root {:#x}", other.handle, vm.handle, vm.root)),
            (_, true) => Some(format!("vm:{:#x} and vm:{:#x} have VMID {}", other.handle, vm.handle, vm.vmid)),
            _ => None,
        })
    },
};

/// Returns `vm` if EL2 has it.
fn created(vm: &VmRecord) -> Option<&VmRecord> {
    (vm.flags & vm_flags::CREATED != 0).then_some(vm)
}
