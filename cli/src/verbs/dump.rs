// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump dump`: the table of one VM, streamed from slots to a format.

use super::identity::{is_as_listed, listed_table, listed_tables, only_table};
use super::names;
use super::pass::{Known, Pass};
use super::{address_in, list_for, list_vms, open_image, outside_space, read_facts, Context, Stop};
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::{Format, Trailer, Verified};
use crate::model::target_name;
use crate::names::Names;
use crate::numbers::AddressRange;
use crate::plan::input::{ImagePlan, Input};
use crate::plan::DumpPlan;
use crate::reader::{Event, Reader};
use crate::source::device::{Device, Query};
use crate::source::{interrupts, SourceError};
use s2dump_abi::hypercall::{DumpFlags, Status};
use s2dump_abi::version::features;
use s2dump_vmsa::Ipa;
use std::path::Path;

/// Dumps from a capture, the device or an image of memory.
pub(super) fn run(plan: &DumpPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let mut writer = plan.style.writer(context.width);
    let writer = writer.as_mut();
    match &plan.input {
        Input::Capture(path, Some(Selector::All)) => all_of_file(plan, path, context),
        Input::Device(Selector::All) => all_of_device(plan, context),
        Input::Capture(path, target) => {
            let trailer = from_file(plan, path, target.as_ref(), writer, context)?;
            finish(&trailer, writer.tells_consistency(), context)
        }
        Input::Device(target) => {
            let mut device = context.device().map_err(|error| error.into_failure(&target.to_string()))?;
            one_of_device(plan, &mut device, target, context)
        }
        Input::Image(image) => {
            let mut is_no_table = false;
            let trailer = from_image(plan, image, writer, &mut is_no_table, context)?;
            let code = finish(&trailer, writer.tells_consistency(), context)?;
            // What was found out is that there is nothing to be found in it.
            Ok(if is_no_table { code.max(ExitCode::Finding) } else { code })
        }
    }
}

fn one_of_device(
    plan: &DumpPlan,
    device: &mut Device,
    target: &Selector,
    context: &mut Context<'_>,
) -> Result<ExitCode, Stop> {
    let mut writer = plan.style.writer(context.width);
    let (trailer, failure) = from_device(plan, device, target, writer.as_mut(), context)?;
    let code = finish(&trailer, writer.tells_consistency(), context)?;
    match failure {
        // The rows are there; that they were verified is not.
        Some(failure) => Err(Failure { code: ExitCode::Partial, ..failure }.into()),
        None => Ok(code),
    }
}

/// Dumps the host's table, EL2's and those of all VMs that ran, one after the other. One that cannot be read does not spoil the
/// others: it is told, and the exit code says that there is more.
fn all_of_device(plan: &DumpPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let mut device = context.device().map_err(|error| error.into_failure("all"))?;
    let vms = list_vms(&mut device)?;
    let mut code = ExitCode::Ok;
    let mut selectors = Vec::new();
    for (selector, feature, status) in [
        (Selector::Host, features::HOST_STAGE2, Status::UNKNOWN_TARGET),
        (Selector::Hyp, features::HYP_STAGE1, Status::HYP_NOT_PERMITTED),
    ] {
        if device.has(feature) {
            selectors.push(selector);
        } else {
            // EL2 tells the feature only if the boot allowed it; without the host's table it is too old for both.
            let status = if selectors.is_empty() { Status::UNKNOWN_TARGET } else { status };
            let Failure { message, hint, .. } = Failure::from_status(status, &selector.to_string());
            context.note(format_args!("{selector} is left out: {message} ({})", hint.unwrap_or_default()));
            code = ExitCode::Partial;
        }
    }
    selectors.extend(listed_tables(&vms).iter().filter_map(|table| table.target.guest_handle()).map(Selector::Handle));
    for (at, selector) in selectors.iter().enumerate() {
        if at > 0 && interrupts::came() {
            let names: Vec<String> = selectors.iter().skip(at).map(ToString::to_string).collect();
            context.note(format_args!("interrupted before {}", names.join(", ")));
            return Ok(ExitCode::Partial);
        }
        if at > 0 && plan.style.is_for_people() {
            writeln!(context.out)?;
        }
        code = code.max(match one_of_device(plan, &mut device, selector, context) {
            Err(Stop::Failure(failure)) => {
                context.note(failure);
                ExitCode::Partial
            }
            other => other?,
        });
    }
    Ok(code)
}

