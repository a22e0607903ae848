// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump dump`: the table of one VM, streamed from slots to a format.

use super::{address_in, list_vms, open_image, outside_space, remember, resolve, resolve_captured, Context, Stop};
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::{Format, Heading, Trailer, Verified};
use crate::merge::Merger;
use crate::model::{target_name, Missing, Outcome, Row, Table, IMAGE};
use crate::numbers::{AddressRange, Size};
use crate::plan::input::{ImagePlan, Input};
use crate::plan::DumpPlan;
use crate::progress::Progress;
use crate::reader::{Event, Reader};
use crate::source::device::{Device, Request};
use crate::source::{ram, SlotSource, SourceError};
use s2dump_abi::hypercall::{DumpFlags, Status};
use s2dump_abi::slot::{slot_flags, SlotKind, VmRecord};
use s2dump_abi::target::Target;
use s2dump_hyp::coalescer::Fold;
use s2dump_vmsa::Ipa;
use std::path::Path;

/// Dumps from a capture, the device or an image of memory.
pub(super) fn run(plan: &DumpPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let mut writer = plan.style.writer();
    let (trailer, failure) = match &plan.input {
        Input::Capture(path, target) => (from_file(plan, path, target.as_ref(), writer.as_mut(), context)?, None),
        Input::Device(target) => from_device(plan, target, writer.as_mut(), context)?,
        Input::Image(image) => (from_image(plan, image, writer.as_mut(), context)?, None),
    };
    context.out.flush()?;
    let code = finish(&trailer, writer.tells_consistency(), context)?;
    match failure {
        // The rows are there; that they were verified is not.
        Some(failure) => Err(Failure { code: ExitCode::Partial, ..failure }.into()),
        None => Ok(code),
    }
}

/// Tells what the output could not, and returns the exit code.
fn finish(trailer: &Trailer, is_told: bool, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    if !is_told {
        context.note(trailer.consistency());
    }
    if let Some(Verified::Changed { first, second }) = trailer.verified {
        context.note(format_args!("the table changed between two passes (digests {first:#x} and {second:#x})"));
    }
    let name = target_name(trailer.outcome.target);
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
    selector: &Selector,
    writer: &mut dyn Format,
    context: &mut Context<'_>,
) -> Result<(Trailer, Option<Failure>), Stop> {
    let name = selector.to_string();
    let fail = |error: SourceError| error.into_failure(&name);
    let mut device = context.device().map_err(fail)?;
    let vms = list_vms(&mut device)?;
    let (target, vm) = resolve(selector, &vms)?;
    let flag = |wanted: bool, flag: DumpFlags| if wanted { flag } else { DumpFlags::default() };
    let flags = flag(plan.exact, DumpFlags::EXACT)
        .union(flag(plan.atomic, DumpFlags::ATOMIC))
        .union(flag(plan.verify, DumpFlags::DIGEST));
    let request = Request::Dump { target, flags, start: plan.range.start, end: plan.range.end, budget: plan.budget };

    let start = plan.range.start;
    let slots = device.start(request).map_err(|error| outside_space(fail(error), start, vm.as_ref()))?;
    let mut pass = Pass::new(plan, writer, vm);
    let mut trailer = pass.run(&mut Reader::new(slots), Some(target), context)?;
    let mut failure = None;
    if plan.verify && trailer.incomplete().is_none() {
        trailer.verified = Some(match second_pass(&mut device, request, trailer.outcome.digest) {
            Ok(verified) => verified,
            Err(error) => {
                let why = fail(error);
                let message = format!("the second pass failed: {}", why.message);
                failure = Some(Failure { message, ..why });
                Verified::Failed
            }
        });
    }
    pass.end(&trailer, context)?;
    Ok((trailer, failure))
}

/// Reads the table again and compares digests.
fn second_pass(device: &mut Device, request: Request, first: Option<u64>) -> Result<Verified, SourceError> {
    let mut reader = Reader::new(device.start(request)?);
    let mut second = None;
    while let Some(event) = reader.next_event()? {
        if let Event::End(_, outcome) = event {
            second = outcome.digest.filter(|_| outcome.is_complete());
        }
    }
    match (first, second) {
        (Some(first), Some(second)) if first == second => Ok(Verified::Same),
        (Some(first), Some(second)) => Ok(Verified::Changed { first, second }),
        _ => Err(SourceError::Driver("a dump with digest", "no digest, or no end".into())),
    }
}

