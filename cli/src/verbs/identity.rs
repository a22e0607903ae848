// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which table is meant, and whether a capture has it. A handle alone does not say: EL2 gives it to another VM once its VM
//! is gone. The root that a list tells does.

use super::{has_table, remember, resolve, target_names, which, MOST_NAMED, MOST_VMS};
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::model::{target_name, TableFacts};
use crate::reader::{Event, Reader};
use crate::source::file::FileSource;
use crate::source::SlotSource;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{SlotKind, VmRecord};
use s2dump_abi::target::{Identity, Target};

/// Returns the table that `selector` names, of a VM among `vms`, a list of the device, and that VM. The host and EL2 have one
/// table each for as long as the machine runs, so they are named without a root.
///
/// # Errors
///
/// `NoSuchVm`: no VM of the list is meant, or one that never ran, which has no table. Also a handle is looked up: without a
/// root, the table that is read could be one of another VM by then.
pub(super) fn listed_table(selector: &Selector, vms: &[VmRecord]) -> Result<(Identity, Option<VmRecord>), Failure> {
    let (target, vm) = resolve(selector, vms)?;
    if target == Target::HOST || target == Target::HYP {
        return Ok((Identity { target, root: 0 }, None));
    }
    let name = target_name(target);
    let vm = vm.ok_or_else(|| Failure::from_status(Status::NO_SUCH_VM, &selector.to_string()))?;
    if !has_table(&vm) {
        return Err(Failure::from_status(Status::VM_NOT_RUN, &name));
    }
    Ok((Identity { target, root: vm.root }, Some(vm)))
}

/// Returns the tables of all VMs of a list that ran.
pub(super) fn listed_tables(vms: &[VmRecord]) -> Vec<Identity> {
    let created = vms.iter().filter(|vm| has_table(vm));
    created.map(|vm| Identity { target: Target::guest(vm.handle), root: vm.root }).collect()
}

/// Refuses `table` if `vms`, the lists read so far, name another root for its handle.
///
/// # Errors
///
/// `Partial`: the VM that was listed was gone when its table was to be read, so the table is a stranger's.
pub(super) fn check_listed(table: &TableFacts, vms: &[VmRecord]) -> Result<(), Failure> {
    let handle = table.target.guest_handle();
    // A VM that never ran has no root yet, and may have run since.
    let listed = vms.iter().find(|vm| Some(vm.handle) == handle && has_table(vm));
    match listed {
        Some(vm) if vm.root != table.root => {
            let failure = Failure::new(
                ExitCode::Partial,
                format_args!(
                    "{}: the VM went away while it was captured: the list names root {:#x}, the table that follows has root \
                     {:#x}, so it is another VM's",
                    table.name(),
                    vm.root,
                    table.root
                ),
            );
            Err(failure.hint("capture again"))
        }
        _ => Ok(()),
    }
}

/// Returns whether `again` has the VM of `table` as `vms` had it. The driver holds the VMs of a list only until a start of
/// one of them, so each start has a list of its own before it. Tables of the host and of EL2 are in no list and always there.
pub(super) fn is_as_listed(table: Identity, vms: &[VmRecord], again: &[VmRecord]) -> bool {
    if table.target.guest_handle().is_none() {
        return true;
    }
    let find = |vms: &[VmRecord]| {
        let vm = vms.iter().find(|vm| Target::guest(vm.handle) == table.target)?;
        Some((vm.root, vm.pid, vm.name))
    };
    find(vms).is_some_and(|vm| find(again) == Some(vm))
}

/// Returns the table of `source` that is meant without a name: that of the only VM, else the only one; none if there is none.
///
/// # Errors
///
/// If there are several. Of VMs the list is in the error, as on a machine, if the capture has it.
pub(super) fn only_table(source: &mut FileSource) -> Result<Option<Target>, Failure> {
    let previewed = source.preview(|source| targets(&mut Reader::new(source)));
    let (targets, vms) = previewed.map_err(|error| error.into_failure("capture"))?;
    let guests: Vec<Target> = targets.iter().copied().filter(|target| target.guest_handle().is_some()).collect();
    let listed: Vec<&VmRecord> = vms.iter().filter(|vm| guests.contains(&Target::guest(vm.handle))).collect();
    match (guests.as_slice(), targets.as_slice()) {
        ([only], _) | (_, [only]) => Ok(Some(*only)),
        (_, []) => Ok(None),
        _ if !guests.is_empty() && listed.len() == guests.len() => {
            Err(which(&format!("{} has", source.name()), &listed, None))
        }
        _ => {
            let more = if targets.len() > MOST_NAMED { ", ..." } else { "" };
            let names = target_names(targets.get(..MOST_NAMED).unwrap_or(&targets));
            let message = format_args!("{} is of several tables: {names}{more}", source.name());
            Err(Failure::new(ExitCode::UsageOrIo, message).hint("name one of them"))
        }
    }
}

/// Returns which tables a capture is of, and the VMs that it lists.
fn targets<S: SlotSource>(reader: &mut Reader<S>) -> (Vec<Target>, Vec<VmRecord>) {
    let (mut targets, mut vms) = (Vec::new(), Vec::new());
    // Damage ends the search here; the pass that follows tells it.
    while let Ok(Some(event)) = reader.next_event() {
        while reader.next_issue().is_some() {}
        let target = match event {
            Event::Dump(table) => table.target,
            // One that was asked for and refused: that of another VM is not taken in its place.
            Event::End(SlotKind::END, outcome) if outcome.status.is_some_and(|status| status != Status::OK) => {
                outcome.target
            }
            Event::Vm(vm) => {
                remember(&mut vms, vm);
                continue;
            }
            _ => continue,
        };
        if targets.len() < MOST_VMS && !targets.contains(&target) {
            targets.push(target);
        }
    }
    (targets, vms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    /// What the handle alone does not tell: another VM, made by another process, or with another table.
    #[test]
    fn a_vm_is_as_listed_or_gone() {
        let vm = VmRecord { handle: 0x1001, root: 0x4000, pid: 7, ..VmRecord::new_zeroed() };
        let table = Identity { target: Target::guest(0x1001), root: 0x4000 };
        assert!(is_as_listed(table, &[vm], &[vm]));
        assert!(is_as_listed(table, &[vm], &[VmRecord { vcpus: 2, ..vm }]), "more of it may run");
        let mut name = [0; 24];
        name[0] = b'7';
        for other in [VmRecord { root: 0x5000, ..vm }, VmRecord { pid: 8, ..vm }, VmRecord { name, ..vm }] {
            assert!(!is_as_listed(table, &[vm], &[other]), "{other:?}");
        }
        assert!(!is_as_listed(table, &[vm], &[]));
    }
}
