// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump capture -O FILE`: list and tables, slot for slot as EL2 wrote them, to be read by `-i FILE` anywhere.
//!
//! A file appears under its name only when it is whole; a new one is readable by its owner only, as the device is.

use super::identity::{listed_table, listed_tables};
use super::{list_vms, Context, Stop};
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::frame::SlotBuffer;
use crate::plan::Output;
use crate::source::device::{Device, Query};
use crate::source::output_file::OutputFile;
use crate::source::{Fetched, SlotSource, SourceError};
use s2dump_abi::hypercall::{DumpFlags, Status};
use s2dump_abi::slot::{SlotHeader, SlotKind, VmRecord, SLOT_BYTES};
use s2dump_abi::target::{Identity, Target};
use std::io::{self, Write};
use zerocopy::FromBytes;

/// Captures `targets`, or all VMs.
pub(super) fn run(
    targets: &[Selector],
    output: &Output,
    budget: u32,
    context: &mut Context<'_>,
) -> Result<ExitCode, Stop> {
    if *output == Output::Stdout && context.out_is_terminal {
        let failure = Failure::new(ExitCode::UsageOrIo, "a capture is not written to a terminal: it is binary");
        return Err(failure.hint("name a file with -O FILE, or pipe the capture into another program").into());
    }
    let fail = |error: SourceError| error.into_failure("capture");
    let mut device = context.device().map_err(fail)?;
    let vms = list_vms(&mut device)?;
    let chosen: Vec<Identity> = if targets.is_empty() {
        listed_tables(&vms)
    } else {
        targets.iter().map(|selector| Ok(listed_table(selector, &vms)?.0)).collect::<Result<_, Failure>>()?
    };

    let fail = |error: io::Error| -> Stop {
        match output {
            Output::Stdout => error.into(),
            Output::File(path) => Failure::io(path.display(), &error).into(),
        }
    };
    let mut file = match output {
        Output::Stdout => None,
        Output::File(path) => Some(OutputFile::create(path).map_err(fail)?),
    };
    let mut code = ExitCode::Ok;
    let dumps = chosen.iter().map(|&table| {
        (
            crate::model::target_name(table.target),
            Query::Dump { table, flags: DumpFlags::EXACT, start: 0, end: u64::MAX, budget },
        )
    });
    for (name, query) in std::iter::once(("list".to_owned(), Query::List)).chain(dumps) {
        let copied = match query {
            Query::Dump { table, .. } if !is_as_listed(table, &vms, &list_vms(&mut device)?) => Ok(Status::VM_GONE),
            _ => copy(&mut device, query, file.as_mut(), context.out),
        };
        match copied {
            Ok(Status::OK) => {}
            // A VM that goes away does not spoil the others; what it had stays in the file, marked by its END slot.
            Ok(status) => {
                context.note(Failure::from_status(status, &name));
                code = ExitCode::Partial;
            }
            Err(Copy::Source(error)) if query != Query::List && chosen.len() > 1 => {
                context.note(error.into_failure(&name));
                code = ExitCode::Partial;
            }
            Err(Copy::Source(error)) => return Err(error.into_failure(&name).into()),
            Err(Copy::Output(error)) => return Err(fail(error)),
            Err(Copy::Interrupted) => {
                // The signal ends the program when the file is dropped.
                drop(file);
                return Err(Failure::new(ExitCode::Partial, "interrupted: nothing was written").into());
            }
        }
    }
    file.map_or(Ok(()), OutputFile::keep).map_err(fail)?;
    Ok(code)
}

/// Returns whether `again` has the VM of `table` as `vms` had it. The driver holds the VMs of a list only until a start of
/// one of them, so each start has a list of its own before it.
fn is_as_listed(table: Identity, vms: &[VmRecord], again: &[VmRecord]) -> bool {
    let find = |vms: &[VmRecord]| {
        let vm = vms.iter().find(|vm| Target::guest(vm.handle) == table.target)?;
        Some((vm.root, vm.pid, vm.name))
    };
    find(vms).is_some_and(|vm| find(again) == Some(vm))
}

enum Copy {
    Source(SourceError),
    Output(io::Error),
    Interrupted,
}

/// Copies the slots of `query` into `file`, or to `stdout` without one; returns how it ended.
fn copy(
    device: &mut Device,
    query: Query,
    mut file: Option<&mut OutputFile>,
    stdout: &mut dyn Write,
) -> Result<Status, Copy> {
    let mut slots = device.start(query).map_err(Copy::Source)?;
    let mut buffer: Box<SlotBuffer> = Box::new([0; SLOT_BYTES]);
    let mut status = Status::OK;
    while let Fetched::Slot(used) = slots.fetch(&mut buffer).map_err(Copy::Source)? {
        if file.as_mut().is_some_and(|file| file.is_interrupted()) {
            return Err(Copy::Interrupted);
        }
        let slot = buffer.get(..used).unwrap_or(&buffer[..]);
        if let Ok((header, _)) = SlotHeader::read_from_prefix(slot) {
            if header.kind == SlotKind::END.0 {
                status = Status(header.status);
            }
        }
        match &mut file {
            Some(file) => file.write_all(slot),
            None => stdout.write_all(slot),
        }
        .map_err(Copy::Output)?;
    }
    Ok(status)
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