fn from_file(
    plan: &DumpPlan,
    path: &Path,
    target: Option<&Selector>,
    writer: &mut dyn Format,
    context: &mut Context<'_>,
) -> Result<Trailer, Stop> {
    // Standard input cannot be read twice: there the first table is taken.
    if target.is_none() && path.as_os_str() != "-" {
        only_table(path, context)?;
    }
    let mut pass = Pass { selector: target, ..Pass::new(plan, writer, None) };
    let trailer = pass.run(&mut context.capture(path)?, None, context)?;
    pass.end(&trailer, context)?;
    Ok(trailer)
}

fn from_image(
    plan: &DumpPlan,
    image: &ImagePlan,
    writer: &mut dyn Format,
    context: &mut Context<'_>,
) -> Result<Trailer, Stop> {
    let geometry = image.table.root.geometry();
    let page = 1 << geometry.granule().page_shift();
    let AddressRange { start, end } = plan.range;
    if let Some(bound) = [start, end].into_iter().find(|&bound| bound != u64::MAX && bound % page != 0) {
        let message = format!("ram: --range: {bound:#x} is not a multiple of {}, the size of its pages", Size(page));
        return Err(Failure::new(ExitCode::UsageOrIo, message).into());
    }
    let start = address_in(image, start)?;
    let end = Ipa::try_new(end.min(geometry.ia_end())).unwrap_or(start);
    let mut source = open_image(image, ram::Request::Dump { start, end, exact: plan.exact }, context)?;
    let mut pass = Pass::new(plan, writer, None);
    let mut trailer = pass.run(&mut Reader::new(&mut source), Some(IMAGE), context)?;
    if let Some(error) = source.take_error() {
        trailer.issues += 1;
        context.note(error);
    }
    pass.end(&trailer, context)?;
    Ok(trailer)
}

/// Checks that a capture does not hold several tables.
fn only_table(path: &Path, context: &Context<'_>) -> Result<(), Failure> {
    let mut reader = context.capture(path)?;
    let mut targets: Vec<Target> = Vec::new();
    // Damage ends the search here; the pass that follows tells it.
    while let Ok(Some(event)) = reader.next_event() {
        while reader.next_issue().is_some() {}
        match event {
            Event::Dump(table) if !targets.contains(&table.target()) => targets.push(table.target()),
            _ => {}
        }
        // Enough to see what is in it.
        if targets.len() == 8 {
            break;
        }
    }
    if targets.len() < 2 {
        return Ok(());
    }
    let names: Vec<String> = targets.into_iter().map(target_name).collect();
    let failure = Failure::new(
        ExitCode::UsageOrIo,
        format_args!("{} holds several tables: {}", path.display(), names.join(", ")),
    );
    Err(failure.hint("name one of them"))
}

/// One pass over slots, from the first row to the trailer.
struct Pass<'a> {
    plan: &'a DumpPlan,
    /// The name of the table in a capture.
    selector: Option<&'a Selector>,
    writer: &'a mut dyn Format,
    vms: Vec<VmRecord>,
    vm: Option<VmRecord>,
    dumping: Option<Table>,
    merger: Option<Merger>,
    rows: u64,
    missing: Missing,
    issues: u64,
}

impl<'a> Pass<'a> {
    fn new(plan: &'a DumpPlan, writer: &'a mut dyn Format, vm: Option<VmRecord>) -> Self {
        Self {
            plan,
            selector: None,
            writer,
            vms: Vec::new(),
            vm,
            dumping: None,
            merger: None,
            rows: 0,
            missing: Missing::default(),
            issues: 0,
        }
    }

