// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump capture -O FILE`: list and tables, slot for slot as EL2 wrote them, to be read by `-i FILE` anywhere.
//!
//! The file appears under its name only when it is whole; it is readable by its owner only, as the device is.

use super::{list_vms, resolve, Context, Stop};
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::frame::SlotBuffer;
use crate::source::device::{Device, Query};
use crate::source::file::NewFile;
use crate::source::{Fetched, SlotSource, SourceError};
use s2dump_abi::hypercall::{DumpFlags, Status};
use s2dump_abi::slot::{vm_flags, SlotHeader, SlotKind, SLOT_BYTES};
use s2dump_abi::target::Target;
use std::path::Path;
use zerocopy::FromBytes;

/// Captures `targets`, or all VMs.
pub(super) fn run(
    targets: &[Selector],
    output: &Path,
    budget: u32,
    context: &mut Context<'_>,
) -> Result<ExitCode, Stop> {
    let fail = |error: SourceError| error.into_failure("capture");
    let mut device = context.device().map_err(fail)?;
    let vms = list_vms(&mut device)?;
    let chosen: Vec<Target> = if targets.is_empty() {
        vms.iter().filter(|vm| vm.flags & vm_flags::CREATED != 0).map(|vm| Target::guest(vm.handle)).collect()
    } else {
        targets.iter().map(|selector| resolve(selector, &vms).map(|(target, _)| target)).collect::<Result<_, _>>()?
    };

    let mut file = NewFile::create(output).map_err(|error| Failure::io(output.display(), &error))?;
    let mut code = ExitCode::Ok;
    let requests = chosen.iter().map(|&target| {
        (
            crate::model::target_name(target),
            Query::Dump { target, flags: DumpFlags::EXACT, start: 0, end: u64::MAX, budget },
        )
    });
    for (name, query) in std::iter::once(("list".to_owned(), Query::List)).chain(requests) {
        match copy(&mut device, query, &mut file) {
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
            Err(Copy::File(error)) => return Err(Failure::io(output.display(), &error).into()),
        }
    }
    file.keep().map_err(|error| Failure::io(output.display(), &error))?;
    Ok(code)
}

enum Copy {
    Source(SourceError),
    File(std::io::Error),
}

/// Copies the slots of `query`; returns how it ended.
fn copy(device: &mut Device, query: Query, file: &mut NewFile) -> Result<Status, Copy> {
    let mut slots = device.start(query).map_err(Copy::Source)?;
    let mut buffer: Box<SlotBuffer> = Box::new([0; SLOT_BYTES]);
    let mut status = Status::OK;
    while let Fetched::Slot(used) = slots.fetch(&mut buffer).map_err(Copy::Source)? {
        let slot = buffer.get(..used).unwrap_or(&buffer[..]);
        if let Ok((header, _)) = SlotHeader::read_from_prefix(slot) {
            if header.kind == SlotKind::END.0 {
                status = Status(header.status);
            }
        }
        file.write(slot).map_err(Copy::File)?;
    }
    Ok(status)
}
