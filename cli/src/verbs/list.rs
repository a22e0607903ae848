// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump list`: the VMs EL2 knows, and those that are reserved and never ran.

use super::{remember, Context, Stop};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::vms::{self, Comm};
use crate::reader::{Event, Reader};
use crate::source::device::Query;
use crate::source::{system, SlotSource};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{SlotKind, VmRecord};
use std::path::Path;

/// Lists VMs from a capture or the device.
pub(super) fn run(
    input: Option<&Path>,
    json: bool,
    headings: bool,
    context: &mut Context<'_>,
) -> Result<ExitCode, Stop> {
    let found = match input {
        Some(path) => read(&mut context.capture(path)?, context)?,
        None => {
            let mut device = context.device().map_err(|error| error.into_failure("list"))?;
            let slots = device.start(Query::List).map_err(|error| error.into_failure("list"))?;
            read(&mut Reader::new(slots), context)?
        }
    };
    let is_complete = found.end == Some(Status::OK) && found.issues == 0;
    if let (None, true, Some(path)) = (found.end, found.vms.is_empty(), input) {
        let failure = Failure::new(ExitCode::UsageOrIo, format_args!("{}: holds no list of VMs", path.display()));
        return Err(failure.into());
    }
    if !json && found.vms.is_empty() {
        context.note("no VMs");
    }
    // A capture may be of another machine, where these numbers are other processes.
    let comm: Option<Comm> = if input.is_none() { Some(system::comm) } else { None };
    match json {
        true => vms::write_json(context.out, &found.vms, is_complete, comm)?,
        false => vms::write_table(context.out, &found.vms, headings, comm)?,
    }
    if let Some(status) = found.end.filter(|&status| status != Status::OK) {
        return Err(Failure { code: ExitCode::Partial, ..Failure::from_status(status, "list") }.into());
    }
    Ok(if is_complete { ExitCode::Ok } else { ExitCode::Partial })
}

struct Found {
    vms: Vec<VmRecord>,
    end: Option<Status>,
    issues: u64,
}

/// Reads the first list there is.
fn read<S: SlotSource>(reader: &mut Reader<S>, context: &mut Context<'_>) -> Result<Found, Stop> {
    let mut found = Found { vms: Vec::new(), end: None, issues: 0 };
    loop {
        let event = reader.next_event();
        context.tell_issues(reader, &mut found.issues);
        match event.map_err(|error| error.into_failure("list"))? {
            Some(Event::Vm(vm)) => remember(&mut found.vms, vm),
            Some(Event::End(SlotKind::VMS, outcome)) => {
                found.end = outcome.status;
                return Ok(found);
            }
            Some(_) => {}
            None => return Ok(found),
        }
    }
}
