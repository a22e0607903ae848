// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump list`: the VMs EL2 knows, and those that are reserved and never ran.

use super::identity::{check_listed, listed_tables};
use super::{remember, Context, Stop};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::vms::{self, Comm, Sizes};
use crate::leaf;
use crate::model::{target_name, TableFacts};
use crate::reader::{Event, Reader};
use crate::source::device::Query;
use crate::source::{interrupts, system, SlotSource};
use s2dump_abi::hypercall::{DumpFlags, Status};
use s2dump_abi::slot::{SlotKind, VmRecord};
use s2dump_abi::target::Identity;
use std::path::Path;

/// Lists VMs from a capture or the device.
pub(super) fn run(
    input: Option<&Path>,
    size: bool,
    (json, headings): (bool, bool),
    context: &mut Context<'_>,
) -> Result<ExitCode, Stop> {
    let mut sizes = Sizes::new();
    let found = match input {
        Some(path) => {
            let mut capture = context.capture(path)?;
            let mut found = read(&mut capture, context)?;
            if size {
                add_up(&mut capture, &mut found, &mut sizes, context)?;
            }
            found
        }
        None => {
            let mut device = context.device().map_err(|error| error.into_failure("list"))?;
            let slots = device.start(Query::List).map_err(|error| error.into_failure("list"))?;
            let mut found = read(&mut Reader::new(slots), context)?;
            for table in listed_tables(&found.vms).into_iter().take_while(|_| size && !interrupts::came()) {
                let query = Query::Dump { table, flags: DumpFlags::default(), start: 0, end: u64::MAX, budget: 0 };
                let summed = device
                    .start(query)
                    .map_err(|error| error.into_failure(&target_name(table.target)))
                    .and_then(|slots| add_up(&mut Reader::new(slots), &mut found, &mut sizes, context));
                if let Err(failure) = summed {
                    context.note(failure);
                }
            }
            found
        }
    };
    let is_sized = |table: &Identity| table.target.guest_handle().is_some_and(|handle| sizes.contains_key(&handle));
    let all_sized = || listed_tables(&found.vms).iter().all(is_sized);
    let is_complete = found.end == Some(Status::OK) && found.issues == 0 && (!size || all_sized());
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
        true => vms::write_json(context.out, &found.vms, is_complete, (comm, &sizes))?,
        false => vms::write_table(context.out, &found.vms, headings, (comm, size.then_some(&sizes)), context.width)?,
    }
    if let Some(status) = found.end.filter(|&status| status != Status::OK) {
        return Err(Failure { code: ExitCode::Partial, ..Failure::from_status(status, "list") }.into());
    }
    Ok(if is_complete { ExitCode::Ok } else { ExitCode::Partial })
}

/// Adds up what the tables that follow map, each that is of a VM of the list and read to its end.
fn add_up<S: SlotSource>(
    reader: &mut Reader<S>,
    found: &mut Found,
    sizes: &mut Sizes,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let mut reading: Option<(TableFacts, u64, u64)> = None;
    loop {
        let event = reader.next_event();
        context.tell_issues(reader, &mut found.issues);
        match event.map_err(|error| error.into_failure("list"))? {
            Some(Event::Dump(table)) => {
                reading = check_listed(&table, &found.vms).is_ok().then_some((table, 0, found.issues));
            }
            Some(Event::Row(row)) => {
                if let Some((table, bytes, _)) = &mut reading {
                    *bytes += leaf::of_row(&row, table).map_or(0, |_| row.size());
                }
            }
            Some(Event::End(SlotKind::RANGES | SlotKind::PACKED, outcome)) => {
                let read = reading.take().filter(|(.., issues)| outcome.is_complete() && *issues == found.issues);
                sizes.extend(read.and_then(|(table, bytes, _)| Some((table.target.guest_handle()?, bytes))));
            }
            Some(_) => {}
            None => return Ok(()),
        }
    }
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