    /// Writes the dump of `target`, or the one the plan names in a capture, up to its last row.
    fn run<S: SlotSource>(
        &mut self,
        reader: &mut Reader<S>,
        target: Option<Target>,
        context: &mut Context<'_>,
    ) -> Result<Trailer, Stop> {
        let mut progress = Progress::new(context.shows_progress);
        let mut wanted = target;
        loop {
            let event = reader.next_event();
            if reader.has_issues() {
                progress.clear(context.err);
                context.tell_issues(reader, &mut self.issues);
            }
            match event.map_err(|error| error.into_failure("capture"))? {
                Some(Event::Vm(vm)) => remember(&mut self.vms, vm),
                Some(Event::Dump(table)) => {
                    let chosen = match wanted {
                        Some(target) => target,
                        None => self.choose(table.target())?,
                    };
                    if table.target() == chosen && self.dumping.is_none() {
                        wanted = Some(chosen);
                        self.begin(table, context)?;
                    }
                }
                Some(Event::Row(row)) => self.row(row, context)?,
                Some(Event::End(SlotKind::RANGES, outcome)) if self.dumping.is_some() => {
                    progress.clear(context.err);
                    if let Some(error) = reader.take_failure() {
                        self.issues += 1;
                        context.note(error.into_failure("capture"));
                    }
                    return self.last_rows(outcome, context);
                }
                Some(Event::End(SlotKind::END, outcome)) => {
                    if let Some(status) = outcome.status.filter(|&status| status != Status::OK) {
                        if wanted.is_none_or(|wanted| wanted == outcome.target) {
                            return Err(Failure::from_status(status, &target_name(outcome.target)).into());
                        }
                    }
                }
                Some(_) => {}
                None => return Err(self.nothing(wanted).into()),
            }
            if let (Some(table), Some(at)) = (&self.dumping, reader.position()) {
                progress.tick(context.err, table.header.start, at.next, table.end());
            }
        }
    }

    /// Returns which table of a capture is meant, seeing the first one.
    fn choose(&self, first: Target) -> Result<Target, Failure> {
        match self.selector {
            None => Ok(first),
            Some(selector) => Ok(resolve_captured(selector, &self.vms)?.0),
        }
    }

    fn begin(&mut self, mut table: Table, context: &mut Context<'_>) -> Result<(), Stop> {
        let (range, header) = (self.plan.range, &mut table.header);
        if self.plan.range != AddressRange::ALL
            && (range.start < header.start || range.end.min(table.geometry.ia_end()) > header.end)
        {
            self.issues += 1;
            context.note(format_args!("only {:#x}..{:#x} was captured", header.start, header.end));
        }
        header.start = header.start.max(range.start);
        header.end = header.end.min(range.end);
        let exact = table.has(slot_flags::EXACT);
        if self.plan.exact && !exact {
            context.note("captured folded: within rows marked ~ the output addresses are not known");
        }
        let handle = table.target().guest_handle();
        self.vm = self.vm.or_else(|| self.vms.iter().find(|vm| Some(vm.handle) == handle).copied());
        let heading = Heading {
            table,
            vm: self.vm,
            exact: self.plan.exact && exact,
            color: context.color(self.plan.color),
            headings: self.plan.headings,
        };
        self.merger = Some(Merger::new(Fold { geometry: table.geometry, exact: self.plan.exact }));
        self.dumping = Some(table);
        Ok(self.writer.begin(context.out, &heading)?)
    }

    fn row(&mut self, row: Row, context: &mut Context<'_>) -> Result<(), Stop> {
        let (Some(table), Some(merger)) = (&self.dumping, &mut self.merger) else { return Ok(()) };
        let Some(row) = row.clip(table.header.start, table.end()) else { return Ok(()) };
        let finished = merger.push(row);
        self.write(finished, context)
    }

    fn write(&mut self, row: Option<Row>, context: &mut Context<'_>) -> Result<(), Stop> {
        if let (Some(row), Some(table)) = (row, &self.dumping) {
            self.rows += 1;
            self.missing.add(&row, table);
            self.writer.row(context.out, &row)?;
        }
        Ok(())
    }

    fn last_rows(&mut self, outcome: Outcome, context: &mut Context<'_>) -> Result<Trailer, Stop> {
        let last = self.merger.as_mut().and_then(Merger::finish);
        self.write(last, context)?;
        Ok(Trailer { outcome, rows: self.rows, verified: None, missing: self.missing, issues: self.issues })
    }

    fn end(&mut self, trailer: &Trailer, context: &mut Context<'_>) -> Result<(), Stop> {
        Ok(self.writer.end(context.out, trailer)?)
    }

    /// Says that there was no table to dump.
    fn nothing(&self, wanted: Option<Target>) -> Failure {
        let what = match (self.selector, wanted) {
            (Some(selector), _) => format!("{selector}: the capture holds no table of it"),
            (None, Some(target)) => format!("{}: the driver gave no table", target_name(target)),
            (None, None) => "the capture holds no table".into(),
        };
        let code = if self.selector.is_some() { ExitCode::NoSuchVm } else { ExitCode::UsageOrIo };
        Failure::new(code, what)
    }
}