/// Dumps all tables of a capture, in its order; what it has of one a second time is left out.
fn all_of_file(plan: &DumpPlan, path: &Path, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let mut reader = context.capture(path)?;
    let (mut known, mut code) = (Known::default(), None);
    loop {
        let mut writer = plan.style.writer(context.width);
        let mut pass = Pass::new(plan, writer.as_mut(), None).after(known);
        let trailer = pass.run_on(&mut reader, None, context)?;
        if let Some(trailer) = &trailer {
            pass.end(trailer, context)?;
        }
        known = pass.into_known();
        let Some(trailer) = trailer else { break };
        let finished = match finish(&trailer, writer.tells_consistency(), context) {
            Err(Stop::Failure(failure)) => {
                context.note(failure);
                ExitCode::Partial
            }
            other => other?,
        };
        code = Some(code.unwrap_or(ExitCode::Ok).max(finished));
    }
    match code {
        Some(code) => {
            // They have nothing there, so nothing is missing.
            known.beyond.into_iter().for_each(|left_out| context.note(left_out));
            Ok(code)
        }
        None => {
            let nothing = || Failure::new(ExitCode::UsageOrIo, "the capture holds no table");
            Err(known.beyond.into_iter().next().unwrap_or_else(nothing).into())
        }
    }
}

/// Tells what the output could not, and returns the exit code.
fn finish(trailer: &Trailer, is_told: bool, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    context.out.flush()?;
    if !is_told {
        match trailer.outcome.hold.text() {
            Some(hold) => context.note(format_args!("{}; {hold}", trailer.consistency())),
            None => context.note(trailer.consistency()),
        }
    }
    if let Some(Verified::Changed { first, second }) = trailer.verified {
        context.note(format_args!("the table changed between two passes (digests {first:#x} and {second:#x})"));
    }
    let name = target_name(trailer.outcome.target);
    if trailer.outcome.is_dying {
        return Err(Failure::from_status(Status::VM_DYING, &name).into());
    }
    match trailer.outcome.status {
        Some(status) if status != Status::OK => {
            return Err(Failure { code: ExitCode::Partial, ..Failure::from_status(status, &name) }.into());
        }
        _ => {}
    }
    match (trailer.incomplete(), trailer.verified) {
        (Some(why), _) => Err(Failure::new(ExitCode::Partial, format_args!("{name}: incomplete: {why}")).into()),
        (None, Some(Verified::Changed { .. })) => Ok(ExitCode::Finding),
        (None, Some(Verified::Same)) if !is_told => {
            context.note("a second pass found it unchanged");
            Ok(ExitCode::Ok)
        }
        (None, _) => Ok(ExitCode::Ok),
    }
}

/// Writes the dump; returns its trailer, and why a second pass failed if one did.
fn from_device(
    plan: &DumpPlan,
    device: &mut Device,
    selector: &Selector,
    writer: &mut dyn Format,
    context: &mut Context<'_>,
) -> Result<(Trailer, Option<Failure>), Stop> {
    let vms = list_for(selector, device)?;
    let (table, vm) = listed_table(selector, &vms)?;
    let name = target_name(table.target);
    let fail = |error: SourceError| error.into_failure(&name);
    // Facts tell which addresses are what they are by themselves; a guest's are its own.
    let facts = if vm.is_none() { read_facts(device)? } else { Vec::new() };
    let names = match plan.names {
        true => names::read(device, table.target, vm.as_ref(), &facts, context),
        false => Names::default(),
    };
    let flag = |wanted: bool, flag: DumpFlags| if wanted { flag } else { DumpFlags::default() };
    // What is cut where names end must tell its output address there. In one call there is no room for that.
    let flags = flag(plan.exact || plan.names && !plan.atomic, DumpFlags::EXACT)
        .union(flag(plan.atomic, DumpFlags::ATOMIC))
        .union(flag(plan.verify, DumpFlags::DIGEST));
    let flags = flags.union(flag(plan.tables && device.has(features::TABLES), DumpFlags::TABLES));
    let query = Query::Dump { table, flags, start: plan.range.start, end: plan.range.end, budget: plan.budget };

    let start = plan.range.start;
    let slots = device.start(query).map_err(|error| outside_space(fail(error), start, vm.as_ref()))?;
    let mut pass = Pass::new(plan, writer, vm).knowing(facts).naming(names);
    let mut trailer = pass.run(&mut Reader::new(slots), Some(table.target), context)?;
    let mut failure = None;
    if plan.verify && trailer.incomplete().is_some() {
        trailer.verified = Some(Verified::Skipped);
    } else if plan.verify {
        // The driver held the VM up to the last call of the first pass.
        let again = list_for(selector, device).and_then(|again| match is_as_listed(table, &vms, &again) {
            true => second_pass(device, query, &name, trailer.outcome.digest, context),
            false => Err(Failure::from_status(Status::VM_GONE, &name)),
        });
        trailer.verified = Some(match again {
            Ok(verified) => verified,
            Err(why) => {
                let message = format!("the second pass failed: {}", why.message);
                failure = Some(Failure { message, ..why });
                Verified::Failed
            }
        });
    }
    pass.end(&trailer, context)?;
    Ok((trailer, failure))
}

