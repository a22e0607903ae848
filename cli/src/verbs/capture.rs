// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump capture -O FILE`: list and tables, slot for slot as EL2 wrote them, to be read by `-i FILE` anywhere.
//!
//! A file appears under its name only when it is whole; a new one is readable by its owner only, as the device is.

use super::identity::{is_as_listed, listed_table, listed_tables};
use super::{list_vms, names, Context, Stop};
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::frame::new_buffer;
use crate::origin::Origin;
use crate::plan::Output;
use crate::source::device::{Device, Query};
use crate::source::output_file::OutputFile;
use crate::source::{interrupts, Fetched, SlotSource, SourceError};
use s2dump_abi::hypercall::{DumpFlags, Status};
use s2dump_abi::slot::{SlotHeader, SlotKind};
use s2dump_abi::target::Identity;
use s2dump_abi::version::features;
use std::io::{self, Write};
use zerocopy::FromBytes;

/// Captures `targets`, or all VMs.
pub(super) fn run(
    targets: &[Selector],
    output: &Output,
    budget: u32,
    context: &mut Context<'_>,
) -> Result<ExitCode, Stop> {
    check_output(output, context)?;
    let fail = |error: SourceError| error.into_failure("capture");
    let mut device = context.device().map_err(fail)?;
    let vms = list_vms(&mut device)?;
    let chosen: Vec<Identity> = if targets.is_empty() {
        listed_tables(&vms)
    } else {
        targets.iter().map(|selector| Ok(listed_table(selector, &vms)?.0)).collect::<Result<_, Failure>>()?
    };

    let fail = |error: io::Error| output_failed(output, error);
    let mut file = create(output)?;
    let mut code = ExitCode::Ok;
    let origin = Origin::here().to_slot();
    let mut bytes = origin.len() as u64;
    put(&origin, file.as_mut(), context.out).map_err(fail)?;
    // For the upper levels of `walk -i`.
    let tables = if device.has(features::TABLES) { DumpFlags::TABLES } else { DumpFlags::default() };
    let flags = DumpFlags::EXACT.union(tables);
    let dumps = chosen.iter().map(|&table| {
        (crate::model::target_name(table.target), Query::Dump { table, flags, start: 0, end: u64::MAX, budget })
    });
    // What addresses are by themselves counts for tables of no VM.
    let is_of_machine = chosen.iter().any(|table| table.target.guest_handle().is_none());
    let facts = (is_of_machine && device.has(features::FACTS)).then(|| ("facts".to_owned(), Query::Facts));
    for (name, query) in std::iter::once(("list".to_owned(), Query::List)).chain(facts).chain(dumps) {
        let as_listed = match query {
            Query::Dump { table, .. } => list_vms(&mut device).map(|again| is_as_listed(table, &vms, &again)),
            _ => Ok(true),
        };
        if let (Query::Dump { table, .. }, Ok(true)) = (query, &as_listed) {
            let vm = vms.iter().find(|vm| table.target.guest_handle() == Some(vm.handle));
            match names::to_capture(&mut device, table.target, vm, context.proc) {
                Ok(slots) => {
                    bytes += slots.len() as u64;
                    put(&slots, file.as_mut(), context.out).map_err(fail)?;
                }
                Err(failure) => context.note(failure),
            }
        }
        let copied = match as_listed {
            Ok(true) => copy(&mut device, query, &name, (file.as_mut(), &mut *context.out), &mut bytes),
            Ok(false) => Ok(Status::VM_GONE),
            Err(failure) => Err(Copy::Failed(Failure { message: format!("{name}: {}", failure.message), ..failure })),
        };
        match copied {
            Ok(Status::OK) => {}
            // A VM that goes away does not spoil the others; what it had stays in the file, marked by its END slot.
            Ok(status) => {
                context.note(Failure::from_status(status, &name));
                code = ExitCode::Partial;
            }
            Err(Copy::Failed(failure)) if query != Query::List && chosen.len() > 1 => {
                context.note(failure);
                code = ExitCode::Partial;
            }
            Err(Copy::Failed(failure)) => return Err(failure.into()),
            Err(Copy::Output(error)) => return Err(fail(error)),
            Err(Copy::Interrupted) => return Err(interrupted(file.as_ref()).into()),
        }
    }
    file.map_or(Ok(()), OutputFile::keep).map_err(fail)?;
    context.out.flush()?;
    let tables = if chosen.len() == 1 { "1 table".into() } else { format!("{} tables", chosen.len()) };
    context.note(format_args!("wrote {}: the list of VMs and {tables}, {bytes} bytes", output.name()));
    Ok(code)
}

fn put(bytes: &[u8], file: Option<&mut OutputFile>, stdout: &mut dyn Write) -> io::Result<()> {
    match file {
        Some(file) => file.write_all(bytes),
        None => stdout.write_all(bytes),
    }
}

/// Refuses to write to a terminal.
pub(super) fn check_output(output: &Output, context: &Context<'_>) -> Result<(), Failure> {
    if *output == Output::Stdout && context.out_is_terminal {
        let failure = Failure::new(ExitCode::UsageOrIo, "a capture is not written to a terminal: it is binary");
        return Err(failure.hint("name a file with -O FILE, or pipe the capture into another program"));
    }
    Ok(())
}

/// Opens the file of `output`; none for standard output.
pub(super) fn create(output: &Output) -> Result<Option<OutputFile>, Stop> {
    match output {
        Output::Stdout => Ok(None),
        Output::File(path) => OutputFile::create(path).map(Some).map_err(|error| output_failed(output, error)),
    }
}

/// Says that writing to `output` failed.
pub(super) fn output_failed(output: &Output, error: io::Error) -> Stop {
    match output {
        Output::Stdout => error.into(),
        Output::File(path) => Failure::io(path.display(), &error).into(),
    }
}

/// Says what a signal leaves of `file`, or of standard output.
pub(super) fn interrupted(file: Option<&OutputFile>) -> Failure {
    super::machine::interrupted(match file {
        Some(OutputFile::New(_)) => "nothing was written",
        Some(OutputFile::Through(_)) | None => "what was written is not all",
    })
}

/// Why a table was not copied, or not whole.
enum Copy {
    /// By the device: it may be that of this table only.
    Failed(Failure),
    /// By what it is written to.
    Output(io::Error),
    Interrupted,
}

/// Copies the slots of `query`, which is called `name`, into `file`, or to `stdout` without one, and adds their `bytes`; returns how it
/// ended.
fn copy(
    device: &mut Device,
    query: Query,
    name: &str,
    (mut file, stdout): (Option<&mut OutputFile>, &mut dyn Write),
    bytes: &mut u64,
) -> Result<Status, Copy> {
    let fail = |error: SourceError| Copy::Failed(error.into_failure(name));
    let mut slots = device.start(query).map_err(fail)?;
    let mut buffer = new_buffer();
    let mut status = Status::OK;
    while let Fetched::Slot(used) = slots.fetch(&mut buffer).map_err(fail)? {
        if interrupts::came() {
            return Err(Copy::Interrupted);
        }
        let slot = buffer.get(..used).unwrap_or(&buffer[..]);
        if let Ok((header, _)) = SlotHeader::read_from_prefix(slot) {
            if header.kind == SlotKind::END.0 {
                status = Status(header.status);
            }
        }
        put(slot, file.as_deref_mut(), stdout).map_err(Copy::Output)?;
        *bytes += slot.len() as u64;
    }
    Ok(status)
}