/// Reads the table called `name` again and compares digests.
fn second_pass(
    device: &mut Device,
    query: Query,
    name: &str,
    first: Option<u64>,
    context: &mut Context<'_>,
) -> Result<Verified, Failure> {
    let fail = |error: SourceError| error.into_failure(name);
    let mut reader = Reader::new(device.start(query).map_err(fail)?);
    let (mut second, mut issues) = (None, 0);
    loop {
        let event = reader.next_event();
        context.tell_issues(&mut reader, &mut issues);
        let Some(event) = event.map_err(fail)? else { break };
        if let Event::End(_, outcome) = event {
            match outcome.status {
                _ if outcome.is_dying => return Err(Failure::from_status(Status::VM_DYING, name)),
                Some(status) if status != Status::OK => return Err(Failure::from_status(status, name)),
                _ => second = outcome.digest.filter(|_| outcome.is_complete()),
            }
        }
    }
    match (first, second) {
        // What has gaps, or is of two tables, compares with nothing.
        _ if issues > 0 => {
            Err(Failure::new(ExitCode::Partial, format_args!("{name}: problems in the input: {issues}")))
        }
        (Some(first), Some(second)) if first == second => Ok(Verified::Same),
        (Some(first), Some(second)) => Ok(Verified::Changed { first, second }),
        _ => Err(fail(SourceError::Driver("a dump with digest", "no digest, or no end".into()))),
    }
}

fn from_file(
    plan: &DumpPlan,
    path: &Path,
    target: Option<&Selector>,
    writer: &mut dyn Format,
    context: &mut Context<'_>,
) -> Result<Trailer, Stop> {
    let fail = |error: SourceError| error.into_failure("capture");
    let mut source = (context.open_capture)(path).map_err(fail)?;
    let only = if target.is_none() { only_table(&mut source)? } else { None };
    let mut pass = Pass::new(plan, writer, None).named(target);
    let trailer = pass.run(&mut Reader::new(source), only, context)?;
    pass.end(&trailer, context)?;
    Ok(trailer)
}

fn from_image(
    plan: &DumpPlan,
    image: &ImagePlan,
    writer: &mut dyn Format,
    is_no_table: &mut bool,
    context: &mut Context<'_>,
) -> Result<Trailer, Stop> {
    let geometry = image.table.root.geometry();
    let AddressRange { start, end, .. } = plan.range.whole_pages(geometry.granule().page_shift());
    let start = address_in(image, start)?;
    let end = Ipa::try_new(end.min(geometry.ia_end())).unwrap_or(start);
    let mut table = open_image(image, context)?;
    let mut pass = Pass::new(plan, writer, None);
    let mut trailer = pass.run_image(&mut table.dump(start, end, plan.exact), context)?;
    if let Some(error) = table.take_error() {
        trailer.issues += 1;
        trailer.cause.get_or_insert(error.to_string());
    }
    *is_no_table = pass.is_no_table();
    pass.end(&trailer, context)?;
    Ok(trailer)
}
